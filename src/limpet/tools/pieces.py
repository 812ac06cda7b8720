"""The cache of pieces: `pieces/<start of the key>/<key>.sqfs`, each with a note beside it."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from limpet.core.import_order import Contents, Library
from limpet.core.piece import Piece
from limpet.formats.elf import read_elf
from limpet.formats.squashfs import Entry, Squashfs, write_squashfs
from limpet.formats.squashfs.seek import open_seekable
from limpet.tools import files

SHARED = re.compile(r"\.so(?:\.\d+)*\Z")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a piece without opening it.

    Its digest is looked at when its time is not `mtime_ns` any more. The note's own time is when
    the piece was last used.
    """

    name: str
    version: str
    files: int
    content_bytes: int
    size_bytes: int
    sha256: str = ""
    mtime_ns: int = 0
    contents: msgspec.Raw = msgspec.Raw(b"{}")  # a `Contents`, which few who read the note need


_decoder = msgspec.json.Decoder(Note)


def piece_path(cache: Path, key: str) -> Path:
    return cache / "pieces" / key[:2] / f"{key}.sqfs"


def find_piece(cache: Path, key: str) -> Piece | None:
    """The piece, if it is in the cache and whole; from now on it counts as used."""
    path = piece_path(cache, key)
    note = read_note(path)
    if note is None or not _is_whole(path, note):
        return None
    files.mark_used(path.with_suffix(".json"))
    return _piece(path, key, note)


def read_note(path: Path) -> Note | None:
    """What is known of the piece that lies there."""
    try:
        return _decoder.decode(path.with_suffix(".json").read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _is_whole(path: Path, note: Note) -> bool:
    try:
        status = path.stat()
        # Both are written beside and renamed; a size that differs is a disk that filled up or died.
        if status.st_size != note.size_bytes:
            return False
        if status.st_mtime_ns == note.mtime_ns or not note.sha256:
            return True
        if files.hash_file(path) != note.sha256:
            return False
        files.mark_used(path, note.mtime_ns)  # a copy of the cache; once is enough
    except FileNotFoundError:
        return False
    return True


def write_piece(
    cache: Path,
    key: str,
    entries: Iterable[Entry],
    *,
    name: str,
    version: str,
    compressor: str,
    threads: int,
    imports: Mapping[str, tuple[str, ...]] | None = None,
) -> Piece:
    """Write a piece and its note.

    `imports` tells by byte code's path what the module imports, once the entries have been read.
    """
    path = piece_path(cache, key)
    files.sweep_partials(files.make_folder(path.parent))
    count = 0
    shared: list[str] = []

    def counted() -> Iterable[Entry]:
        nonlocal count
        for entry in entries:
            count += 1
            if SHARED.search(entry.path):
                shared.append(entry.path)
            yield entry

    with files.written_beside(path) as out:
        stats = write_squashfs(out, counted(), compressor=compressor, threads=threads)
        out.flush()
        contents = Contents(modules=dict(imports or {}), libraries=_read_libraries(out, shared))
        out.seek(0)
        note = Note(
            name=name,
            version=version,
            files=count,
            content_bytes=stats.content_bytes,
            size_bytes=stats.size_bytes,
            sha256=hashlib.file_digest(out, "sha256").hexdigest(),  # type: ignore[arg-type]
            mtime_ns=os.fstat(out.fileno()).st_mtime_ns,
            contents=msgspec.Raw(msgspec.json.encode(contents)),
        )
    with files.written_beside(path.with_suffix(".json")) as out:
        out.write(msgspec.json.encode(note))
    return _piece(path, key, note)


def read_contents(path: Path) -> Contents:
    """What the piece that lies there brings to import; nothing where that is not known."""
    note = read_note(path)
    return msgspec.json.decode(note.contents, type=Contents) if note else Contents()


def _read_libraries(out: BinaryIO, shared: Sequence[str]) -> dict[str, Library]:
    """Which of these files of a piece that has just been written are libraries, by path."""
    image = Squashfs(out) if shared else None
    found = {}
    for path in dict.fromkeys(shared):
        node = image.find(path) if image else None
        if not (image and node):
            continue
        if node.is_symlink:
            link = posixpath.normpath(posixpath.join(posixpath.dirname(f"/{path}"), node.target))
            found[f"/{path}"] = Library(link=link)
        elif node.is_file:
            elf = read_elf(open_seekable(image, node))
            if elf:
                found[f"/{path}"] = Library(needed=elf.needed, search=elf.search)
    return found


def _piece(path: Path, key: str, note: Note) -> Piece:
    return Piece(
        path=path,
        key=key,
        name=note.name,
        version=note.version,
        files=note.files,
        content_bytes=note.content_bytes,
        size_bytes=note.size_bytes,
    )
