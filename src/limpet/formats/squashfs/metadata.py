"""Metadata blocks: 8 KiB of plain bytes each, compressed, one behind the other."""

from __future__ import annotations

from collections.abc import Callable

from limpet.formats.squashfs.codecs import Codec, Compress, damaged
from limpet.formats.squashfs.layout import INDEX, LENGTH, METADATA_RAW, METADATA_SIZE

TABLE_LIMIT = 1 << 28  # decompressed bytes of one table; 142,000 inodes take 10 MB


class MetadataWriter:
    """Takes bytes, gives blocks. What is written next starts at `block`, `len(pending)`."""

    __slots__ = ("_compress", "block", "finished", "pending", "starts")

    def __init__(self, compress: Compress) -> None:
        self._compress = compress
        self.block = 0
        self.starts: list[int] = []
        self.pending = bytearray()
        self.finished = bytearray()

    def write(self, data: bytes) -> None:
        self.pending += data
        while len(self.pending) >= METADATA_SIZE:
            self._close_block()

    def close(self) -> bytes:
        if self.pending:
            self._close_block()
        return bytes(self.finished)

    def _close_block(self) -> None:
        plain = bytes(self.pending[:METADATA_SIZE])
        del self.pending[:METADATA_SIZE]
        packed = self._compress(plain)
        self.starts.append(self.block)
        if len(packed) < len(plain):
            self.finished += LENGTH.pack(len(packed)) + packed
        else:
            self.finished += LENGTH.pack(len(plain) | METADATA_RAW) + plain
        self.block = len(self.finished)


def pack_indexed(records: bytes, compress: Compress, position: int) -> tuple[bytes, int]:
    """A table with an index behind it, as it lies at `position`; and where its index starts."""
    writer = MetadataWriter(compress)
    writer.write(records)
    blocks = writer.close()
    index = b"".join(INDEX.pack(position + start) for start in writer.starts)
    return blocks + index, position + len(blocks)


class MetadataTable:
    """A run of metadata blocks, decompressed: all bytes, and where each block starts in them."""

    __slots__ = ("data", "starts")

    def __init__(self, packed: bytes, codec: Codec) -> None:
        self.starts: dict[int, int] = {}
        plain: list[bytes] = []
        position = size = 0
        while position < len(packed):
            self.starts[position] = size
            block, position = unpack_block(packed, position, codec)
            plain.append(block)
            size += len(block)
            if size > TABLE_LIMIT:
                raise damaged("A table of the image is larger than any real image's.")
        self.data = b"".join(plain)

    def position(self, block: int, offset: int) -> int:
        start = self.starts.get(block)
        if start is None or start + offset > len(self.data):
            raise damaged("A reference leads out of the tables of the image.")
        return start + offset


def unpack_block(packed: bytes, position: int, codec: Codec) -> tuple[bytes, int]:
    """One metadata block, and where the next one starts."""
    if position + 2 > len(packed):
        raise damaged("A table ends within a block.")
    (length,) = LENGTH.unpack_from(packed, position)
    start, end = position + 2, position + 2 + (length & ~METADATA_RAW)
    if end > len(packed) or end == start or end - start > METADATA_SIZE:
        raise damaged("A table ends within a block.")
    if length & METADATA_RAW:
        return packed[start:end], end
    return codec.decompress(packed[start:end], METADATA_SIZE), end


def read_indexed(
    read: Callable[[int, int], bytes], start: int, size_bytes: int, codec: Codec
) -> tuple[bytes, int]:
    """A table of known size from its index at `start`; and where its first block lies."""
    if size_bytes > TABLE_LIMIT:
        raise damaged("A table of the image is larger than any real image's.")
    count = -(-size_bytes // METADATA_SIZE)
    if not count:
        return b"", start
    index = read(start, count * INDEX.size)
    plain: list[bytes] = []
    for (position,) in INDEX.iter_unpack(index):
        (length,) = LENGTH.unpack(read(position, 2))
        stored = length & ~METADATA_RAW
        if stored > METADATA_SIZE:
            raise damaged("A block of a table is too long.")
        plain.append(unpack_block(read(position, 2 + stored), 0, codec)[0])
    data = b"".join(plain)
    if len(data) != size_bytes:
        raise damaged("A table is shorter than the image says.")
    return data, int(INDEX.unpack_from(index)[0])
