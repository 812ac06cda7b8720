"""The bytes of squashfs 4.0 as the Linux kernel defines them (fs/squashfs/squashfs_fs.h)."""

from __future__ import annotations

from struct import Struct
from typing import Literal

MAGIC = 0x73717368
METADATA_SIZE = 8192
METADATA_RAW = 0x8000  # bit of a metadata block's length: not compressed
DATA_RAW = 1 << 24  # bit of a data or fragment block's length: not compressed
NO_FRAGMENT = 0xFFFFFFFF
NO_XATTR = 0xFFFFFFFF
NO_TABLE = 0xFFFFFFFFFFFFFFFF
FLAG_NO_XATTRS = 0x200
FLAG_COMPRESSOR_OPTIONS = 0x400
PADDING = 4096  # images are padded to whole device blocks, so that they can be loop-mounted
NAME_LIMIT = 255
HEADER_ENTRIES = 256  # entries below one directory header
MIN_BLOCK_SIZE, MAX_BLOCK_SIZE = 4096, 1 << 20

# Basic inode types; the extended ones are these + 7.
DIR, FILE, SYMLINK, BLOCK, CHAR, FIFO, SOCKET = range(1, 8)
EXTENDED = 7

KINDS: dict[int, Literal["dir", "file", "symlink", "char", "block", "fifo", "socket"]] = {
    DIR: "dir",
    FILE: "file",
    SYMLINK: "symlink",
    BLOCK: "block",
    CHAR: "char",
    FIFO: "fifo",
    SOCKET: "socket",
}
TYPES: dict[str, int] = {kind: number for number, kind in KINDS.items()}

# magic, inodes, mkfs time, block size, fragments, compressor, block log, flags, ids, major, minor,
# root inode, bytes used; then where these start: ids, xattrs, inodes, listings, fragments, export
SUPERBLOCK = Struct("<IIIIIHHHHHHQQQQQQQQ")
LENGTH = Struct("<H")
INDEX = Struct("<Q")
ID = Struct("<I")
FRAGMENT = Struct("<QII")

# Every inode starts with: type, mode, uid index, gid index, mtime, number
HEAD = Struct("<HHHHII")
DIR_INODE = Struct("<HHHHIIIIHHI")  # + listing block, nlink, listing size + 3, offset, parent
LDIR_INODE = Struct(
    "<HHHHIIIIIIHHI"
)  # + nlink, size + 3, block, parent, index count, offset, xattr
DIR_INDEX = Struct("<III")  # offset in the listing, listing block, name length - 1
FILE_INODE = Struct("<HHHHIIIIII")  # + start, fragment, offset in it, size
LFILE_INODE = Struct("<HHHHIIQQQIIII")  # + start, size, sparse, nlink, fragment, offset, xattr
SYMLINK_INODE = Struct("<HHHHIIII")  # + nlink, length of the target
DEVICE_INODE = Struct("<HHHHIIII")  # + nlink, device
IPC_INODE = Struct("<HHHHIII")  # + nlink

LISTING_HEADER = Struct("<III")  # entries - 1, inode block, inode number
LISTING_ENTRY = Struct("<HhHH")  # inode offset, inode number delta, type, name length - 1
