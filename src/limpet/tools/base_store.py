"""Where bases lie in the cache, and how a stream of entries becomes one."""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from limpet.core.errors import BaseError
from limpet.core.lock import LockedBase
from limpet.formats.byte_code import unchecked
from limpet.formats.sif import SifWriter, architecture_of
from limpet.formats.squashfs import Entry, write_squashfs
from limpet.tools import files, process

FORMAT = "4"  # part of every name: what is written differently must not be mistaken for the same
LEVEL = 3
# Debian's tool that compiles packages: whether its own byte code goes by time or by hash depends on
# who was first, its first import or its own package's installation. No program of users' needs it.
_BY_CHANCE = "usr/share/python3/debpython/__pycache__/"


def bases_folder(cache: Path) -> Path:
    """The folder of all bases, made if need be."""
    return files.make_folder(cache.absolute() / "bases" / f"v{FORMAT}")


def base_path(cache: Path, digest: str) -> Path:
    """Where the SIF of a digest lies or will lie."""
    bases_folder(cache)
    return place_of(cache, digest)


def place_of(cache: Path, digest: str) -> Path:
    """The same, with nothing made."""
    return cache.absolute() / "bases" / f"v{FORMAT}" / f"{digest.replace(':', '-')}.sif"


def write_base(path: Path, entries: Iterable[Entry], *, arch: str, digest: str) -> None:
    """One SIF with one root partition; the same entries and digest give the same bytes."""
    ident = hashlib.sha256(f"limpet base {FORMAT} {digest}".encode()).digest()[:16]
    with files.written_beside(path) as file:
        writer = SifWriter(file, arch=architecture_of(arch), ident=ident)
        with writer.partition("root") as partition:
            kept = (entry for entry in entries if not entry.path.startswith(_BY_CHANCE))
            write_squashfs(partition, map(_unchecked, kept), compressor="zstd", level=LEVEL)
        writer.finish()


def _unchecked(entry: Entry) -> Entry:
    """Byte code that is held against its source at each import is not, from now on (PEP 552).

    In an image neither can change alone, and the source of each module that a start imports would
    be read for nothing: Debian has its standard library compiled like this.
    """
    content = entry.content
    if not entry.path.endswith(".pyc") or not callable(content):
        return entry
    return msgspec.structs.replace(entry, content=lambda: _open_unchecked(content), sha256=b"")


def _open_unchecked(content: Callable[[], BinaryIO]) -> BinaryIO:
    with content() as stream:
        data = stream.read()
    return BytesIO(unchecked(data))


def scratch_folder(cache: Path) -> AbstractContextManager[Path]:
    """A passing folder for what makes bases, in the cache."""
    return files.passing_folder(bases_folder(cache) / "scratch", remove=_remove_tree)


def _remove_tree(folder: Path) -> None:
    """Remove a folder, also what a killed container left there as one of the user's other ids."""
    files.remove_tree(folder)
    if folder.exists() and process.find_program("unshare"):
        namespace = ("unshare", "--map-root-user", "--map-auto")
        process.run([*namespace, "rm", "-rf", "--", str(folder)])


# What was resolved and hashed before -------------------------------------------------------------


def recall_base(cache: Path, reference: str, arch: str, *, oldest_s: float) -> LockedBase | None:
    """What a reference meant when it was last resolved, unless that is too long ago."""
    path = _memory_path(cache, f"{arch} {reference}")
    try:
        if time.time() - path.stat().st_mtime > oldest_s:
            return None
        return msgspec.json.decode(path.read_bytes(), type=LockedBase)
    except (OSError, msgspec.DecodeError):
        return None


def remember_base(cache: Path, base: LockedBase) -> None:
    """Keep what a reference means, for `recall_base`."""
    _remember(_memory_path(cache, f"{base.arch} {base.reference}"), msgspec.json.encode(base))


def digest_file(cache: Path, path: Path) -> str:
    """`sha256:…` of a file's content, remembered by device, inode, size and time."""
    status = path.stat()
    key = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
    memory = _memory_path(cache, key)
    try:
        return memory.read_text()
    except OSError:
        digest = f"sha256:{files.hash_file(path)}"
        _remember(memory, digest.encode())
        return digest


def _memory_path(cache: Path, key: str) -> Path:
    folder = files.make_folder(bases_folder(cache) / "known")
    return folder / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _remember(path: Path, data: bytes) -> None:
    with files.written_beside(path) as file:
        file.write(data)


# Sandbox folders -------------------------------------------------------------


def walk_sandbox(folder: Path) -> Iterator[Entry]:
    """A root file system in a folder, sorted, owned by root as in every image of a plain user's."""
    first_names: dict[tuple[int, int], str] = {}
    for path in _sorted_tree(folder):
        name = "" if path == folder else str(path.relative_to(folder))
        status = path.lstat()
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            continue  # devices and sockets: see layers.read_entries
        inode = (status.st_dev, status.st_ino)
        linked = kind == "file" and status.st_nlink > 1
        if linked and inode in first_names:
            yield Entry(name, "file", hardlink=first_names[inode])
            continue
        if linked:
            first_names[inode] = name
        yield Entry(
            name,
            kind,  # type: ignore[arg-type]
            mode=stat.S_IMODE(status.st_mode),
            mtime=int(status.st_mtime),
            target=str(path.readlink()) if kind == "symlink" else "",
            content=_opener(path) if kind == "file" else None,
        )


_KINDS = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}


def _sorted_tree(folder: Path) -> Iterator[Path]:
    yield folder
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder) from error
    for child in children:
        if child.is_dir() and not child.is_symlink():
            yield from _sorted_tree(child)
        else:
            yield child


class _opener:  # noqa: N801 - a function with a path in it
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise _unreadable(self.path) from error


def _unreadable(path: Path) -> BaseError:
    return BaseError(
        f"The sandbox cannot be read: {path}.",
        why="It belongs to another user, or its mode forbids it.",
        now="chmod u+rX it, or make the sandbox anew as your own user.",
    )


def digest_sandbox(folder: Path) -> str:
    """`sha256:…` of names, modes and content of a sandbox, without times."""
    total = hashlib.sha256()
    for entry in walk_sandbox(folder):
        content = ""
        if callable(entry.content):
            with entry.content() as file:
                content = hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
        parts = (entry.path, entry.kind, f"{entry.mode:o}", entry.target, entry.hardlink, content)
        total.update("\0".join(parts).encode("utf-8", "surrogateescape") + b"\n")
    return f"sha256:{total.hexdigest()}"
