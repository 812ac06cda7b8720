"""What the programs, libraries and links of packed folders need of the system around them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence

from limpet.core.elf import Elf
from limpet.core.mounts import is_below
from limpet.core.numbers import numbers
from limpet.core.pack import Needs, Tree
from limpet.formats.elf import read_elf

HasPath = Callable[[str], bool]  # whether the base has something at this path


def read_needs(trees: Sequence[Tree], in_base: HasPath) -> Needs:
    """The newest glibc that anything asks for, the machines, and libraries that lie elsewhere."""
    glibc = of = ""
    machines: dict[str, str] = {}
    elsewhere: dict[str, str] = {}
    places = [tree.place for tree in trees]
    for path, elf in _elf_files(trees):
        machines.setdefault(elf.machine, path)
        if elf.glibc and numbers(elf.glibc) > numbers(glibc or "0"):
            glibc, of = elf.glibc, path
        for library in _outside(path, elf, places):
            if not in_base(library):
                elsewhere.setdefault(path, library)
    return Needs(glibc=glibc, of=of, machines=machines, elsewhere=elsewhere)


def _elf_files(trees: Sequence[Tree]) -> Iterator[tuple[str, Elf]]:
    for tree in trees:
        for one in tree.seen:
            name = one.path.rpartition("/")[2]
            # Programs and libraries by their look, for opening every file takes its time.
            likely = ".so" in name or (one.mode & 0o111 and not name.endswith((".py", ".sh")))
            if likely and one.is_file and one.size_bytes > 64:
                with open(tree.folder / one.path, "rb") as file:  # noqa: PTH123 - many files
                    elf = read_elf(file)
                if elf is not None:
                    yield f"{tree.place}/{one.path}", elf


def _outside(path: str, elf: Elf, places: Sequence[str]) -> Iterator[str]:
    """Libraries that this file's own search path finds on this machine, and not in the image."""
    origin = posixpath.dirname(path)
    folders = []
    for word in elf.search:
        word = word.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
        if word.startswith("/"):
            folders.append(posixpath.normpath(word))
    for library in elf.needed:
        for folder in folders:
            place = f"{folder}/{library}"
            if os.path.exists(place):  # noqa: PTH110 - many files
                if not any(is_below(place, one) for one in places):
                    yield place
                break


def read_links(trees: Sequence[Tree], in_base: HasPath) -> tuple[dict[str, str], dict[str, str]]:
    """The links that lead nowhere, and those that lead to what the image does not have."""
    dangling: dict[str, str] = {}
    outside: dict[str, str] = {}
    places = [tree.place for tree in trees] + [str(tree.folder) for tree in trees]
    for tree in trees:
        for one in tree.seen:
            if not one.is_link:
                continue
            path = f"{tree.place}/{one.path}"
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), one.target))
            is_there = os.path.exists(tree.folder / one.path)  # noqa: PTH110 - many links
            if any(is_below(target, place) for place in places):
                if not is_there:
                    dangling[path] = one.target
            elif not in_base(target):
                (outside if is_there else dangling)[path] = one.target
    return dangling, outside
