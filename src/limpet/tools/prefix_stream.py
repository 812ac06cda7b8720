"""A folder on the disk on its way into an image: read once, ahead of its turn, never copied.

Opening a file on a parallel file system takes a millisecond or more, whatever its size, so small
files are read ahead in batches; large ones are read in blocks when their turn comes.

A file takes five calls of the system, at each of which Python's threads may change places: beside
threads that compress, that costs more than the reading. So a copy of this process reads, settles
and hashes the small files, and what it has read lies in memory that both share. Where opening a
file takes long, the copy reads with many threads.
"""

from __future__ import annotations

import marshal
import mmap
import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from struct import Struct
from time import perf_counter
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast
from zlib import crc32

import msgspec

from limpet.core.errors import BuildError
from limpet.core.prefix import Content, Seen, image_mode, settle_byte_code, source_of
from limpet.formats.squashfs import Entry, Kind
from limpet.tools import process

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

BATCH_FILES = 64
BATCH_BYTES = STREAMED_BYTES = 1 << 20  # larger files are not held in memory
SLOTS = 16  # batches that lie ready or are being read
SLOT_BYTES = BATCH_BYTES + STREAMED_BYTES + 1  # a batch with one more file, which may have grown
THREADS = 16
SLOW_S = 0.0002  # to open a file: ten times what it takes where the system knows it already
RUN_BLOCKS = 8
END_BYTES = 4096
BLOCK_BYTES = 128 << 10  # as the image's blocks, so that none is put together from pieces
_LENGTH = Struct("<I")
_KINDS: Mapping[int, Kind] = {
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

# What is written of a file (None: nothing), the file's own sha256, and that of what is written.
Read = tuple[bytes | None, bytes, bytes]
Row = tuple[int, bytes, bytes]  # the same with the size of what lies in the memory, or -1
Batch = tuple[int, list[Row], float]  # where it lies, its files, and how fast one was opened


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

        ahead = _ReadAhead(
            lambda: (list(filter(self._is_read_ahead, batch)) for batch in self._batches()),
            self._open,
            self._settle,
        )
        with ahead.reading() as receive, ThreadPoolExecutor(1) as pool:
            for batch in self._batches():
                yield from self._entries_of(batch, receive(), pool)

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

    def _settle(self, one: Seen, descriptor: int, room: memoryview) -> Row:
        """Read a file to where there is room for it, as it is written into the image."""
        try:
            size = os.preadv(descriptor, [room], 0)
            while 0 < size < one.size_bytes and (
                more := os.preadv(descriptor, [room[size:]], size)
            ):
                size += more
        except OSError as error:
            raise self._unreadable(one, error) from error
        finally:
            os.close(descriptor)
        if size != one.size_bytes:
            raise changed(self._folder, [one.path])
        data = room[:size]
        digest = sha256(data).digest()
        if not one.path.endswith(".pyc"):
            return size, digest, digest
        plain = bytes(data)
        settled = settle_byte_code(plain, self._modules.get(source_of(one.path)))
        if settled is None:
            return -1, digest, b""
        if settled is plain:
            return size, digest, digest
        data[:] = settled
        return size, digest, sha256(settled).digest()

    def _read(self, one: Seen) -> Read:
        """A file that was not read ahead."""
        room = bytearray(one.size_bytes + 1)
        size, digest, written = self._settle(one, self._open(one), memoryview(room))
        return None if size < 0 else bytes(room[:size]), digest, written

    def _open(self, one: Seen) -> int:
        try:
            descriptor = os.open(self._start + one.path, _OPEN)
        except FileNotFoundError as error:
            raise changed(self._folder, [one.path]) from error
        except OSError as error:
            raise self._unreadable(one, error) from error
        status = os.fstat(descriptor)
        now = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if now != (one.inode, one.size_bytes, one.mtime_ns, one.ctime_ns):
            os.close(descriptor)
            raise changed(self._folder, [one.path])
        return descriptor

    def _unreadable(self, one: Seen, error: OSError) -> BuildError:
        path = f"{self._folder}/{one.path}"
        return BuildError(f"{path} cannot be read.", why=f"{error.strerror}.")

    def _entries_of(
        self, batch: Sequence[Seen], reads: Sequence[Read], pool: ThreadPoolExecutor
    ) -> Iterator[Entry]:
        results = iter(reads)
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
            elif one.size_bytes > STREAMED_BYTES and not one.path.endswith(".pyc"):
                alike, digest = self._find_alike(one)
                content = partial(self._stream, one, alike, pool)
                yield Entry(path, "file", mode, content=content, sha256=digest)
            else:
                is_ahead = self._is_read_ahead(one)
                data, digest, written = next(results) if is_ahead else self._read(one)
                self.contents[one.path] = Content(sha256=digest, written=written)
                if data is None:
                    self.left_out.add(one.path)
                else:
                    yield Entry(path, "file", mode, content=data, sha256=written)

    def _is_read_ahead(self, one: Seen) -> bool:
        is_second = one.links > 1 and one.path in self._first
        return stat.S_ISREG(one.mode) and not is_second and one.size_bytes <= STREAMED_BYTES

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


class _ReadAhead:
    """Batches of files in their order, read by a copy of this process.

    `open_file` and `settle` are called there.
    """

    def __init__(
        self,
        batches: Callable[[], Iterable[Sequence[Seen]]],
        open_file: Callable[[Seen], int],
        settle: Callable[[Seen, int, memoryview], Row],
    ) -> None:
        self._batches = batches
        self._open = open_file
        self._settle = settle
        self._memory = mmap.mmap(-1, SLOTS * SLOT_BYTES)

    @contextmanager
    def reading(self) -> Iterator[Callable[[], list[Read]]]:
        """Start to read; each call of what is given waits for the next batch."""
        with self._memory, process.forked(self._work) as (said, told):
            os.write(told, bytes(range(SLOTS)))
            yield partial(self._receive, said, told)

    def _receive(self, said: int, told: int) -> list[Read]:
        (length,) = _LENGTH.unpack(_read_exactly(said, _LENGTH.size))
        slot, rows = marshal.loads(_read_exactly(said, length))
        if slot < 0:
            what, why, now = rows
            raise BuildError(what, why=why, now=now)
        memory, at = self._memory, slot * SLOT_BYTES
        reads: list[Read] = []
        for size, digest, written in rows:
            if size < 0:
                reads.append((None, digest, written))
            else:
                reads.append((memory[at : at + size], digest, written))
                at += size
        with suppress(BrokenPipeError):  # it is done already
            os.write(told, bytes([slot]))
        return reads

    # ---- in the copy -----------------------------------------------------------------------------

    def _work(self, says: int, hears: int) -> None:
        try:
            for slot, rows, _ in self._read_all(hears):
                _say(says, (slot, rows))
        except BuildError as error:
            _say(says, (-1, (error.what, error.why, error.now)))

    def _read_all(self, hears: int) -> Iterator[Batch]:
        """All batches in their order, one by one or, where it takes long, several at once."""
        from concurrent.futures import ThreadPoolExecutor

        is_slow = False
        ahead: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(THREADS) as pool, memoryview(self._memory) as memory:
            for files in self._batches():
                while ahead and (not is_slow or len(ahead) == SLOTS - 1):
                    yield (batch := ahead.popleft().result())
                    is_slow = batch[2] > SLOW_S
                slot = os.read(hears, 1)
                if not slot:
                    return  # nobody waits for it any more
                if is_slow:
                    ahead.append(pool.submit(self._read_batch, files, slot[0], memory))
                else:
                    yield (batch := self._read_batch(files, slot[0], memory))
                    is_slow = batch[2] > SLOW_S
            while ahead:
                yield ahead.popleft().result()

    def _read_batch(self, files: Sequence[Seen], slot: int, memory: memoryview) -> Batch:
        opened_s = 1.0 if files else 0.0
        rows: list[Row] = []
        at = slot * SLOT_BYTES
        for one in files:
            start_s = perf_counter()
            descriptor = self._open(one)
            opened_s = min(opened_s, perf_counter() - start_s)
            row = self._settle(one, descriptor, memory[at : at + one.size_bytes + 1])
            rows.append(row)
            at += max(row[0], 0)
        return slot, rows, opened_s


def _say(says: int, what: tuple[int, Any]) -> None:
    said = marshal.dumps(what)
    data = memoryview(_LENGTH.pack(len(said)) + said)
    while data:
        data = data[os.write(says, data) :]


def _read_exactly(said: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = os.read(said, length - len(data))
        if not more:
            raise BuildError(
                "The process that reads the files ahead has ended.",
                why="Something on this machine ended it, for instance for want of memory.",
                now="Try once more, where there is more memory.",
            )
        data += more
    return data


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
