"""From the bytes of an inode to a node. Runs once for each file of an image, so it is kept lean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from limpet.formats.squashfs.codecs import damaged
from limpet.formats.squashfs.layout import (
    BLOCK,
    CHAR,
    DEVICE_INODE,
    DIR,
    DIR_INODE,
    EXTENDED,
    FIFO,
    FILE,
    FILE_INODE,
    HEAD,
    IPC_INODE,
    LDIR_INODE,
    LFILE_INODE,
    NO_FRAGMENT,
    SOCKET,
    SYMLINK,
    SYMLINK_INODE,
)
from limpet.formats.squashfs.model import Node

if TYPE_CHECKING:
    from limpet.formats.squashfs.read import Squashfs

TARGET_LIMIT = 65536


Parser = Callable[["Squashfs", bytes, int], Node]


def _directory(image: Squashfs, data: bytes, at: int) -> Node:
    _, mode, uid, gid, mtime, _, block, nlink, size, offset, _ = DIR_INODE.unpack_from(data, at)
    ids = image.ids
    node = Node(DIR, mode, ids[uid], ids[gid], mtime, image, size, nlink=nlink)
    node.listing = (block, offset)
    return node


def _long_directory(image: Squashfs, data: bytes, at: int) -> Node:
    fields = LDIR_INODE.unpack_from(data, at)
    _, mode, uid, gid, mtime, _, nlink, size, block, _, _, offset, _ = fields
    ids = image.ids
    node = Node(DIR, mode, ids[uid], ids[gid], mtime, image, size, nlink=nlink)
    node.listing = (block, offset)
    return node


def _file(image: Squashfs, data: bytes, at: int) -> Node:
    fields = FILE_INODE.unpack_from(data, at)
    _, mode, uid, gid, mtime, _, start, fragment, offset, size = fields
    ids = image.ids
    blocks = b""
    if fragment == NO_FRAGMENT or size >= image.block_size:
        blocks = _block_sizes(image, data, at + FILE_INODE.size, size, fragment)
    if (fragment != NO_FRAGMENT and fragment >= image.fragment_count) or start > image.data_end:
        raise damaged("A file's data lie outside the image.")
    return Node(
        FILE,
        mode,
        ids[uid],
        ids[gid],
        mtime,
        image,
        size,
        start,
        fragment,
        offset,
        blocks,
    )


def _long_file(image: Squashfs, data: bytes, at: int) -> Node:
    fields = LFILE_INODE.unpack_from(data, at)
    _, mode, uid, gid, mtime, _, start, size, sparse, nlink, fragment, offset, _ = fields
    ids = image.ids
    blocks = _block_sizes(image, data, at + LFILE_INODE.size, size, fragment)
    if (fragment != NO_FRAGMENT and fragment >= image.fragment_count) or start > image.data_end:
        raise damaged("A file's data lie outside the image.")
    node = Node(
        FILE,
        mode,
        ids[uid],
        ids[gid],
        mtime,
        image,
        size,
        start,
        fragment,
        offset,
        blocks,
        nlink,
    )
    node.sparse_bytes = sparse
    return node


def _block_sizes(image: Squashfs, data: bytes, at: int, size: int, fragment: int) -> bytes:
    """The list of block sizes behind a file's inode, as it lies there: 4 bytes each."""
    count = size // image.block_size
    if fragment == NO_FRAGMENT and size % image.block_size:
        count += 1
    end = at + 4 * count
    if end > len(data):
        raise damaged("A file's list of blocks is cut short.")
    return data[at:end]


def _symlink(image: Squashfs, data: bytes, at: int) -> Node:
    _, mode, uid, gid, mtime, _, nlink, size = SYMLINK_INODE.unpack_from(data, at)
    ids = image.ids
    node = Node(SYMLINK, mode, ids[uid], ids[gid], mtime, image, size, nlink=nlink)
    start = at + SYMLINK_INODE.size
    node.link = data[start : start + size]
    if len(node.link) != size or not 0 < size <= TARGET_LIMIT:
        raise damaged("A symlink's target is cut short, empty or too long.")
    return node


def _device(image: Squashfs, data: bytes, at: int) -> Node:
    type_, mode, uid, gid, mtime, _, nlink, rdev = DEVICE_INODE.unpack_from(data, at)
    ids = image.ids
    basic = type_ if type_ <= EXTENDED else type_ - EXTENDED
    node = Node(basic, mode, ids[uid], ids[gid], mtime, image, nlink=nlink)
    node.rdev = rdev
    return node


def _ipc(image: Squashfs, data: bytes, at: int) -> Node:
    type_, mode, uid, gid, mtime, _, nlink = IPC_INODE.unpack_from(data, at)
    ids = image.ids
    basic = type_ if type_ <= EXTENDED else type_ - EXTENDED
    return Node(basic, mode, ids[uid], ids[gid], mtime, image, nlink=nlink)


_PARSERS: dict[int, Parser] = {
    DIR: _directory,
    DIR + EXTENDED: _long_directory,
    FILE: _file,
    FILE + EXTENDED: _long_file,
    SYMLINK: _symlink,
    SYMLINK + EXTENDED: _symlink,
    BLOCK: _device,
    BLOCK + EXTENDED: _device,
    CHAR: _device,
    CHAR + EXTENDED: _device,
    FIFO: _ipc,
    FIFO + EXTENDED: _ipc,
    SOCKET: _ipc,
    SOCKET + EXTENDED: _ipc,
}


def parse_inode(image: Squashfs, data: bytes, at: int) -> Node:
    """The node at `at` of the inode table; its own type decides, as in the kernel."""
    if at + HEAD.size > len(data):
        raise damaged("An inode is cut short.")
    number = data[at] | data[at + 1] << 8
    parser = _PARSERS.get(number)
    if parser is None:
        raise damaged(f"An inode is of type {number}, which does not exist.")
    return parser(image, data, at)
