"""A folder on the disk on its way into an image: read once, by several threads, never copied.

Opening a file on a parallel file system takes a millisecond or more, whatever its size, so files
are read ahead in batches by threads: by many where opening takes long, and by two where it does not,
for Python's threads get into one another's way. Very large files are read in blocks when their turn
comes.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, BinaryIO, Self, cast
from zlib import crc32

import msgspec

from limpet.core.errors import BuildError
from limpet.core.prefix import Content, Seen, image_mode, settle_byte_code, source_of
from limpet.formats.squashfs import Entry, Kind

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

READERS = 2
READERS_WHERE_SLOW = 16
SLOW_S = 0.0002  # to open a file: ten times what it takes where the system knows it already
BATCH_FILES = 64
BATCH_BYTES = 1 << 20
STREAMED_BYTES = 8 << 20  # larger files are not held in memory
RUN_BLOCKS = 8
END_BYTES = 4096
BLOCK_BYTES = 128 << 10  # as the image's blocks, so that none is put together from pieces
_KINDS: Mapping[int, Kind] = {
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

Read = tuple[
    bytes | None, bytes, bytes
]  # what is written, the file's own sha256, the written one's


def changed(folder: Path, paths: Sequence[str]) -> BuildError:
    """The error for a folder that does not hold still."""
    shown = "\n".join(paths[:5]) + (f"\n… and {len(paths) - 5} more" if len(paths) > 5 else "")
    return BuildError(
        f"{folder} changed while it was packed.",
        why=shown,
        now="Let what writes to it end (jobs, an installation), and pack it again.",
    )


class TreeReader:
    """Gives the entries of a scanned folder, and knows afterwards what was in its files."""

    def __init__(self, folder: Path, place: str, seen: Sequence[Seen]) -> None:
        """`place` is where the folder stands in the image, without the slash at its start."""
        self.contents: dict[str, Content] = {}
        self.left_out: set[str] = set()  # byte code that is older than its source
        self._folder = folder
        self._start = f"{folder}/"
        self._place = place
        self._seen = seen
        self._modules = {one.path: self._module(one) for one in seen if one.path.endswith(".py")}
        self._first = dict(_first_names(seen))
        sizes = Counter(one.size_bytes for one in seen if one.is_file and _is_streamed(one))
        self._sizes = {size for size, count in sizes.items() if count > 1}
        self._ends: dict[tuple[int, int], set[bytes]] = {}  # hashes by size and end
        self._opened_s = 0.0  # how long it took at best, in the last batch

    def _module(self, one: Seen) -> Seen | None:
        """The module as Python sees it: behind a link."""
        if not one.is_link:
            return one
        try:
            status = (self._folder / one.path).stat()
        except OSError:
            return None
        return msgspec.structs.replace(one, mtime_ns=status.st_mtime_ns, size_bytes=status.st_size)

    def entries(self) -> Iterator[Entry]:
        """One for each thing in the folder; BuildError where something has changed."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(READERS_WHERE_SLOW) as pool:
            ahead: deque[tuple[list[Seen], Future[list[Read]]]] = deque()
            try:
                for batch in self._batches():
                    files = [one for one in batch if self._is_read_ahead(one)]
                    ahead.append((batch, pool.submit(self._read_all, files)))
                    readers = READERS_WHERE_SLOW if self._opened_s > SLOW_S else READERS
                    while len(ahead) > readers:
                        yield from self._entries_of(*ahead.popleft(), pool)
                while ahead:
                    yield from self._entries_of(*ahead.popleft(), pool)
            finally:
                pool.shutdown(cancel_futures=True)

    def _batches(self) -> Iterator[list[Seen]]:
        """Hard links' second names read nothing: they have the first one's content."""
        batch: list[Seen] = []
        size_bytes = 0
        for one in self._seen:
            batch.append(one)
            if one.size_bytes <= STREAMED_BYTES:
                size_bytes += one.size_bytes
            if len(batch) >= BATCH_FILES or size_bytes >= BATCH_BYTES:
                yield batch
                batch, size_bytes = [], 0
        if batch:
            yield batch

    def _read_all(self, files: Sequence[Seen]) -> list[Read]:
        reads: list[Read] = []
        opened_s = 1.0
        for one in files:
            start_s = perf_counter()
            descriptor = self._open(one)
            opened_s = min(opened_s, perf_counter() - start_s)
            reads.append(self._read(one, descriptor))
        if reads:
            self._opened_s = opened_s
        return reads

    def _read(self, one: Seen, descriptor: int) -> Read:
        try:
            data = os.read(descriptor, one.size_bytes + 1)
            while len(data) < one.size_bytes and (
                more := os.read(descriptor, one.size_bytes + 1 - len(data))
            ):
                data += more
        finally:
            os.close(descriptor)
        if len(data) != one.size_bytes:
            raise changed(self._folder, [one.path])
        digest = sha256(data).digest()
        if not one.path.endswith(".pyc"):
            return data, digest, digest
        settled = settle_byte_code(data, self._modules.get(source_of(one.path)))
        if settled is None:
            return None, digest, b""
        return settled, digest, digest if settled is data else sha256(settled).digest()

    def _open(self, one: Seen) -> int:
        try:
            descriptor = os.open(self._start + one.path, _OPEN)
        except FileNotFoundError as error:
            raise changed(self._folder, [one.path]) from error
        except OSError as error:
            raise BuildError(
                f"{self._folder}/{one.path} cannot be read.", why=f"{error.strerror}."
            ) from error
        status = os.fstat(descriptor)
        now = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if now != (one.inode, one.size_bytes, one.mtime_ns, one.ctime_ns):
            os.close(descriptor)
            raise changed(self._folder, [one.path])
        return descriptor

    def _entries_of(
        self, batch: Sequence[Seen], reads: Future[list[Read]], pool: ThreadPoolExecutor
    ) -> Iterator[Entry]:
        results = iter(reads.result())
        start = f"{self._place}/"
        for one in batch:
            path = start + one.path if one.path else self._place
            mode = image_mode(one.mode)
            first = self._first.get(one.path, "") if one.links > 1 else ""
            if not stat.S_ISREG(one.mode):
                yield Entry(path, _kind(one.mode), mode, target=one.target, rdev=one.rdev)
            elif first and first not in self.left_out:
                self.contents[one.path] = self.contents[first]
                yield Entry(path, "file", mode, hardlink=start + first)
            elif one.size_bytes > STREAMED_BYTES and _is_streamed(one):
                alike, digest = self._find_alike(one)
                content = partial(self._stream, one, alike, pool)
                yield Entry(path, "file", mode, content=content, sha256=digest)
            else:
                data, digest, written = (
                    self._read(one, self._open(one)) if first else next(results)
                )
                self.contents[one.path] = Content(sha256=digest, written=written)
                if data is None:
                    self.left_out.add(one.path)
                else:
                    yield Entry(path, "file", mode, content=data, sha256=written)

    def _is_read_ahead(self, one: Seen) -> bool:
        if not stat.S_ISREG(one.mode) or (one.links > 1 and one.path in self._first):
            return False
        return one.size_bytes <= STREAMED_BYTES or not _is_streamed(one)

    def _find_alike(self, one: Seen) -> tuple[set[bytes], bytes]:
        """The hashes of earlier large files that are as long and end alike; its own if among them.

        Such a file is hashed before its turn, so that what is there already is not stored again.
        """
        if one.size_bytes not in self._sizes:
            return set(), b""
        with open(self._open(one), "rb") as file:  # noqa: PTH123 - a descriptor
            file.seek(-END_BYTES, os.SEEK_END)
            alike = self._ends.setdefault((one.size_bytes, crc32(file.read())), set())
            file.seek(0)
            digest = file_digest(file, "sha256").digest() if alike else b""
        if digest not in alike:
            return alike, b""
        self.contents[one.path] = Content(sha256=digest, written=digest)
        return alike, digest

    def _stream(self, one: Seen, alike: set[bytes], pool: ThreadPoolExecutor) -> BinaryIO:
        def keep(digest: bytes, size_bytes: int) -> None:
            if size_bytes != one.size_bytes:
                raise changed(self._folder, [one.path])
            self.contents[one.path] = Content(sha256=digest, written=digest)
            alike.add(digest)

        return cast(BinaryIO, _HashedStream(self._open(one), keep, pool))


def _kind(mode: int) -> Kind:
    if stat.S_ISDIR(mode):
        return "dir"
    return "symlink" if stat.S_ISLNK(mode) else _KINDS[stat.S_IFMT(mode)]


def _is_streamed(one: Seen) -> bool:
    return one.size_bytes > STREAMED_BYTES and not one.path.endswith(".pyc")


def _first_names(seen: Sequence[Seen]) -> Iterator[tuple[str, str]]:
    """For each further name of a file: its first one."""
    first: dict[tuple[int, int], str] = {}
    for one in seen:
        if one.links > 1 and one.is_file:
            name = first.setdefault((one.device, one.inode), one.path)
            if name != one.path:
                yield one.path, name


class _HashedStream:
    """A large file that is hashed as it is read; tells its hash when it is closed."""

    def __init__(
        self, descriptor: int, keep: Callable[[bytes, int], None], pool: ThreadPoolExecutor
    ) -> None:
        self._descriptor = descriptor
        self._keep = keep
        self._pool = pool
        self._digest = sha256()
        self._size_bytes = 0
        self._blocks: deque[bytes] = deque()
        self._ahead = pool.submit(self._read_run)

    def _read_run(self) -> list[bytes]:
        blocks: list[bytes] = []
        while len(blocks) < RUN_BLOCKS and (block := os.read(self._descriptor, BLOCK_BYTES)):
            self._digest.update(block)
            self._size_bytes += len(block)
            blocks.append(block)
        return blocks

    def read(self, size: int) -> bytes:
        if not self._blocks:
            self._blocks.extend(self._ahead.result())
            if not self._blocks:
                return b""
            self._ahead = self._pool.submit(self._read_run)
        block = self._blocks.popleft()
        if len(block) > size:
            self._blocks.appendleft(block[size:])
        return block[:size]

    def sha256(self) -> bytes:
        """Of all that was read: the whole file's, once `read` has given nothing."""
        return self._digest.digest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        from concurrent.futures import wait

        if not self._ahead.cancel():
            wait([self._ahead])
        os.close(self._descriptor)
        if kind is None:
            self._keep(self._digest.digest(), self._size_bytes)
