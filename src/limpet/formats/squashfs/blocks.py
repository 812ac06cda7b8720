"""File contents on their way into an image: cut into blocks, compressed in threads, in order."""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self, runtime_checkable
from zlib import crc32

from limpet.core.errors import ImageError
from limpet.formats.squashfs.codecs import Codec
from limpet.formats.squashfs.layout import DATA_RAW, NO_FRAGMENT

if TYPE_CHECKING:
    from concurrent.futures import Future

PENDING_BYTES = 16 << 20  # plain bytes that may wait for a thread or for their turn
TASK_BYTES = 512 << 10  # plain bytes that a thread is given at once: waking one has its price

_NO_BLOCKS: array[int] = array("I")  # never added to


@runtime_checkable
class Hashed(Protocol):
    """A stream that knows the sha256 of what was read of it."""

    def sha256(self) -> bytes: ...


class Content:
    """Where a file's bytes ended up. Files with the same bytes may share one.

    `sizes` are the blocks' sizes as stored, with the flag for raw ones (0: nothing but zeros), and
    `checks` the CRC-32 of each as it was stored.
    """

    __slots__ = ("checks", "fragment", "offset", "size_bytes", "sizes", "sparse_bytes", "start")

    def __init__(self, size_bytes: int = 0, fragment: int = NO_FRAGMENT, offset: int = 0) -> None:
        self.size_bytes = size_bytes
        self.start = 0
        self.sizes = self.checks = _NO_BLOCKS
        self.fragment = fragment
        self.offset = offset
        self.sparse_bytes = 0

    @classmethod
    def of_blocks(cls) -> Self:
        """One with blocks of its own, which are added later."""
        content = cls()
        content.sizes, content.checks = array("I"), array("I")
        return content


Plain = bytes | list[bytes]  # a block, or the small files that make one
Packed = tuple[bytes, int, int]  # as it is stored, its size with the flag, its CRC-32


class BlockWriter:
    """Writes blocks to `out` in the order they came, whatever thread compressed them.

    A file shorter than a block shares a fragment block with others; a longer one has its last,
    short block to itself, so that reading it touches nothing else. Equal files of up to one block
    are stored once. `known` has what is stored by its sha256, for contents that it is known of, and
    `sizes` and `checks` are of all blocks, in the order in which they lie in `out`.

    With `decodes`, a block that files share is decoded again by the thread that compressed it,
    while it has all at hand: every file must be at its place in it.
    """

    def __init__(
        self,
        out: BinaryIO,
        codec: Codec,
        *,
        origin: int,
        level: int,
        block_size: int,
        threads: int | None,
        decodes: bool = False,
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor  # readers of images need not pay for it

        self.known: dict[bytes, Content] = {}
        self.sizes, self.checks = array("I"), array("I")
        self._out = out
        self._position = out.tell() - origin
        self._compress = codec.compressor(level)
        self._decompress = codec.decompress
        self._decodes = decodes
        self._block_size = block_size
        self._zeros = bytes(block_size)
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)))
        self._queue: deque[_Task] = deque()
        self._pending_bytes = 0
        self._task = _Task()
        self._tails: list[bytes] = []
        self._offsets: list[int] = []
        self._tail_bytes = 0
        self._tail_count = 0
        self._fragments: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def store(self, content: bytes | Callable[[], BinaryIO], digest: bytes = b"") -> Content:
        """`digest` is the sha256 of `content`, where it is known."""
        if digest in self.known:
            return self.known[digest]
        if isinstance(content, bytes):
            step = self._block_size
            if len(content) <= step:
                return self._store_small(content, digest)
            stored = self._store(content[at : at + step] for at in range(0, len(content), step))
        else:
            with content() as stream:
                stored = self._store(_read_blocks(stream, self._block_size))
                if isinstance(stream, Hashed):
                    digest = stream.sha256()
        if digest:
            self.known.setdefault(digest, stored)
        return stored

    def finish(self) -> list[tuple[int, int]]:
        """Waits for all blocks; where the fragment blocks lie, with their sizes and flags."""
        if self._tails:
            self._close_fragment()
        self._start_task()
        while self._queue:
            self._write_next()
        return self._fragments

    def _store(self, blocks: Iterator[bytes]) -> Content:
        first = next(blocks, b"")
        second = next(blocks, b"") if len(first) == self._block_size else b""
        if not second:
            return self._store_small(first)
        content = Content.of_blocks()
        for block in chain((first, second), blocks):
            self._add_block(content, block)
        return content

    def _store_small(self, data: bytes, digest: bytes = b"") -> Content:
        key = digest or sha256(data).digest()
        content = self.known.get(key)
        if content is None:
            if len(data) == self._block_size:
                content = Content.of_blocks()
                self._add_block(content, data)
            else:
                content = self._add_tail(data) if data else Content()
            self.known[key] = content
        return content

    def _add_block(self, content: Content, block: bytes) -> None:
        content.size_bytes += len(block)
        content.sizes.append(0)
        content.checks.append(0)
        if block == self._zeros[: len(block)]:
            content.sparse_bytes += len(block)
        else:
            self._submit(block, len(block), content, len(content.sizes) - 1)

    def _add_tail(self, data: bytes) -> Content:
        size_bytes = len(data)
        if self._tail_bytes + size_bytes > self._block_size:
            self._close_fragment()
        content = Content(size_bytes, self._tail_count, self._tail_bytes)
        self._tails.append(data)
        self._offsets.append(content.offset)
        self._tail_bytes += size_bytes
        return content

    def _close_fragment(self) -> None:
        self._submit(self._tails, self._tail_bytes, None, self._tail_count, self._offsets)
        self._tails, self._offsets, self._tail_bytes = [], [], 0
        self._tail_count += 1

    def _submit(
        self,
        block: Plain,
        size_bytes: int,
        content: Content | None,
        place: int,
        offsets: Sequence[int] = (),
    ) -> None:
        task = self._task
        task.blocks.append(block)
        task.offsets.append(offsets)
        task.owners.append((content, place))
        task.size_bytes += size_bytes
        if task.size_bytes >= TASK_BYTES:
            self._start_task()
            while self._pending_bytes > PENDING_BYTES or (self._queue and self._queue[0].is_done):
                self._write_next()

    def _start_task(self) -> None:
        task, self._task = self._task, _Task()
        if task.blocks:
            task.future = self._pool.submit(self._work, task)
            self._queue.append(task)
            self._pending_bytes += task.size_bytes

    def _work(self, task: _Task) -> list[Packed]:
        packed = self._pack(task.blocks)
        if self._decodes:
            for block, offsets, (stored, size, _) in zip(
                task.blocks, task.offsets, packed, strict=True
            ):
                if isinstance(block, list):
                    self._decode(block, offsets, stored, size)
        return packed

    def _decode(
        self, tails: Sequence[bytes], offsets: Sequence[int], stored: bytes, size: int
    ) -> None:
        plain = stored if size & DATA_RAW else self._decompress(stored, self._block_size)
        if not all(map(plain.startswith, tails, offsets)):
            raise ImageError(
                "What was compressed cannot be decoded to what it was.",
                why="This machine's memory, or its zstd library, does not do what it should.",
                now="Try once more; if it happens again, take another machine.",
            )

    def _pack(self, blocks: Sequence[Plain]) -> list[Packed]:
        packed = []
        for block in blocks:
            plain = block if isinstance(block, bytes) else b"".join(block)
            stored, flag = self._compress(plain), 0
            if len(stored) >= len(plain):
                stored, flag = plain, DATA_RAW
            packed.append((stored, len(stored) | flag, crc32(stored)))
        return packed

    def _write_next(self) -> None:
        task = self._queue.popleft()
        assert task.future is not None
        packed = task.future.result()
        self._pending_bytes -= task.size_bytes
        for (content, place), (_, size, check) in zip(task.owners, packed, strict=True):
            self.sizes.append(size)
            self.checks.append(check)
            if content is None:
                assert place == len(self._fragments)
                self._fragments.append((self._position, size))
            else:
                content.start = content.start or self._position
                content.sizes[place], content.checks[place] = size, check
            self._position += size & ~DATA_RAW
        self._out.write(b"".join([stored for stored, _, _ in packed]))


class _Task:
    """Blocks that one thread compresses, each with the file that it is a block of."""

    __slots__ = ("blocks", "future", "offsets", "owners", "size_bytes")

    def __init__(self) -> None:
        self.blocks: list[Plain] = []
        self.offsets: list[Sequence[int]] = []  # of the small files in a block
        self.owners: list[tuple[Content | None, int]] = []  # a file's, or a shared block's number
        self.size_bytes = 0
        self.future: Future[list[Packed]] | None = None

    @property
    def is_done(self) -> bool:
        return self.future is not None and self.future.done()


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
