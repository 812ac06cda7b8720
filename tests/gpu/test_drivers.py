"""Drivers as they lie on machines: recorded texts, faked trees, and real ELF files."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import msgspec
import pytest

from limpet.actions import image_known
from limpet.core.facts import Libc
from limpet.core.gpu import Driver, GpuNeeds
from limpet.core.numbers import numbers
from limpet.formats.squashfs import Entry, write_squashfs
from limpet.tools import gpu, image_needs
from limpet.tools.images import read_image

# Made of four lines of C that call arc4random: glibc has it since 2.36.
LIBRARY = Path(__file__).with_name("needs-glibc-2.36.so")

PROPRIETARY = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.06  Wed Jun 26 06:46:07 UTC 2024
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
OPEN = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U22)
GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)
"""
GRACE = """\
NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06  Release Build  (dvs-builder@U)
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def add_library(folder: Path, version: str) -> None:
    folder.mkdir(parents=True)
    shutil.copy(LIBRARY, folder / f"libcuda.so.{version}")
    (folder / "libcuda.so.1").symlink_to(f"libcuda.so.{version}")


@pytest.mark.parametrize(
    ("text", "version"), [(PROPRIETARY, "535.183.06"), (OPEN, "570.86.15"), (GRACE, "580.65.06")]
)
def test_module_versions_as_kernels_print_them(tmp_path: Path, text: str, version: str) -> None:
    root = write(tmp_path, {"proc/driver/nvidia/version": text})
    assert gpu.read_module_version(root) == version
    write(root, {"sys/module/nvidia/version": "1.2.3\n"})
    assert gpu.read_module_version(root) == "1.2.3"


def test_a_machine_without_gpus(tmp_path: Path) -> None:
    assert gpu.probe_gpus(tmp_path) == ()
    assert gpu.probe_driver((), root=tmp_path) == Driver()
    assert gpu.read_module_version(tmp_path) == ""


@pytest.mark.parametrize(
    ("place", "config"),
    [
        (f"usr/lib/{os.uname().machine}-linux-gnu", ""),
        ("usr/lib64", ""),
        ("usr/local/nvidia/lib64", ""),
        ("opt/odd place/lib", "# a comment\n/opt/odd place/lib\n"),
    ],
)
def test_a_machine_with_nvidias(tmp_path: Path, place: str, config: str) -> None:
    root = write(tmp_path, {"dev/nvidiactl": "", "sys/module/nvidia/version": "550.54.15\n"})
    write(root, {"etc/ld.so.conf.d/nvidia.conf": config})
    add_library(root / place, "550.54.15")
    assert gpu.probe_gpus(root) == ("nvidia",)
    driver = gpu.probe_driver(("nvidia",), root=root)
    assert (driver.version, driver.library_version) == ("550.54.15", "550.54.15")
    assert (driver.cuda, driver.glibc, driver.glibc_of) == ("12.4", "2.36", "libcuda.so.1")


def test_a_machine_with_amds(tmp_path: Path) -> None:
    root = write(tmp_path, {"dev/kfd": "", "opt/rocm-6.2.0/.info/version": "6.2.0-66\n"})
    assert gpu.probe_gpus(root) == ("amd",)
    driver = gpu.probe_driver(("amd",), root=root)
    assert (driver.rocm, driver.kfd) == ("6.2.0", True)
    (root / "dev/kfd").chmod(0)
    if os.geteuid() != 0:
        assert not gpu.probe_driver(("amd",), root=root).kfd


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_cards_that_are_closed(tmp_path: Path) -> None:
    root = write(tmp_path, {"dev/kfd": "", "dev/dri/renderD128": "", "dev/dri/renderD129": ""})
    (root / "dev/dri/renderD128").chmod(0)  # somebody else's, in a job that has the other one
    assert gpu.probe_driver(("amd",), root=root).cards
    (root / "dev/dri/renderD129").chmod(0)
    assert not gpu.probe_driver(("amd",), root=root).cards


def test_libraries_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    add_library(root / "usr/lib64", "550.54.15")
    first = gpu.probe_driver(("nvidia",), root=root, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "read_glibc_need", lambda _: pytest.fail("read again"))
        assert gpu.probe_driver(("nvidia",), root=root, cache=cache) == first
    # A driver that was updated is another one; a damaged or unwritable cache is none.
    os.utime(root / "usr/lib64/libcuda.so.550.54.15", (1, 1))
    monkeypatch.setattr(gpu, "read_glibc_need", lambda _: "2.99")
    assert gpu.probe_driver(("nvidia",), root=root, cache=cache).glibc == "2.99"
    (cache / "gpu-driver").write_bytes(b"\xff\xfe")
    assert gpu.probe_driver(("nvidia",), root=root, cache=cache).glibc == "2.99"
    assert gpu.probe_driver(("nvidia",), root=root, cache=Path("/proc/none")).glibc == "2.99"


def test_real_and_damaged_libraries(tmp_path: Path) -> None:
    assert gpu.read_glibc_need(LIBRARY) == "2.36"
    ours = os.confstr("CS_GNU_LIBC_VERSION")
    if ours:
        need = gpu.read_glibc_need(Path(sys.executable).resolve())
        assert numbers(need) <= numbers(ours.split()[1])
    data = LIBRARY.read_bytes()
    for number, damaged in enumerate((b"", b"\x7fELF", data[:300], data[:64] + bytes(len(data)))):
        path = tmp_path / str(number)
        path.write_bytes(damaged)
        assert gpu.read_glibc_need(path) == ""
    assert gpu.read_glibc_need(tmp_path / "none") == ""


FOREIGN = {
    "usr/lib/x86_64-linux-gnu/libc.so.6": b"\0GNU C Library stable release version 2.31.\0",
    "usr/local/lib/python3.10/dist-packages/torch-2.3.0a0+vendor.dist-info/METADATA": b"",
    "usr/local/lib/python3.10/dist-packages/cupy_cuda11x-13.0.0.dist-info/METADATA": b"",
    ".singularity.d/env/10-docker2singularity.sh": (
        b'export CUDA_VERSION="${CUDA_VERSION:-"12.4.1"}"\n'
    ),
}


def foreign(path: Path, members: dict[str, bytes]) -> Path:
    folders = {parent for name in members for parent in Path(name).parents if parent != Path()}
    entries = [Entry(str(folder), "dir", mode=0o755) for folder in sorted(folders)]
    entries += [Entry(n, "file", mode=0o644, content=data) for n, data in members.items()]
    entries += [Entry("lib", "symlink", mode=0o777, target="usr/lib")]
    with path.open("w+b") as file:
        write_squashfs(file, entries, compressor="gzip")
    return path


def test_a_foreign_image_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = read_image(str(foreign(tmp_path / "a.sqfs", FOREIGN)))
    seen = image_known.with_known(image, tmp_path / "cache")
    assert seen.libc == Libc(family="glibc", version="2.31")
    assert seen.needs == GpuNeeds(cuda="12.4", cuda_of="its CUDA_VERSION")
    monkeypatch.setattr(image_needs, "read_known", lambda *_: pytest.fail("read again"))
    assert image_known.with_known(image, tmp_path / "cache") == seen


def test_a_foreign_image_with_a_libcuda_of_its_own(tmp_path: Path) -> None:
    more = {"usr/local/cuda-13.0/compat/libcuda.so.580.65.06": b""}
    image = read_image(str(foreign(tmp_path / "a.sqfs", FOREIGN | more)))
    needs = image_known.with_known(image, tmp_path / "cache").needs
    assert (needs.compat, needs.compat_at) == ("580.65.06", "/usr/local/cuda-13.0/compat")
    assert needs.cuda == "12.4"


def test_images_that_say_nothing(tmp_path: Path) -> None:
    musl = read_image(str(foreign(tmp_path / "m.sqfs", {"usr/lib/ld-musl-x86_64.so.1": b""})))
    seen = image_known.with_known(musl, tmp_path)
    assert seen.libc and seen.libc.family == "musl"
    (tmp_path / "bad.sqfs").write_bytes(b"hsqs" + bytes(200))
    bad = read_image(str(tmp_path / "bad.sqfs"))
    assert image_known.with_known(bad, tmp_path) == bad
    sandbox = msgspec.structs.replace(bad, kind="sandbox")
    assert image_known.with_known(sandbox, tmp_path) == sandbox
