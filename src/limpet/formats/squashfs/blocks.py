"""File contents on their way into an image: cut into blocks, compressed in threads, in order."""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Self

from limpet.formats.squashfs.codecs import Compress
from limpet.formats.squashfs.layout import DATA_RAW, NO_FRAGMENT

if TYPE_CHECKING:
    from concurrent.futures import Future

PENDING_BYTES = 16 << 20  # plain bytes that may wait for a thread or for their turn


@dataclass(slots=True, eq=False)
class Content:
    """Where a file's bytes ended up. Files with the same bytes may share one."""

    size_bytes: int = 0
    start: int = 0
    sizes: array[int] = field(default_factory=lambda: array("I"))
    fragment: int = NO_FRAGMENT
    offset: int = 0
    sparse_bytes: int = 0


class BlockWriter:
    """Writes blocks to `out` in the order they came, whatever thread compressed them.

    A file shorter than a block shares a fragment block with others; a longer one has its last,
    short block to itself, so that reading it touches nothing else. Equal files of up to one block
    are stored once.
    """

    def __init__(
        self, out: BinaryIO, origin: int, compress: Compress, block_size: int, threads: int | None
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor  # readers of images need not pay for it

        self._out = out
        self._position = out.tell() - origin
        self._compress = compress
        self._block_size = block_size
        self._zeros = bytes(block_size)
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)))
        self._queue: deque[tuple[Future[tuple[bytes, int]], int, Content | None, int]] = deque()
        self._pending_bytes = 0
        self._known: dict[bytes, Content] = {}
        self._tails = bytearray()
        self._tail_count = 0
        self._fragments: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def store(self, content: bytes | Callable[[], BinaryIO], digest: bytes = b"") -> Content:
        """`digest` is the sha256 of `content`, where that is bytes and it is known."""
        if isinstance(content, bytes):
            step = self._block_size
            if len(content) <= step:
                return self._store_small(content, digest)
            return self._store(content[at : at + step] for at in range(0, len(content), step))
        with content() as stream:
            return self._store(_read_blocks(stream, self._block_size))

    def finish(self) -> list[tuple[int, int]]:
        """Waits for all blocks; where the fragment blocks lie."""
        if self._tails:
            self._close_fragment()
        while self._queue:
            self._write_next()
        return self._fragments

    def _store(self, blocks: Iterator[bytes]) -> Content:
        first = next(blocks, b"")
        second = next(blocks, b"") if len(first) == self._block_size else b""
        if not second:
            return self._store_small(first)
        content = Content()
        for block in chain((first, second), blocks):
            self._add_block(content, block)
        return content

    def _store_small(self, data: bytes, digest: bytes = b"") -> Content:
        key = digest or sha256(data).digest()
        content = self._known.get(key)
        if content is None:
            content = self._known[key] = Content()
            if len(data) == self._block_size:
                self._add_block(content, data)
            elif data:
                self._add_tail(content, data)
        return content

    def _add_block(self, content: Content, block: bytes) -> None:
        content.size_bytes += len(block)
        content.sizes.append(0)
        if block == self._zeros[: len(block)]:
            content.sparse_bytes += len(block)
        else:
            self._submit(block, content, len(content.sizes) - 1)

    def _add_tail(self, content: Content, data: bytes) -> None:
        if len(self._tails) + len(data) > self._block_size:
            self._close_fragment()
        content.size_bytes = len(data)
        content.fragment = self._tail_count
        content.offset = len(self._tails)
        self._tails += data

    def _close_fragment(self) -> None:
        self._submit(bytes(self._tails), None, 0)
        self._tails.clear()
        self._tail_count += 1

    def _submit(self, block: bytes, content: Content | None, place: int) -> None:
        self._queue.append((self._pool.submit(self._pack, block), len(block), content, place))
        self._pending_bytes += len(block)
        while self._pending_bytes > PENDING_BYTES or (self._queue and self._queue[0][0].done()):
            self._write_next()

    def _pack(self, block: bytes) -> tuple[bytes, int]:
        packed = self._compress(block)
        if len(packed) < len(block):
            return packed, len(packed)
        return block, len(block) | DATA_RAW

    def _write_next(self) -> None:
        future, plain_bytes, content, place = self._queue.popleft()
        packed, size = future.result()
        self._pending_bytes -= plain_bytes
        self._out.write(packed)
        if content is None:
            self._fragments.append((self._position, size))
        else:
            if not content.start:
                content.start = self._position
            content.sizes[place] = size
        self._position += len(packed)


def _read_blocks(stream: BinaryIO, block_size: int) -> Iterator[bytes]:
    """Full blocks and a last short one, whatever pieces the stream gives."""
    while block := stream.read(block_size):
        while len(block) < block_size:
            more = stream.read(block_size - len(block))
            if not more:
                yield block
                return
            block += more
        yield block
