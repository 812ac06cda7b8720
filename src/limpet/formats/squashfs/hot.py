"""The blocks that a run was seen to read: compressed once more, harder, and where they lie.

Of a library a start reads a part. Its blocks stay one behind the other, as squashfs has them, but
only those that were read are worth harder compression, and worth being read ahead.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from limpet.core.ranges import Ranges
from limpet.formats.squashfs.codecs import Codec, Compress, zstd_version
from limpet.formats.squashfs.contents import sizes_of
from limpet.formats.squashfs.layout import DATA_RAW
from limpet.formats.squashfs.model import Node
from limpet.formats.squashfs.write import Image

KEY_BYTES = 16
# Plain; some 45 CPU seconds. What a start reads beyond that is data.
MOST_BYTES = 384 << 20

Packed = tuple[bytes, int]  # a block as it is stored, and its size with the flag for raw ones


@dataclass(slots=True, kw_only=True)
class Kept:
    """Blocks by what they were made of: `known` from an earlier image, `used` in this one."""

    known: Mapping[bytes, Packed] = field(default_factory=dict)
    used: dict[bytes, Packed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hot:
    """How the files of an order are stored that a run was seen to open.

    `read` has, by path, which bytes of a file were read; files that it does not name were read
    whole. What was read is compressed at `level`, unless `kept` has it already.
    """

    read: Mapping[str, Ranges]
    level: int
    kept: Kept


class Packer:
    """Compresses blocks, in any thread: at `level` or, what `hot` has time for, harder."""

    def __init__(self, codec: Codec, level: int, hot: Hot | None) -> None:
        self._codec = codec
        self._usual = codec.compressor(level)
        self._harder = codec.compressor(hot.level) if hot else self._usual
        self._way = f"{codec.name} {hot.level} {zstd_version()}" if hot else ""
        self._kept = hot.kept if hot else Kept()
        self._left_bytes = MOST_BYTES if hot else 0

    def spend(self, size_bytes: int) -> bool:
        """Whether as many plain bytes more are worth the effort; to be asked in their order."""
        worth = size_bytes <= self._left_bytes
        self._left_bytes -= size_bytes if worth else 0
        return worth

    def pack(self, plain: bytes, *, harder: bool) -> Packed:
        """A plain block as it is stored."""
        if not harder:
            return _packed(plain, self._usual)
        return self._kept_or("plain", plain, lambda: _packed(plain, self._harder))

    def pack_again(self, stored: bytes, size: int, limit: int) -> Packed:
        """A stored block, `limit` bytes at most when plain; as it is where that is no longer."""
        raw = size & DATA_RAW

        def packed() -> Packed:
            plain = stored if raw else self._codec.decompress(stored, limit)
            found = _packed(plain, self._harder)
            return found if len(found[0]) < len(stored) else (stored, size)

        return self._kept_or("raw" if raw else "stored", stored, packed)

    def _kept_or(self, form: str, source: bytes, pack: Callable[[], Packed]) -> Packed:
        # The same bytes may be a block of one form and, elsewhere, what is in a block.
        key = blake2b(source, digest_size=KEY_BYTES, key=f"{self._way} {form}".encode()).digest()
        found = self._kept.known.get(key)
        if found is None or len(found[0]) != found[1] & ~DATA_RAW:
            found = pack()
        self._kept.used[key] = found
        return found


def _packed(plain: bytes, compress: Compress) -> Packed:
    data = compress(plain)
    return (data, len(data)) if len(data) < len(plain) else (plain, len(plain) | DATA_RAW)


class HotFile:
    """The blocks of one file, `start` to `end` in its image.

    `read` are the bytes of the file that were read, None for all.
    """

    __slots__ = ("_read", "blocks", "end", "image", "start")

    def __init__(self, node: Node, read: Ranges | None, extent: tuple[Image, int, int]) -> None:
        self.image, self.start, self.end = extent
        self.blocks = node.blocks
        self._read = None if read is None else self._blocks_of(read)

    def _blocks_of(self, read: Ranges) -> frozenset[int]:
        size, count = self.image.block_size, len(self.blocks) // 4
        return frozenset(
            number
            for start, length in read
            for number in range(start // size, min(-(-(start + length) // size), count))
        )

    def places(self) -> Iterator[tuple[int, int, bool]]:
        """Where each block lies in the image, its size with the flag, and whether it was read."""
        at = self.start
        for number, size in enumerate(sizes_of(self.blocks)):
            yield at, size, bool(size) and (self._read is None or number in self._read)
            at += size & ~DATA_RAW


class HotBlocks:
    """A hot file's blocks as they are stored now.

    `parts` are what was compressed again, and ranges of the image that stay as they are. `hot` are
    those that were read, `(start, length)` each, counted from the first block.
    """

    def __init__(self, file: HotFile, packed: Sequence[Packed | None]) -> None:
        self.parts: list[bytes | tuple[int, int]] = []
        self.length = 0
        self.hot: list[tuple[int, int]] = []
        sizes = []
        for (at, size, was_read), again in zip(file.places(), packed, strict=True):
            length = len(again[0]) if again else size & ~DATA_RAW
            if was_read:
                self.hot.append((self.length, length))
            self._add(again[0] if again else (at, length))
            sizes.append(again[1] if again else size)
            self.length += length
        self.sizes = struct.pack(f"<{len(sizes)}I", *sizes)

    def _add(self, part: bytes | tuple[int, int]) -> None:
        last = self.parts[-1] if self.parts else b""
        if isinstance(part, tuple) and isinstance(last, tuple) and sum(last) == part[0]:
            self.parts[-1] = last[0], last[1] + part[1]
        else:
            self.parts.append(part)


def pack_files(files: Sequence[HotFile], packer: Packer) -> dict[HotFile, HotBlocks]:
    """Their blocks; those that were read compressed again, as far as that is worth the effort."""
    from concurrent.futures import Future, ThreadPoolExecutor

    jobs: dict[HotFile, list[Future[Packed] | None]] = {}
    with ThreadPoolExecutor() as pool:
        for file in files:
            limit = file.image.block_size
            found: list[Future[Packed] | None] = []
            jobs[file] = found
            for at, size, was_read in file.places():
                if was_read and packer.spend(limit):
                    stored = file.image.read_at(at, size & ~DATA_RAW)
                    found.append(pool.submit(packer.pack_again, stored, size, limit))
                else:
                    found.append(None)
        return {
            file: HotBlocks(file, [job.result() if job else None for job in found])
            for file, found in jobs.items()
        }
