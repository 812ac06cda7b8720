"""What a foreign image's root file system says of it, read from its squashfs.

Its C library and its packages decide about GPUs, its environment scripts about writable places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec

from limpet.core.facts import Libc, parse_glibc
from limpet.core.gpu import find_compat, plan_needs
from limpet.core.image_env import parse_variables, select_sent
from limpet.core.seen import Known
from limpet.formats.sif import read_sif, root_partition
from limpet.formats.squashfs import Squashfs

_LIBC = ("lib/{arch}-linux-gnu/libc.so.6", "lib64/libc.so.6", "usr/lib/libc.so.6")
_LIBRARIES = ("usr/local/lib", "usr/lib", "opt/conda/lib", "opt/venv/lib", "usr/lib64")
_PACKAGES = ("site-packages", "dist-packages")
_VERSIONS = ("CUDA_VERSION", "ROCM_VERSION")


def read_known(path: Path, is_sif: bool) -> Known:
    """What the image's root file system says."""
    with path.open("rb") as file:
        offset = root_partition(read_sif(file)).offset if is_sif else 0
        root = Squashfs(file, offset)
        scripts = _read_scripts(root)
        versions = dict(_find_versions(parse_variables(scripts)))
        needs = plan_needs(dict(_read_packages(root)), versions)
        compat, at = find_compat(partial(list_names, [root]), "opt/conda")
        needs = msgspec.structs.replace(needs, compat=compat, compat_at=at)
        return Known(libc=_read_libc(root), needs=needs, env=select_sent(scripts))


def packages_of(path: Path, is_sif: bool) -> dict[str, str]:
    """The Python packages in the usual places of an image's root file system: name → version."""
    with path.open("rb") as file:
        offset = root_partition(read_sif(file)).offset if is_sif else 0
        return dict(_read_packages(Squashfs(file, offset)))


def list_names(trees: Iterable[Squashfs], path: str) -> list[str]:
    """What is in a folder of any of these trees."""
    return [name for tree in trees for name in _list(tree, path)]


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


def _read_scripts(root: Squashfs) -> list[str]:
    return [
        root.read(f".singularity.d/env/{name}", 1 << 20).decode("utf-8", "replace")
        for name in sorted(_list(root, ".singularity.d/env"))
    ]


def _find_versions(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in _VERSIONS:
        if number := re.search(r"\d+(\.\d+)+", variables.get(name, "")):
            yield name, number[0]


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
