"""The MPI of an image, read from its files without starting it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from limpet.core.elf import COMPILER, is_general
from limpet.core.errors import LimpetError
from limpet.core.facts import Libc
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
from limpet.formats.sif import FileSystem, PartitionKind, read_sif
from limpet.formats.squashfs import Squashfs
from limpet.tools import files

# Extension modules are small; what is larger is a library of its own, and seldom MPI's user.
_LARGEST_BYTES = 64 << 20
_PREFIXES = ("opt/env/lib", "opt/conda/lib", "opt/venv/lib", "usr/local/lib")
_EXTENSION = re.compile(r"\.so(\.\d+)*$")
# MPI's own parts, which are linked to it and need no word.
_OWN_PART = re.compile(r"lib(mpi|mca|ompi|oshmem|opa|pmpi|romio)|mca_|libmpi")


class _Tree(Protocol):
    def files(self) -> Iterator[tuple[str, int]]:
        """Regular files: path relative to the root, size in bytes."""

    def read(self, path: str) -> bytes: ...


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in an image, as it is kept in the cache."""

    mpi: ImageMpi
    libc: Libc | None = None


def with_mpi(image: ImageSeen, cache: Path | None) -> Kept:
    """The image's MPI with all symbols; read once for an image and kept in `cache`."""
    path = Path(image.path)
    kept = cache / "mpi" / f"{_key_of(path)}.json" if cache and image.kind != "sandbox" else None
    if kept:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(kept.read_bytes(), type=Kept)
    with open_trees(image) as trees:
        found = Kept(mpi=read_mpi(trees), libc=image.libc or _read_libc(trees))
    if kept:
        with contextlib.suppress(OSError, LimpetError):
            files.make_folder(kept.parent)
            with files.written_beside(kept) as out:
                out.write(msgspec.json.encode(found))
    return found


def _key_of(path: Path) -> str:
    status = path.stat()
    text = f"3 {path.resolve()} {status.st_mtime_ns} {status.st_size} {status.st_ino}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


@contextlib.contextmanager
def open_trees(image: ImageSeen) -> Iterator[list[_Tree]]:
    """The image's file system, lowest layer first."""
    if image.kind == "sandbox":
        yield [_Folder(Path(image.path))]
        return
    with Path(image.path).open("rb") as file:
        offsets = [0]
        if image.kind == "sif":
            parts = [p for p in read_sif(file).descriptors if p.fs is FileSystem.SQUASHFS]
            parts.sort(key=lambda item: item.part is not PartitionKind.ROOT)
            offsets = [part.offset for part in parts]
        yield [SquashfsTree(Squashfs(file, offset)) for offset in offsets]


class SquashfsTree:
    """The files of a squashfs."""

    def __init__(self, squashfs: Squashfs) -> None:
        self._squashfs = squashfs

    def files(self) -> Iterator[tuple[str, int]]:
        return ((p, node.size_bytes) for p, node in self._squashfs.walk() if node.is_file)

    def read(self, path: str) -> bytes:
        return self._squashfs.read(path)


class _Folder:
    """The files of an unpacked image."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self) -> Iterator[tuple[str, int]]:
        for above, _, names in os.walk(self._root):
            for name in names:
                path = Path(above, name)
                if path.is_file() and not path.is_symlink():
                    yield str(path.relative_to(self._root)), path.stat().st_size

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()


def read_mpi(trees: Sequence[_Tree]) -> ImageMpi:
    """The libraries and their users; a file of a later tree stands for the earlier one's."""
    there: dict[str, tuple[_Tree, int]] = {}
    for tree in trees:
        there |= {path: (tree, size) for path, size in tree.files()}
    named = sorted(path for path in there if NAMES.fullmatch(path.rsplit("/", 1)[-1]))
    # mpi4py alone needs MPI without being linked to a name that can be seen here.
    if not named and not any(path.endswith("/mpi4py/__init__.py") for path in there):
        return ImageMpi()
    libraries = [library for path in named if (library := _library(path, there[path][0]))]
    found = ImageMpi(libraries=_ordered(libraries), consumers=_read_consumers(there))
    return ImageMpi(
        libraries=found.libraries,
        consumers=found.consumers,
        troubles=tuple(_read_troubles(found, there)),
        compiler=_read_compiler(there),
        general=_read_general(there),
    )


def _library(path: str, tree: _Tree) -> Library | None:
    data = tree.read(path)
    elf = read_elf(io.BytesIO(data))
    return identify(f"/{path}", elf.soname, elf.needed, data) if elf else None


def _read_troubles(found: ImageMpi, there: dict[str, tuple[_Tree, int]]) -> Iterator[str]:
    """What the image's own library lacks for its own programs."""
    if found.library and found.consumers:
        path = found.library.path.lstrip("/")
        elf = read_elf(io.BytesIO(there[path][0].read(path)), symbols=True)
        yield from find_lacking(found.consumers, found.library, elf.exports if elf else ())


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


def _read_consumers(there: dict[str, tuple[_Tree, int]]) -> tuple[Consumer, ...]:
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for path, (tree, size) in sorted(there.items()):
        name = path.rsplit("/", 1)[-1]
        if not _EXTENSION.search(name) or size > _LARGEST_BYTES or _OWN_PART.match(name):
            continue
        data = tree.read(path)
        if data[:4] != MAGIC or b"\0libmpi" not in data:
            continue
        elf = read_elf(io.BytesIO(data), symbols=True)
        for soname in filter(family_of, elf.needed if elf else ()):
            symbols = tuple(sorted(s for s in elf.imports if s.startswith("MPI_"))) if elf else ()
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


def _read_compiler(there: dict[str, tuple[_Tree, int]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for path, (tree, _) in there.items():
        name = path.rsplit("/", 1)[-1]
        if name.startswith(COMPILER) and re.search(r"/lib(64|/\w+-linux-gnu)?/lib", f"/{path}"):
            elf = read_elf(io.BytesIO(tree.read(path)))
            given |= elf.given if elf else {}
    return {kind: given[kind] for kind in ("GLIBCXX", "CXXABI", "GCC") if kind in given}


def _read_general(there: dict[str, tuple[_Tree, int]]) -> tuple[str, ...]:
    """As programs call them: `libz.so.1` of a file libz.so.1.3.1."""
    names = {path.rsplit("/", 1)[-1] for path in there if "/site-packages/" not in path}
    return tuple(sorted({re.sub(r"(\.so\.\d+).*", r"\1", n) for n in names if is_general(n)}))


def _read_libc(trees: Sequence[_Tree]) -> Libc | None:
    for tree in trees:
        for path, _ in tree.files():
            name = path.rsplit("/", 1)[-1]
            if re.fullmatch(r"libc(-[\d.]+)?\.so(\.6)?", name) and "musl" not in path:
                said = re.search(rb"release version (\d+\.\d+)", tree.read(path))
                if said:
                    return Libc(family="glibc", version=said[1].decode())
            if name.startswith("ld-musl-"):
                return Libc(family="musl", version="0")
    return None
