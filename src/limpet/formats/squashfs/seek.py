"""Files of an image that can be sought in."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

from limpet.core.errors import ImageError
from limpet.formats.squashfs.layout import DATA_RAW, NO_FRAGMENT
from limpet.formats.squashfs.model import Node
from limpet.formats.squashfs.read import Squashfs

_CACHED_BLOCKS = 8


def open_seekable(image: Squashfs, node: Node) -> BinaryIO:
    """A stream of a file's content that can be sought in."""
    return cast("BinaryIO", io.BufferedReader(SeekableFile(image, node), 1 << 16))


class SeekableFile(io.RawIOBase):
    """A file's raw stream: only the blocks that are read are unpacked."""

    def __init__(self, image: Squashfs, node: Node) -> None:
        self._image = image
        self._node = node
        self._at = 0
        self._kept: dict[int, bytes] = {}
        self._sizes = memoryview(node.blocks).cast("I") if node.blocks else memoryview(b"")
        self._starts = [node.start]
        for size in self._sizes:
            self._starts.append(self._starts[-1] + (int(size) & ~DATA_RAW))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._at, self._node.size_bytes)[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._at >= self._node.size_bytes:
            return 0
        number, inside = divmod(self._at, self._image.block_size)
        block = self._block(number)
        count = min(len(buffer), len(block) - inside)
        buffer[:count] = block[inside : inside + count]
        self._at += count
        return count

    def _block(self, number: int) -> bytes:
        if number not in self._kept:
            while len(self._kept) >= _CACHED_BLOCKS:
                del self._kept[next(iter(self._kept))]
            self._kept[number] = self._unpack(number)
        return self._kept[number]

    def _unpack(self, number: int) -> bytes:
        image, node = self._image, self._node
        expected = min(image.block_size, node.size_bytes - number * image.block_size)
        if number < len(self._sizes):
            size = int(self._sizes[number])
            if not size:
                return bytes(expected)
            return image.read_block(self._starts[number], size, expected)[:expected]
        if node.fragment == NO_FRAGMENT:
            raise ImageError("A file in an image is shorter than it says.")
        start, size = image.fragment_at(node.fragment)
        end = node.offset + expected
        return image.read_block(start, size, end)[node.offset : end]
