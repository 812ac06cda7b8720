"""Reads squashfs images, also hostile ones: whatever does not fit is an ImageError."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import BinaryIO, NamedTuple, cast

from limpet.core.errors import ImageError
from limpet.formats.squashfs.codecs import codec_by_number, damaged
from limpet.formats.squashfs.inodes import parse_inode
from limpet.formats.squashfs.layout import (
    DATA_RAW,
    DIR,
    FILE,
    FLAG_COMPRESSOR_OPTIONS,
    FRAGMENT,
    ID,
    LENGTH,
    LISTING_ENTRY,
    LISTING_HEADER,
    MAGIC,
    MAX_BLOCK_SIZE,
    METADATA_RAW,
    MIN_BLOCK_SIZE,
    NAME_LIMIT,
    NO_FRAGMENT,
    NO_TABLE,
    SUPERBLOCK,
)
from limpet.formats.squashfs.metadata import MetadataTable, read_indexed
from limpet.formats.squashfs.model import Node
from limpet.formats.squashfs.tree import encode_path, resolve

WHOLE_READ_LIMIT = 1 << 30
PATH_LIMIT = 16384


class Superblock(NamedTuple):
    magic: int
    inode_count: int
    mkfs_time: int
    block_size: int
    fragment_count: int
    compressor: int
    block_log: int
    flags: int
    id_count: int
    major: int
    minor: int
    root: int
    bytes_used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int


class Squashfs:
    """An image in an open file, from `offset` on. The file must stay open while it is used."""

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        self.file = file
        self.offset = offset
        self.size_bytes = SUPERBLOCK.size
        self.superblock = superblock = self._read_superblock()
        self.size_bytes = superblock.bytes_used
        self.block_size = superblock.block_size
        self.fragment_count = superblock.fragment_count
        self.data_end = superblock.inode_table
        self.codec = codec_by_number(superblock.compressor)
        self._check_layout()
        self._listed_bytes = 0
        self._last = (0, b"")  # the last block that files share: where it lies, and its content
        self._directories: set[int] = set()
        self._shared: dict[int, Node] = {}

    @property
    def compressor(self) -> str:
        return self.codec.name

    def _read_superblock(self) -> Superblock:
        self.file.seek(self.offset)
        data = self.file.read(SUPERBLOCK.size)
        if len(data) < SUPERBLOCK.size or data[:4] != MAGIC.to_bytes(4, "little"):
            raise ImageError(
                "This is no squashfs image.",
                why="It does not start with squashfs's magic number.",
                now="Check that the file is the one you mean and that it is complete.",
            )
        superblock = Superblock(*SUPERBLOCK.unpack(data))
        if (superblock.major, superblock.minor) != (4, 0):
            raise ImageError(
                f"The squashfs image is of version {superblock.major}.{superblock.minor}.",
                why="Only version 4.0, which Linux reads since 2009, is supported.",
                now="Build the image again with a current mksquashfs.",
            )
        return superblock

    def _check_layout(self) -> None:
        block = self.superblock
        if not MIN_BLOCK_SIZE <= block.block_size <= MAX_BLOCK_SIZE or block.block_size != (
            1 << block.block_log
        ):
            raise damaged(f"A block size of {block.block_size} bytes does not exist.")
        tables = (block.inode_table, block.directory_table, block.id_table)
        if not SUPERBLOCK.size <= tables[0] <= tables[1] <= tables[2] <= block.bytes_used:
            raise damaged("Its tables lie in no possible order.")
        self.file.seek(0, io.SEEK_END)
        there = self.file.tell() - self.offset
        if there < block.bytes_used:
            raise damaged(
                f"It should have {block.bytes_used} bytes and has {there}: it is cut off."
            )

    def read_at(self, position: int, size: int) -> bytes:
        """`size` bytes of the image from `position` on."""
        if position < 0 or position + size > self.size_bytes:
            raise damaged("Something in it lies beyond its end.")
        self.file.seek(self.offset + position)
        data = self.file.read(size)
        if len(data) != size:
            raise damaged("It is cut off.")
        return data

    @property
    def data_start(self) -> int:
        """Where the data blocks start: behind the superblock and the compressor's options."""
        if not self.superblock.flags & FLAG_COMPRESSOR_OPTIONS:
            return SUPERBLOCK.size
        (length,) = LENGTH.unpack(self.read_at(SUPERBLOCK.size, 2))
        return min(SUPERBLOCK.size + 2 + int(length & ~METADATA_RAW), self.data_end)

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """User and group ids, which inodes refer to by place; each place that exists is valid."""
        size = self.superblock.id_count * ID.size
        data, _ = read_indexed(self.read_at, self.superblock.id_table, size, self.codec)
        return tuple(number for (number,) in ID.iter_unpack(data))

    @cached_property
    def _fragment_table(self) -> tuple[bytes, int]:
        size = self.fragment_count * FRAGMENT.size
        return read_indexed(self.read_at, self.superblock.fragment_table, size, self.codec)

    def fragment_at(self, number: int) -> tuple[int, int]:
        """Where a fragment block starts, and its size with the flag for raw ones."""
        start, size, _ = FRAGMENT.unpack_from(self._fragment_table[0], number * FRAGMENT.size)
        return int(start), int(size)

    def checks_at(self, start: int) -> bytes | None:
        """The CRC-32 of each block of the file whose blocks start there: not known."""
        return None

    @cached_property
    def _inodes(self) -> MetadataTable:
        start, end = self.superblock.inode_table, self.superblock.directory_table
        return MetadataTable(self.read_at(start, end - start), self.codec)

    @cached_property
    def _listings(self) -> MetadataTable:
        block = self.superblock
        end = block.id_table
        (first_id_block,) = struct.unpack("<Q", self.read_at(block.id_table, 8))
        ends = [first_id_block, block.fragment_table]
        if self.fragment_count:
            ends.append(self._fragment_table[1])
        if block.export_table != NO_TABLE:
            ends += struct.unpack("<Q", self.read_at(block.export_table, 8))
        end = min([place for place in ends if place >= block.directory_table], default=end)
        start = block.directory_table
        return MetadataTable(self.read_at(start, end - start), self.codec)

    def root(self) -> Node:
        return self._root

    @cached_property
    def _root(self) -> Node:
        node = self._node(self.superblock.root >> 16, self.superblock.root & 0xFFFF)
        if node.type != DIR:
            raise damaged("Its root is no directory.")
        return node

    def _node(self, block: int, offset: int) -> Node:
        """The inode at a place; the same object each time for one with several names."""
        place = block << 16 | offset
        if place in self._shared:
            return self._shared[place]
        inodes = self._inodes
        try:
            node = parse_inode(self, inodes.data, inodes.position(block, offset))
        except (struct.error, IndexError) as error:
            raise damaged("An inode is cut short or has an owner that does not exist.") from error
        if node.type == DIR:
            if place in self._directories:
                raise damaged("A directory has two parents, or is inside itself.")
            self._directories.add(place)
        elif node.nlink > 1:
            self._shared[place] = node
        return node

    def list_directory(self, node: Node) -> dict[bytes, Node]:
        """The children of a directory of this image, by name."""
        size = node.size_bytes - 3  # the kernel counts "." and ".." as 3 bytes
        if size <= 0:
            return {}
        listings = self._listings
        self._listed_bytes += size
        at = listings.position(*node.listing)
        end = at + size
        if end > len(listings.data) or self._listed_bytes > len(listings.data):
            raise damaged("A directory is longer than all directories together.")
        try:
            return self._parse_listing(listings.data, at, end)
        except struct.error as error:
            raise damaged("A directory is cut short.") from error

    def _parse_listing(self, data: bytes, at: int, end: int) -> dict[bytes, Node]:
        children: dict[bytes, Node] = {}
        unpack_entry, entry_size = LISTING_ENTRY.unpack_from, LISTING_ENTRY.size
        while at < end:
            count, block, _ = LISTING_HEADER.unpack_from(data, at)
            at += LISTING_HEADER.size
            for _ in range(count + 1):
                if at >= end:
                    raise damaged("A directory is cut short.")
                offset, _, _, length = unpack_entry(data, at)
                at += entry_size
                name = data[at : at + length + 1]
                at += length + 1
                if len(name) != length + 1 or length > NAME_LIMIT or _is_hostile(name):
                    raise damaged("A file has a name that cannot be.")
                children[name] = self._node(block, offset)
        return children

    def find(self, path: str, follow: bool = False) -> Node | None:
        """The node at a path; with `follow` through symlinks, which never lead out of the image."""
        if follow:
            trail = resolve(self.root(), encode_path(path), follow_last=True)
            return None if trail is None else trail[-1][1] if trail else self.root()
        node: Node | None = self.root()
        for name in encode_path(path).split(b"/"):
            if name and node is not None:
                node = node.children.get(name) if node.type == DIR else None
        return node

    def walk(self) -> Iterator[tuple[str, Node]]:
        """All paths in the image with their nodes, sorted within a directory, parents first."""
        stack: list[tuple[bytes, Node]] = [(b"", self.root())]
        while stack:
            path, node = stack.pop()
            yield path.decode("utf-8", "surrogateescape"), node
            if node.type == DIR:
                if len(path) > PATH_LIMIT:
                    raise damaged(f"A path in it is longer than {PATH_LIMIT} bytes.")
                prefix = path + b"/" if path else b""
                for name in sorted(node.children, reverse=True):
                    stack.append((prefix + name, node.children[name]))

    def open(self, node: Node) -> BinaryIO:
        """A stream of a file's content."""
        if node.type != FILE:
            raise ImageError(f"A {node.kind} in an image has no content to read.")
        return cast(BinaryIO, io.BufferedReader(_FileStream(self, node), self.block_size))

    def read(self, node_or_path: Node | str, limit_bytes: int | None = None) -> bytes:
        """The content of a file, symlinks in a path followed; at most its first `limit_bytes`."""
        node = node_or_path
        if isinstance(node, str):
            found = self.find(node, follow=True)
            if found is None:
                raise ImageError(f"The image has no file {node!r}.")
            node = found
        if limit_bytes is None and node.size_bytes > WHOLE_READ_LIMIT:
            raise ImageError(
                f"A file of {node.size_bytes} bytes is too large to be read as a whole.",
                why="A damaged image may claim any size.",
            )
        with self.open(node) as stream:
            return stream.read(-1 if limit_bytes is None else limit_bytes)

    def read_block(self, position: int, size: int, expected: int) -> bytes:
        """A data block of `expected` plain bytes; `size` carries the flag for raw ones."""
        stored = size & ~DATA_RAW
        if stored > self.block_size:
            raise damaged("A data block is larger than blocks can be.")
        data = self.read_at(position, stored)
        if not size & DATA_RAW:
            data = self.codec.decompress(data, self.block_size)
        if len(data) < expected:
            raise damaged("A data block is shorter than it should be.")
        return data

    def read_shared(self, position: int, size: int, expected: int) -> bytes:
        """As `read_block`, of a block that files share: the next read is mostly of the same one."""
        at, data = self._last
        if at != position or len(data) < expected:
            data = self.read_block(position, size, expected)
            self._last = position, data
        return data


def _is_hostile(name: bytes) -> bool:
    return b"/" in name or b"\0" in name or name == b"." or name == b".."


class _FileStream(io.RawIOBase):
    """A file's blocks one after the other, then its tail from a fragment."""

    def __init__(self, image: Squashfs, node: Node) -> None:
        self._image = image
        self._node = node
        self._blocks = self._plain_blocks()
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _plain_blocks(self) -> Iterator[bytes]:
        image, node = self._image, self._node
        position, left = node.start, node.size_bytes
        for (size,) in struct.iter_unpack("<I", node.blocks):
            expected = min(left, image.block_size)
            if size:
                yield image.read_block(position, size, expected)[:expected]
                position += size & ~DATA_RAW
            else:
                yield bytes(expected)
            left -= expected
        if left and node.fragment != NO_FRAGMENT:
            start, size = image.fragment_at(node.fragment)
            end = node.offset + left
            yield image.read_shared(start, size, end)[node.offset : end]
