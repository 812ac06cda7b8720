"""What the compiled modules of an image ask of its loader, read from ELF."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from limpet.core.errors import ImageError
from limpet.core.gpu import numbers
from limpet.core.image_contents import Library
from limpet.tools.contents.tree import ImageTree

SHARED = re.compile(r"\.so(?:\.\d+)*$")
DEFAULT_FOLDERS = (
    *("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"),
    *("usr/lib/aarch64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib", "usr/local/lib"),
)
MOST_CACHE = 8 << 20
MOST_LIBC = 32 << 20
_TAGS = ("DT_NEEDED", "DT_SONAME", "DT_RPATH", "DT_RUNPATH")
# pyelftools also fails with other errors on files that are no good.
_BAD = (OSError, ImageError, ValueError, KeyError, IndexError, AssertionError, TypeError)


def find_shared(tree: ImageTree) -> dict[str, tuple[str, ...]]:
    """All shared libraries by name, with the paths that they have in the image."""
    found: dict[str, list[str]] = {}
    for path, member in tree.members.items():
        name = path.rpartition("/")[2]
        if member.kind in ("file", "symlink") and SHARED.search(name):
            found.setdefault(name, []).append(f"/{path}")
    return {name: tuple(paths) for name, paths in found.items()}


def find_loader_folders(tree: ImageTree) -> tuple[str, ...]:
    """Where the image's loader looks of itself: ld.so.conf, ld.so.cache, the system's folders."""
    folders = list(_configured(tree, "etc/ld.so.conf", depth=3))
    text = tree.read_start("etc/ld.so.cache", MOST_CACHE)
    paths = re.findall(rb"\0(/[^\0]{1,4000})(?=\0)", text)
    folders += {path.decode("utf-8", "replace").rpartition("/")[0] for path in paths}
    folders += [f"/{place}" for place in DEFAULT_FOLDERS]
    true = (tree.find(folder) for folder in folders)
    return tuple(dict.fromkeys(f"/{one[0]}" for one in true if one and one[1].kind == "dir"))


def _configured(tree: ImageTree, path: str, depth: int) -> Iterator[str]:
    for line in tree.read_text(path).splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "include" and depth:
            folder, _, pattern = words[1].rpartition("/")
            wanted = re.escape(pattern).replace(r"\*", ".*")
            for name in sorted(tree.names(folder)):
                if re.fullmatch(wanted, name):
                    yield from _configured(tree, f"{folder}/{name}", depth - 1)
        elif line.startswith("/"):
            yield line.strip()


def read_libraries(
    tree: ImageTree, folders: Sequence[str]
) -> tuple[tuple[Library, ...], tuple[str, ...]]:
    """The ELF files below these folders (site-packages), and what could not be read."""
    found: list[Library] = []
    troubles: list[str] = []
    seen: set[object] = set()
    for folder in folders:
        for path, member in tree.below(folder.strip("/")):
            name = path.rpartition("/")[2]
            if member.kind != "file" or not SHARED.search(name) or member.key in seen:
                continue
            seen.add(member.key)
            try:
                with member.open() as file:
                    if file.read(4) == b"\x7fELF":
                        found.append(read_library(file, f"/{path}"))
            except Exception as error:
                if not isinstance(error, _BAD) and "elftools" not in type(error).__module__:
                    raise
                troubles.append(f"/{path}: {error or type(error).__name__}")
    return tuple(found), tuple(troubles)


def read_library(file: BinaryIO, path: str) -> Library:
    """The dynamic section of one file."""
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection

    told: dict[str, list[str]] = {name: [] for name in _TAGS}
    asked: list[str] = []
    for section in ELFFile(file).iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                name = tag.entry.d_tag
                if name in _TAGS:
                    told[name].append(getattr(tag, name[3:].lower()))
        elif isinstance(section, GNUVerNeedSection):
            asked += [one.name for _, versions in section.iter_versions() for one in versions]
    glibc = [name[6:] for name in asked if re.fullmatch(r"GLIBC_[\d.]+", name)]
    folders = ":".join(told["DT_RUNPATH"] or told["DT_RPATH"])
    return Library(
        path=path,
        soname="".join(told["DT_SONAME"]),
        needed=tuple(told["DT_NEEDED"]),
        search=tuple(filter(None, folders.split(":"))),
        glibc=max(glibc, key=numbers, default=""),
    )


def read_libc(tree: ImageTree) -> str:
    """The version of the image's glibc; `musl` or empty where it has another or none."""
    for folder in find_loader_folders(tree):
        if data := tree.read_start(f"{folder}/libc.so.6", MOST_LIBC):
            said = re.search(rb"release version (\d+\.\d+)", data)
            return said[1].decode() if said else ""
    return "musl" if any(name.startswith("ld-musl-") for name in tree.names("lib")) else ""
