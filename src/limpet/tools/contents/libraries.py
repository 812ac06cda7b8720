"""What the compiled modules of an image ask of its loader, read from ELF."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from limpet.core.errors import ImageError
from limpet.core.facts import parse_glibc
from limpet.core.image_contents import Library
from limpet.formats.elf import MAGIC, read_elf
from limpet.formats.image_tree import ImageTree

SHARED = re.compile(r"\.so(?:\.\d+)*$")
DEFAULT_FOLDERS = (
    *("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"),
    *("usr/lib/aarch64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib", "usr/local/lib"),
)
MOST_CACHE = 8 << 20
MOST_LIBC = 32 << 20


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
                    is_elf = file.read(4) == MAGIC
                    file.seek(0)
                    elf = read_elf(file) if is_elf else None
            except (OSError, ImageError) as error:
                troubles.append(f"/{path}: {error}")
                continue
            if elf:
                found.append(Library(path=f"/{path}", elf=elf))
            elif is_elf:
                troubles.append(f"/{path}: this ELF file is damaged or big-endian")
    return tuple(found), tuple(troubles)


def read_libc(tree: ImageTree) -> str:
    """The version of the image's glibc; `musl` or empty where it has another or none."""
    for folder in find_loader_folders(tree):
        if data := tree.read_start(f"{folder}/libc.so.6", MOST_LIBC):
            return parse_glibc(data)
    return "musl" if any(name.startswith("ld-musl-") for name in tree.names("lib")) else ""
