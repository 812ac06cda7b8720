"""The MPI of an image, read from its files without starting it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from limpet.core.elf import COMPILER, is_general
from limpet.core.facts import Libc, parse_glibc
from limpet.core.mpi import (
    NAMES,
    Consumer,
    ImageMpi,
    Library,
    family_of,
    find_lacking,
    identify,
)
from limpet.core.seen import ImageSeen
from limpet.formats.elf import MAGIC, read_elf
from limpet.formats.elf_symbols import read_symbols
from limpet.formats.image_tree import ImageTree, Member, opened_tree
from limpet.formats.squashfs import Squashfs
from limpet.formats.squashfs.layout import DIR
from limpet.tools import answers, files

_MOST_BYTES = 1 << 30  # of any file; a damaged image may claim any size
# Extension modules are small; what is larger is a library of its own, and seldom MPI's user.
_LARGEST_BYTES = 64 << 20
_PREFIXES = ("opt/env/lib", "opt/conda/lib", "opt/venv/lib", "usr/local/lib")
_EXTENSION = re.compile(r"\.so(\.\d+)*$")
# MPI's own parts, which are linked to it and need no word.
_OWN_PART = re.compile(r"lib(mpi|mca|ompi|oshmem|opa|pmpi|romio)|mca_|libmpi")
_KEPT = Path("mpi", "v4")  # another name when other things are kept


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in an image, as it is kept in the cache."""

    mpi: ImageMpi
    libc: Libc | None = None


def with_mpi(image: ImageSeen, cache: Path | None) -> Kept:
    """The image's MPI with all symbols; read once for an image and kept in `cache`."""
    if not cache or image.kind == "sandbox":
        return _read(image)
    kept = cache / _KEPT / f"{files.key_of(Path(image.path))}.json"
    return answers.kept_answer(kept, Kept, lambda: _read(image))


def _read(image: ImageSeen) -> Kept:
    with opened_tree(image) as tree:
        return Kept(mpi=read_mpi(tree), libc=image.libc or _read_libc(tree))


def may_have_mpi(trees: Iterable[Squashfs]) -> bool:
    """Whether a name in these trees can be of an MPI, or of mpi4py: a look at names alone."""
    stack = [tree.root() for tree in trees]
    while stack:
        for name, node in stack.pop().children.items():
            if node.type == DIR:
                if name == b"mpi4py":
                    return True
                stack.append(node)
            elif name.startswith(b"libmpi"):
                return True
    return False


def read_mpi(tree: ImageTree) -> ImageMpi:
    """The libraries and their users."""
    there = dict(tree.files())
    named = sorted(path for path in there if NAMES.fullmatch(path.rsplit("/", 1)[-1]))
    # mpi4py alone needs MPI without being linked to a name that can be seen here.
    if not named and not any(path.endswith("/mpi4py/__init__.py") for path in there):
        return ImageMpi()
    libraries = [library for path in named if (library := _library(path, there[path]))]
    found = ImageMpi(libraries=_ordered(libraries), consumers=_read_consumers(there))
    return ImageMpi(
        libraries=found.libraries,
        consumers=found.consumers,
        troubles=tuple(_read_troubles(found, there)),
        compiler=_read_compiler(there),
        general=_read_general(there),
    )


def _library(path: str, member: Member) -> Library | None:
    data = member.start(_MOST_BYTES)
    elf = read_elf(io.BytesIO(data))
    return identify(f"/{path}", elf.soname, elf.needed, data) if elf else None


def _read_troubles(found: ImageMpi, there: dict[str, Member]) -> Iterator[str]:
    """What the image's own library lacks for its own programs."""
    if found.library and found.consumers:
        path = found.library.path.lstrip("/")
        with there[path].open() as file:
            exports = read_symbols(file).exports
        yield from find_lacking(found.consumers, found.library, exports)


def _ordered(libraries: list[Library]) -> tuple[Library, ...]:
    """As mpi4py looks: its environment's lib/, then the usual folders; of copies only one."""

    def place(library: Library) -> tuple[int, str, bool, str]:
        folder, _, name = library.path.strip("/").rpartition("/")
        rank = _PREFIXES.index(folder) if folder in _PREFIXES else len(_PREFIXES)
        return rank, folder, name != library.soname, library.path

    first: dict[tuple[str, str], Library] = {}
    for library in sorted(libraries, key=place):
        first.setdefault((library.path.rpartition("/")[0], library.soname), library)
    return tuple(first.values())


def _read_consumers(there: dict[str, Member]) -> tuple[Consumer, ...]:
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for path, member in sorted(there.items()):
        name = path.rsplit("/", 1)[-1]
        if (
            not _EXTENSION.search(name)
            or member.size_bytes > _LARGEST_BYTES
            or _OWN_PART.match(name)
        ):
            continue
        data = member.start(_MOST_BYTES)
        if data[:4] != MAGIC or b"\0libmpi" not in data:
            continue
        elf = read_elf(io.BytesIO(data))
        sonames = [name for name in elf.needed if family_of(name)] if elf else []
        imports = read_symbols(io.BytesIO(data)).imports if sonames else ()
        symbols = tuple(sorted(name for name in imports if name.startswith("MPI_")))
        for soname in sonames:
            # `MPI.mpich.cpython-313….so` and `MPI.openmpi.cpython-313….so` are one and the other.
            group = f"{_package_path(path)}/{name.split('.')[0]}"
            found.setdefault(group, {})[soname] = symbols
    return tuple(Consumer(name=name, needs=needs) for name, needs in found.items())


def _package_path(path: str) -> str:
    """`mpi4py` of `…/site-packages/mpi4py/MPI.so`; the whole folder elsewhere."""
    folder = path.rpartition("/")[0]
    return (
        re.sub(r".*/(?:site|dist)-packages/", "", folder) if "-packages/" in path else f"/{folder}"
    )


def _read_compiler(there: dict[str, Member]) -> dict[str, str]:
    given: dict[str, str] = {}
    for path, member in there.items():
        name = path.rsplit("/", 1)[-1]
        if name.startswith(COMPILER) and re.search(r"/lib(64|/\w+-linux-gnu)?/lib", f"/{path}"):
            with member.open() as file:
                elf = read_elf(file)
            given |= elf.given if elf else {}
    return {kind: given[kind] for kind in ("GLIBCXX", "CXXABI", "GCC") if kind in given}


def _read_general(there: dict[str, Member]) -> tuple[str, ...]:
    """As programs call them: `libz.so.1` of a file libz.so.1.3.1."""
    names = {path.rsplit("/", 1)[-1] for path in there if "/site-packages/" not in path}
    return tuple(sorted({re.sub(r"(\.so\.\d+).*", r"\1", n) for n in names if is_general(n)}))


def _read_libc(tree: ImageTree) -> Libc | None:
    for path, member in tree.files():
        name = path.rpartition("/")[2]
        is_libc = re.fullmatch(r"libc(-[\d.]+)?\.so(\.6)?", name) and "musl" not in path
        if is_libc and (version := parse_glibc(member.start(_MOST_BYTES))):
            return Libc(family="glibc", version=version)
        if name.startswith("ld-musl-"):
            return Libc(family="musl", version="0")
    return None
