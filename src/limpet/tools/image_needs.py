"""What a foreign image has in it that decides about GPUs: its C library and its packages.

Read from its squashfs without starting it, once for an image, and kept.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from limpet.core.errors import LimpetError
from limpet.core.facts import Libc, parse_glibc
from limpet.core.gpu import GpuNeeds, find_compat, plan_needs
from limpet.core.seen import ImageSeen
from limpet.formats.sif import read_sif, root_partition
from limpet.formats.squashfs import Squashfs
from limpet.tools import files

_LIBC = ("lib/{arch}-linux-gnu/libc.so.6", "lib64/libc.so.6", "usr/lib/libc.so.6")
_LIBRARIES = ("usr/local/lib", "usr/lib", "opt/conda/lib", "opt/venv/lib", "usr/lib64")
_PACKAGES = ("site-packages", "dist-packages")
_VARIABLE = re.compile(r"(?m)^(?:export )?(CUDA_VERSION|ROCM_VERSION)=(.*)$")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in an image, as it is kept in the cache."""

    libc: Libc | None = None
    needs: GpuNeeds = GpuNeeds()


def with_needs(image: ImageSeen, cache: Path) -> ImageSeen:
    """The image with what it needs of a GPU's driver; as it was where that cannot be read."""
    if image.facts or image.kind == "sandbox":
        return image
    path = Path(image.path)
    with contextlib.suppress(OSError, LimpetError):
        kept = cache / "contents" / f"{files.key_of(path)}.json"
        with contextlib.suppress(OSError, msgspec.DecodeError):
            found = msgspec.json.decode(kept.read_bytes(), type=Kept)
            return msgspec.structs.replace(image, needs=found.needs, libc=found.libc)
        found = read_needs(path, image.kind == "sif")
        image = msgspec.structs.replace(image, needs=found.needs, libc=found.libc)
        files.make_folder(kept.parent)
        with files.written_beside(kept) as out:
            out.write(msgspec.json.encode(found))
    return image


def read_needs(path: Path, is_sif: bool) -> Kept:
    """What the image's root file system says."""
    with path.open("rb") as file:
        offset = root_partition(read_sif(file)).offset if is_sif else 0
        root = Squashfs(file, offset)
        needs = plan_needs(dict(_read_packages(root)), dict(_read_variables(root)))
        compat, at = find_compat(lambda folder: _list(root, folder), "opt/conda")
        needs = msgspec.structs.replace(needs, compat=compat, compat_at=at)
        return Kept(libc=_read_libc(root), needs=needs)


def packages_of(path: Path, is_sif: bool) -> dict[str, str]:
    """The Python packages in the usual places of an image's root file system: name → version."""
    with path.open("rb") as file:
        offset = root_partition(read_sif(file)).offset if is_sif else 0
        return dict(_read_packages(Squashfs(file, offset)))


def _list(root: Squashfs, path: str) -> list[str]:
    node = root.find(path, follow=True)
    if node is None or node.kind != "dir":
        return []
    return [name.decode("utf-8", "replace") for name in node.children]


def _read_packages(root: Squashfs) -> Iterator[tuple[str, str]]:
    for above in _LIBRARIES:
        for python in _list(root, above):
            if re.fullmatch(r"python3(\.\d+)?", python):
                for folder in _PACKAGES:
                    yield from _read_folder(root, f"{above}/{python}/{folder}")


def _read_folder(root: Squashfs, folder: str) -> Iterator[tuple[str, str]]:
    for name in _list(root, folder):
        if found := re.fullmatch(r"(.+?)-(\d[^-]*)(?:-py\d\S*)?\.(?:dist|egg)-info", name):
            yield re.sub(r"[-_.]+", "-", found[1]).lower(), found[2]


def _read_variables(root: Squashfs) -> Iterator[tuple[str, str]]:
    for name in sorted(_list(root, ".singularity.d/env")):
        script = root.read(f".singularity.d/env/{name}", 1 << 20).decode("utf-8", "replace")
        for variable, value in _VARIABLE.findall(script):
            # As Apptainer writes it: "${CUDA_VERSION:-"12.4.1"}".
            if number := re.search(r"\d+(\.\d+)+", value):
                yield variable, number[0]


def _read_libc(root: Squashfs) -> Libc | None:
    for place in _LIBC:
        for arch in ("x86_64", "aarch64"):
            node = root.find(place.format(arch=arch), follow=True)
            if node is not None and node.is_file:
                version = parse_glibc(root.read(node))
                return Libc(family="glibc", version=version) if version else None
    if any(name.startswith("ld-musl-") for name in _list(root, "lib")):
        return Libc(family="musl", version="0")
    return None
