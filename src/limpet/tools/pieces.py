"""The cache of pieces: `pieces/<start of the key>/<key>.sqfs`, each with a note beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from limpet.core.piece import Piece
from limpet.formats.squashfs import Entry, write_squashfs
from limpet.tools import files


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a piece without opening it."""

    name: str
    version: str
    files: int
    content_bytes: int
    size_bytes: int


_decoder = msgspec.json.Decoder(Note)


def piece_path(cache: Path, key: str) -> Path:
    return cache / "pieces" / key[:2] / f"{key}.sqfs"


def find_piece(cache: Path, key: str) -> Piece | None:
    """The piece, if it is in the cache and whole."""
    path = piece_path(cache, key)
    try:
        note = _decoder.decode(path.with_suffix(".json").read_bytes())
        # Both are written beside and renamed; a size that differs is a disk that filled up or died.
        if path.stat().st_size != note.size_bytes:
            return None
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return _piece(path, key, note)


def write_piece(
    cache: Path,
    key: str,
    entries: Iterable[Entry],
    *,
    name: str,
    version: str,
    compressor: str,
    threads: int,
) -> Piece:
    """Write a piece and its note."""
    path = piece_path(cache, key)
    files.sweep_partials(files.make_folder(path.parent))
    count = 0

    def counted() -> Iterable[Entry]:
        nonlocal count
        for entry in entries:
            count += 1
            yield entry

    with files.written_beside(path) as out:
        stats = write_squashfs(out, counted(), compressor=compressor, threads=threads)
        out.flush()
        note = Note(
            name=name,
            version=version,
            files=count,
            content_bytes=stats.content_bytes,
            size_bytes=stats.size_bytes,
        )
    with files.written_beside(path.with_suffix(".json")) as out:
        out.write(msgspec.json.encode(note))
    return _piece(path, key, note)


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
