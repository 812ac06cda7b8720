"""The blocks that a run was seen to read: compressed once more, harder, and where they lie.

Of a library a start reads a part. Its blocks stay one behind the other, as squashfs has them, but
only those that were read are worth harder compression, and worth being read ahead.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate

from limpet.formats.squashfs.codecs import Codec
from limpet.formats.squashfs.layout import DATA_RAW
from limpet.formats.squashfs.model import Node
from limpet.formats.squashfs.write import Image

KEY_BYTES = 16
# What lies between two ranges costs less to read along than another request.
GAP_BYTES = 32 << 10

Packed = tuple[bytes, int]  # a block as it is stored, and its size with the flag for raw ones
Ranges = tuple[tuple[int, int], ...]  # where each starts, and how long it is


@dataclass(slots=True, kw_only=True)
class Kept:
    """Blocks by what they were made of: `known` from an earlier image, `used` in this one."""

    known: Mapping[bytes, Packed] = field(default_factory=dict)
    used: dict[bytes, Packed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hot:
    """How the files of an order are stored that a run was seen to open.

    `read` has, by path, which blocks of a file were read; files that it does not name were read
    whole. What was read is compressed at `level`, unless `kept` has it already.
    """

    read: Mapping[str, Collection[int]]
    level: int
    kept: Kept


class Packer:
    """Compresses blocks, in any thread; with `kept` only those that are not known from before."""

    def __init__(self, codec: Codec, level: int, kept: Kept | None = None) -> None:
        self._compress = codec.compressor(level)
        self._codec = codec
        self._way = f"{codec.name} {level}"
        self._kept = kept

    def pack(self, plain: bytes) -> Packed:
        """A plain block as it is stored."""
        return self._kept_or("plain", plain, lambda: self._packed(plain))

    def pack_again(self, stored: bytes, size: int, limit: int) -> Packed:
        """A stored block, `limit` bytes at most when plain; as it is where that is no longer."""

        def packed() -> Packed:
            raw = size & DATA_RAW
            found = self._packed(stored if raw else self._codec.decompress(stored, limit))
            return found if len(found[0]) < len(stored) else (stored, size)

        return self._kept_or("raw" if size & DATA_RAW else "stored", stored, packed)

    def _packed(self, plain: bytes) -> Packed:
        data = self._compress(plain)
        return (data, len(data)) if len(data) < len(plain) else (plain, len(plain) | DATA_RAW)

    def _kept_or(self, form: str, source: bytes, pack: Callable[[], Packed]) -> Packed:
        if self._kept is None:
            return pack()
        # The same bytes may be a block of one form and, elsewhere, what is in a block.
        key = blake2b(source, digest_size=KEY_BYTES, key=f"{self._way} {form}".encode()).digest()
        found = self._kept.known.get(key) or pack()
        self._kept.used[key] = found
        return found


def packer_for(hot: Hot | None, codec: Codec, level: int) -> Packer:
    """What compresses as `hot` says, else at `level`."""
    return Packer(codec, hot.level, hot.kept) if hot else Packer(codec, level)


class HotFile:
    """The blocks of one file, `start` to `end` in its image; `read` are those worth the effort."""

    __slots__ = ("blocks", "end", "image", "read", "start")

    def __init__(self, node: Node, read: Collection[int] | None, extent: tuple[Image, int, int]):
        self.image, self.start, self.end = extent
        self.blocks = node.blocks
        self.read = read

    def stored(self) -> Iterator[tuple[bytes, int, bool]]:
        """Each block as it lies in the image, its size with the flag, and whether it was read."""
        at = self.start
        for number, size in enumerate(sizes_of(self.blocks)):
            length = size & ~DATA_RAW
            yield self.image.read_at(at, length), size, self.was_read(number)
            at += length

    def was_read(self, number: int) -> bool:
        return self.read is None or number in self.read


class Blocks:
    """A hot file's blocks as they are stored now."""

    def __init__(self, packed: Sequence[Packed]) -> None:
        self.data = b"".join(data for data, _ in packed)
        self.sizes = struct.pack(f"<{len(packed)}I", *(size for _, size in packed))

    def ranges(self, file: HotFile, start: int) -> Iterator[tuple[int, int]]:
        """Those that were read, if the first block lies at `start`."""
        lengths = [size & ~DATA_RAW for size in sizes_of(self.sizes)]
        places = accumulate(lengths, initial=start)
        for number, (place, length) in enumerate(zip(places, lengths, strict=False)):
            if file.was_read(number):
                yield place, length


def sizes_of(blocks: bytes) -> tuple[int, ...]:
    """A file's list of block sizes, with the flag for raw ones."""
    return struct.unpack(f"<{len(blocks) // 4}I", blocks)


def pack_files(files: Sequence[HotFile], packer: Packer) -> dict[HotFile, Blocks]:
    """Their blocks, those that were read compressed again."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:

        def submit(file: HotFile) -> list[Packed]:
            limit = file.image.block_size
            jobs = [
                pool.submit(packer.pack_again, data, size, limit) if read and size else (data, size)
                for data, size, read in file.stored()
            ]
            return [job if isinstance(job, tuple) else job.result() for job in jobs]

        return {file: Blocks(submit(file)) for file in files}


def join_ranges(ranges: Iterable[tuple[int, int]], gap_bytes: int = GAP_BYTES) -> Ranges:
    """Sorted, with small gaps between them closed."""
    joined: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        if joined and start - sum(joined[-1]) < gap_bytes:
            joined[-1] = joined[-1][0], max(sum(joined[-1]), start + length) - joined[-1][0]
        else:
            joined.append((start, length))
    return tuple(joined)
