"""Tars as images and mmdebstrap give them, read once from front to back.

Inflating is half of the work of reading a layer, and zlib and zstd leave the interpreter free: a
thread does it, ahead of whoever reads.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from queue import Empty, Queue
from threading import Thread
from typing import BinaryIO, cast

from limpet.core.errors import FetchError
from limpet.formats.zstd import ZstdDecompressor, ZstdError

READ_BYTES = 1 << 18
CHUNK_BYTES = 1 << 20
CHUNKS_AHEAD = 8


class Tar:
    """The headers of a tar, and the content of its members in the order they lie in it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._stream = _Stream(chunks)

    def headers(self) -> Iterator[tarfile.TarInfo]:
        """Content that was not read by the next header is skipped."""
        with _damage_named():
            tar = tarfile.open(  # noqa: SIM115 - there is no file of its own to close
                fileobj=cast(BinaryIO, self._stream),
                mode="r:",
                encoding="utf-8",
                errors="surrogateescape",
            )
        while True:
            with _damage_named():
                info = tar.next()
            if info is None:
                return
            yield info
            tar.members.clear()  # type: ignore[attr-defined] # it keeps every header it has seen

    def open_content(
        self, offset: int, size_bytes: int, sparse: tuple[tuple[int, int], ...] | None = None
    ) -> BinaryIO:
        """A member by what its header said: `offset_data`, `size`, `sparse`."""
        runs = ((0, size_bytes),) if sparse is None else sparse
        return cast(BinaryIO, _Content(self._stream, offset, size_bytes, runs))


@contextmanager
def open_tar(layer: BinaryIO) -> Iterator[Tar]:
    """A tar in a file, plain or not; a pipe is plain, and has a process of its own behind it."""
    if not layer.seekable():
        yield Tar(_read_chunks(layer))
        return
    with read_ahead(inflated(_read_chunks(layer))) as chunks:
        yield Tar(chunks)


@contextmanager
def read_ahead(chunks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """The same chunks, made by a thread that is a few of them ahead."""
    ready: Queue[bytes | Exception] = Queue(CHUNKS_AHEAD)
    given_up = False

    def work() -> None:
        try:
            for chunk in chunks:
                ready.put(chunk)
                if given_up:
                    return
            ready.put(b"")
        except Exception as error:
            ready.put(error)

    def take() -> Iterator[bytes]:
        while chunk := ready.get():
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        given_up = True
        while thread.is_alive():
            try:
                ready.get(timeout=0.01)
            except Empty:
                continue


def inflated(packed: Iterator[bytes]) -> Iterator[bytes]:
    """The tar in a layer: gzip, zstd or plain, by its first bytes, whatever its media type."""
    first = next(packed, b"")
    if first.startswith(b"\x1f\x8b"):
        return _gathered(_inflate(chain((first,), packed)))
    if first.startswith(b"\x28\xb5\x2f\xfd"):
        return _gathered(_decompress(chain((first,), packed)))
    return chain((first,), packed)


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error, ZstdError) as error:
        raise FetchError("A layer of the base is damaged.", why=str(error)) from error


class _Stream:
    """Chunks as a file that goes forward only, or back to where its last chunk begins.

    tarfile goes back by one byte, to see whether a member's last one is there.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._start = 0  # of the chunk
        self._at = 0  # in the chunk

    def tell(self) -> int:
        return self._start + self._at

    def seek(self, position: int) -> int:
        while position > self._start + len(self._chunk):
            if not self._next():
                self._at = len(self._chunk)
                return self.tell()
        if position < self._start:
            raise OSError("A tar is read from front to back.")
        self._at = position - self._start
        return position

    def read(self, size: int) -> bytes:
        data = self._chunk[self._at : self._at + size]
        self._at += len(data)
        while len(data) < size and self._next():
            more = self._chunk[: size - len(data)]
            self._at = len(more)
            data += more
        return data

    def _next(self) -> bool:
        """The next chunk instead of this one; where there is none, this one stays."""
        chunk = next(self._chunks, b"")
        if not chunk:
            return False
        self._start += len(self._chunk)
        self._chunk, self._at = chunk, 0
        return True


class _Content(io.RawIOBase):
    """A member's bytes; `runs` are those that the tar has, what lies between them is zeros."""

    def __init__(
        self, stream: _Stream, offset: int, size_bytes: int, runs: tuple[tuple[int, int], ...]
    ) -> None:
        self._stream = stream
        self._size_bytes = size_bytes
        self._at = 0
        self._runs: list[tuple[int, int, int]] = []  # start, end, offset in the tar
        for start, length in runs:
            self._runs.append((start, start + length, offset))
            offset += length
        self._runs.reverse()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        end = self._size_bytes if size < 0 else min(self._at + size, self._size_bytes)
        data = b""
        while self._at < end:
            part = self._part(end)
            self._at += len(part)
            data = data + part if data else part
        return data

    def _part(self, end: int) -> bytes:
        while self._runs and self._runs[-1][1] <= self._at:
            self._runs.pop()
        start, stop, offset = self._runs[-1] if self._runs else (end, end, 0)
        if self._at < start:
            return bytes(min(start, end) - self._at)
        with _damage_named():
            self._stream.seek(offset + self._at - start)
            data = self._stream.read(min(stop, end) - self._at)
            if not data:
                raise EOFError("It is cut off.")
        return data


def _read_chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(READ_BYTES):
        yield chunk


def _inflate(packed: Iterator[bytes]) -> Iterator[bytes]:
    """gzip, also many members one behind the other, as pigz and eStargz write them."""
    data = next(packed, b"")
    while data:
        inflater = zlib.decompressobj(wbits=31)
        while not inflater.eof:
            if not data:
                raise EOFError("It is cut off.")
            yield inflater.decompress(data, CHUNK_BYTES)
            data = inflater.unconsumed_tail
            if not data and not inflater.eof:
                data = next(packed, b"")
        data = inflater.unused_data.lstrip(b"\0")
        while not data and (more := next(packed, b"")):
            data = more.lstrip(b"\0")  # zeros behind a member are padding


def _decompress(packed: Iterator[bytes]) -> Iterator[bytes]:
    """zstd, also many frames one behind the other."""
    data = next(packed, b"")
    while data:
        frame = ZstdDecompressor()
        while not frame.eof:
            if not data and frame.needs_input:
                raise EOFError("It is cut off.")
            yield frame.decompress(data, CHUNK_BYTES)
            data = next(packed, b"") if frame.needs_input and not frame.eof else b""
        data = frame.unused_data or next(packed, b"")


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces joined to chunks, so that the threads meet seldom."""
    chunk: list[bytes] = []
    size = 0
    for piece in pieces:
        chunk.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            yield b"".join(chunk)
            chunk, size = [], 0
    if size:
        yield b"".join(chunk)
