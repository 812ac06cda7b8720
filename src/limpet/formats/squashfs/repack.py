"""Small files that are opened together, put together: their fragment blocks are packed anew.

A fragment block holds neighbours by name, most of which the same program never opens. Only these
blocks' own bytes are compressed again; whole blocks of larger files stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

from limpet.formats.squashfs.codecs import damaged
from limpet.formats.squashfs.hot import Packed, Packer
from limpet.formats.squashfs.layout import NO_FRAGMENT
from limpet.formats.squashfs.model import Node
from limpet.formats.squashfs.read import Squashfs

PLAIN_BLOCKS = 256  # unpacked source blocks that are kept: files of a package lie close together

Tail = tuple[Squashfs, int, int, int]  # an image, its fragment's number, where in it, how long


class PackedBlock:
    """A new fragment block: which tails it holds, one behind the other."""

    __slots__ = ("number", "plain_bytes", "tails")

    def __init__(self, number: int) -> None:
        self.number = number
        self.tails: list[Tail] = []
        self.plain_bytes = 0


def tail_of(node: Node) -> Tail | None:
    """The part of a file that lies in a fragment block."""
    if node.fragment == NO_FRAGMENT:
        return None
    image = node.image
    assert isinstance(image, Squashfs)  # others have no order
    length = node.size_bytes - len(node.blocks) // 4 * image.block_size
    if not 0 <= length <= image.block_size or not 0 <= node.offset <= image.block_size - length:
        raise damaged("A file's tail lies outside its fragment.")
    return image, node.fragment, node.offset, length


class Repacked:
    """Tails in their new order: `blocks`, and for each tail its block's number and its place."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self.blocks: list[PackedBlock] = []
        self.places: dict[Tail, tuple[int, int]] = {}

    def add(self, tail: Tail) -> None:
        """Give a tail its place, if it has none yet."""
        if tail in self.places:
            return
        length = tail[3]
        if not self.blocks or self.blocks[-1].plain_bytes + length > self._block_size:
            self.blocks.append(PackedBlock(len(self.blocks)))
        block = self.blocks[-1]
        self.places[tail] = block.number, block.plain_bytes
        block.tails.append(tail)
        block.plain_bytes += length

    def pack(
        self, packer: Packer, *, lead: Sequence[bytes] = (), whole: bool = False
    ) -> list[Packed]:
        """`lead` and then all blocks, compressed; with `whole` blocks are filled up with zeros."""
        from concurrent.futures import ThreadPoolExecutor

        size_bytes = self._block_size if whole else 0
        blocks = (plain.ljust(size_bytes, b"\0") for plain in _plain_blocks(self.blocks))
        with ThreadPoolExecutor() as pool:
            jobs = [
                pool.submit(packer.pack, plain, harder=packer.spend(len(plain)))
                for plain in chain(lead, blocks)
            ]
            return [job.result() for job in jobs]


def _plain_blocks(blocks: Sequence[PackedBlock]) -> Iterator[bytes]:
    @lru_cache(PLAIN_BLOCKS)
    def plain(image: Squashfs, number: int) -> bytes:
        start, size = image.fragment_at(number)
        return image.read_block(start, size, 0)

    for block in blocks:
        parts = []
        for image, number, offset, length in block.tails:
            part = plain(image, number)[offset : offset + length]
            if len(part) != length:
                raise damaged("A file's tail lies outside its fragment.")
            parts.append(part)
        yield b"".join(parts)
