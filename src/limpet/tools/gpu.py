"""The GPUs of this machine and their drivers, as device files and libraries show them.

All is read below `root`, which is not `/` only in tests.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from limpet.core.errors import LimpetError
from limpet.core.gpu import LIBRARY, Driver, Gpu
from limpet.core.numbers import numbers
from limpet.tools import files

ROOT = Path("/")
# The driver's libraries that Apptainer's --nv hands in and that programs load first.
_LIBRARIES = (LIBRARY, "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1")
# Where the driver puts them beside what ld.so.conf names: Kubernetes nodes, WSL, NixOS.
_FOLDERS = (
    *(
        "usr/lib/{arch}-linux-gnu",
        "usr/lib64",
        "usr/lib",
        "usr/lib/{arch}-linux-gnu/nvidia/current",
    ),
    *("usr/local/nvidia/lib64", "usr/lib/wsl/lib", "run/opengl-driver/lib"),
)


def probe_gpus(root: Path = ROOT) -> tuple[Gpu, ...]:
    """The makers of the GPUs that have device files here."""
    found: list[Gpu] = []
    # WSL has its GPUs behind /dev/dxg.
    if any((root / "dev" / name).exists() for name in ("nvidiactl", "nvidia0", "dxg")):
        found.append("nvidia")
    if (root / "dev/kfd").exists():
        found.append("amd")
    return tuple(found)


def probe_driver(gpus: Sequence[Gpu], *, cache: Path | None = None, root: Path = ROOT) -> Driver:
    """The drivers of these GPUs; nothing is read where there are none.

    What the libraries ask for takes a while to read, and is kept in `cache`.
    """
    if not gpus:
        return Driver()
    cards = sorted(root.glob("dev/dri/renderD*"))
    driver = Driver(
        rocm=read_rocm(root),
        kfd=_may_open(root / "dev/kfd"),
        cards=not cards or any(map(_may_open, cards)),  # of several a job gets some
    )
    if "nvidia" not in gpus:
        return driver
    libraries = find_libraries(root)
    glibc, of = _newest_glibc(libraries, cache / "gpu-driver" if cache else None)
    return msgspec.structs.replace(
        driver,
        version=read_module_version(root),
        library_version=read_library_version(libraries),
        glibc=glibc,
        glibc_of=of,
    )


def _may_open(device: Path) -> bool:
    return os.access(device, os.R_OK | os.W_OK)


def read_module_version(root: Path = ROOT) -> str:
    """The version of NVIDIA's kernel module."""
    with contextlib.suppress(OSError):
        return (root / "sys/module/nvidia/version").read_text().strip()
    with contextlib.suppress(OSError):
        said = (root / "proc/driver/nvidia/version").read_text()
        if found := re.search(r"Kernel Module\D*?(?:x86_64|aarch64)?\s+(\d+(?:\.\d+)+)", said):
            return found[1]
    return ""


def read_library_version(libraries: Sequence[Path]) -> str:
    """The version that the real file behind libcuda.so.1 has in its name."""
    for library in libraries:
        found = re.search(r"libcuda\.so\.(\d+(?:\.\d+)+)$", os.path.realpath(library))
        if found:
            return found[1]
    return ""


def read_rocm(root: Path = ROOT) -> str:
    """The version of the ROCm that is installed: `6.2.0`."""
    for path in (root / "opt/rocm/.info/version", *sorted(root.glob("opt/rocm-*/.info/version"))):
        with contextlib.suppress(OSError):
            return path.read_text().strip().partition("-")[0]
    return ""


def find_libraries(root: Path = ROOT) -> tuple[Path, ...]:
    """The driver's libraries, each where the loader finds it first."""
    folders = [*_configured(root), *(root / f.format(arch=os.uname().machine) for f in _FOLDERS)]
    found = []
    for name in _LIBRARIES:
        place = next((f / name for f in folders if (f / name).exists()), None)
        found += [place] if place else []
    return tuple(found)


def _configured(root: Path) -> Iterator[Path]:
    for config in (root / "etc/ld.so.conf", *sorted(root.glob("etc/ld.so.conf.d/*.conf"))):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in config.read_text().splitlines():
                if line.startswith("/"):
                    yield root / line.strip().lstrip("/")


def _newest_glibc(libraries: Sequence[Path], kept: Path | None) -> tuple[str, str]:
    key = "\n".join(filter(None, map(_file_key, libraries)))
    if kept and key:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            before, _, said = kept.read_text("utf-8").rpartition("\n")
            version, _, of = said.partition(" ")
            if before == key:
                return version, of
    needs = [(read_glibc_need(library), library.name) for library in libraries]
    version, of = max(needs, key=lambda need: numbers(need[0]), default=("", ""))
    if kept and key:
        with contextlib.suppress(OSError, LimpetError):
            files.make_folder(kept.parent)
            with files.written_beside(kept) as out:
                out.write(f"{key}\n{version} {of}".encode())
    return version, of


def _file_key(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{path!s} {status.st_mtime_ns} {status.st_size} {status.st_ino}"


def read_glibc_need(library: Path) -> str:
    """The newest `GLIBC_…` that a library asks for; empty where that cannot be read."""
    from limpet.formats.elf import read_elf  # seldom needed: what is found is kept

    with contextlib.suppress(OSError), library.open("rb") as file:
        elf = read_elf(file)
        return elf.glibc if elf else ""
    return ""
