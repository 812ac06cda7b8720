"""Looks at whether parts of a file are at hand, and has the kernel read them."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

import msgspec

from limpet.core.file_systems import may_be_shared
from limpet.core.image import Ahead
from limpet.core.prefetch import AheadSeen
from limpet.tools import mounts, process

PAGE_BYTES = 4096
LOOKS = 5
CHUNK_BYTES = 1 << 20
END_BYTES = 128 << 10
READERS = 4
MEMORY = Path("/proc/meminfo")


def look_ahead(path: Path, ahead: Ahead, *, rank: int = 0) -> AheadSeen:
    """What it takes to read an image's profile part now; looks at pages only on shared systems.

    Of the ranks on a node the first looks for all.

    A few pages are read at random: unlike mincore and cachestat, that needs no right to write to
    the file, and it tells what it is asked, how long reading takes.
    """
    kind = mounts.kind_of(path)
    seen = AheadSeen(ahead=ahead, kind=kind, shared=may_be_shared(kind), rank=rank)
    if rank or not (seen.shared and ahead.ranges):
        return seen
    return msgspec.structs.replace(
        seen,
        waits_s=tuple(_wait_for_pages(path, ahead)),
        memory_bytes=free_memory_bytes(),
    )


def _wait_for_pages(path: Path, ahead: Ahead) -> list[float]:
    import random

    start, length = max(ahead.ranges, key=lambda one: one[1])
    waits_s = []
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(LOOKS):
            at = start + random.randrange(max(length - PAGE_BYTES, 1)) // PAGE_BYTES * PAGE_BYTES
            begun_s = time.perf_counter()
            os.pread(descriptor, PAGE_BYTES, at)
            waits_s.append(time.perf_counter() - begun_s)
    return waits_s


def free_memory_bytes(place: Path = MEMORY) -> int:
    """What programs may take before the kernel has to write something away; 0 if it says not."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", place.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def read_ahead(path: Path, ranges: tuple[tuple[int, int], ...]) -> None:
    """Read these parts of a file into the page cache, by a process that nobody has to wait for.

    posix_fadvise would do without the copying, but stops at 128 KiB on FUSE (Linux 6.18, observed)
    and is for each file system to follow or not.
    """
    process.detached(lambda: _read(path, ranges))


def _read(path: Path, ranges: tuple[tuple[int, int], ...]) -> None:
    import threading

    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # what lies between is not wanted
    chunks = iter(_chunks(ranges))

    def read() -> None:
        buffer = memoryview(bytearray(CHUNK_BYTES))
        for at, size in chunks:
            if os.preadv(descriptor, [buffer[:size]], at) <= 0:
                return

    readers = [threading.Thread(target=read) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()


def _chunks(ranges: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """What is read at once, `(start, length)` in whole pages.

    A client that reads on by itself, as Lustre's does, goes on behind the end of a range, unless it
    finds there what it has: so the ends come first.
    """
    pages = [
        (start // PAGE_BYTES * PAGE_BYTES, -(-(start + length) // PAGE_BYTES) * PAGE_BYTES)
        for start, length in ranges
    ]
    ends = [(max(start, end - END_BYTES), end) for start, end in pages]
    chunks = [(start, end - start) for start, end in ends]
    for (start, _), (end, _) in zip(pages, ends, strict=True):
        chunks += [(at, min(CHUNK_BYTES, end - at)) for at in range(start, end, CHUNK_BYTES)]
    return chunks
