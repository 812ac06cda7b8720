"""From a tree of nodes to all of an image but the data: inodes, listings, tables, superblock.

A directory's inode needs the place of its listing, and a listing needs the places of all inodes in
it. So the tree is numbered from the root down first, then written from the leaves up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from limpet.core.errors import ImageError
from limpet.formats.squashfs.codecs import Codec
from limpet.formats.squashfs.layout import (
    BLOCK,
    CHAR,
    DEVICE_INODE,
    DIR,
    DIR_INDEX,
    DIR_INODE,
    EXTENDED,
    FILE,
    FILE_INODE,
    FLAG_NO_XATTRS,
    FRAGMENT,
    HEADER_ENTRIES,
    ID,
    IPC_INODE,
    LDIR_INODE,
    LFILE_INODE,
    LISTING_ENTRY,
    LISTING_HEADER,
    MAGIC,
    METADATA_SIZE,
    NO_TABLE,
    NO_XATTR,
    PADDING,
    SUPERBLOCK,
    SYMLINK,
    SYMLINK_INODE,
)
from limpet.formats.squashfs.metadata import MetadataWriter, pack_indexed
from limpet.formats.squashfs.model import Node, SquashfsStats

METADATA_LEVEL = 3
GZIP_METADATA_LEVEL = 6
ID_LIMIT = 65535

# Where a file's blocks start, their sizes, its fragment's number, and its place in that fragment.
Locate = Callable[[Node], tuple[int, bytes, int, int]]
Fragments = Sequence[tuple[int, int]]  # where each lies, and its size with the flag for raw ones


@dataclass(slots=True, eq=False)
class _Folder:
    """A directory on its way: its children in byte order, their numbers and, once known, places."""

    node: Node
    number: int
    above: _Folder | None
    place_above: int  # where this directory stands among its parent's children
    names: list[bytes]
    children: list[Node]
    numbers: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


def _folder(node: Node, number: int, above: _Folder | None, place: int) -> _Folder:
    items = sorted(node.children.items())
    return _Folder(node, number, above, place, [name for name, _ in items], [c for _, c in items])


class _Links:
    """Inodes with several names: for each its number, its place and how many names it has."""

    def __init__(self) -> None:
        self.numbers: dict[Node, int] = {}
        self.counts: dict[Node, int] = {}
        self.places: dict[Node, int] = {}


def _number_tree(root: Node, links: _Links) -> tuple[list[_Folder], int]:
    """All directories, parents before children, and the number of inodes."""
    count = 1
    folders: list[_Folder] = []
    stack = [_folder(root, 1, None, 0)]
    while stack:
        folder = stack.pop()
        folders.append(folder)
        numbers = folder.numbers
        for place, child in enumerate(folder.children):
            if child.type != DIR and child.nlink > 1:
                links.counts[child] = links.counts.get(child, 0) + 1
                known = links.numbers.get(child)
                if known is not None:
                    numbers.append(known)
                    continue
                links.numbers[child] = count + 1
            count += 1
            numbers.append(count)
            if child.type == DIR:
                stack.append(_folder(child, count, folder, place))
        folder.places = [0] * len(numbers)
    return folders, count


class _TreeWriter:
    """Writes inodes and listings into their two tables."""

    def __init__(self, codec: Codec, locate: Locate) -> None:
        level = GZIP_METADATA_LEVEL if codec.name == "gzip" else METADATA_LEVEL
        self.compress = codec.compressor(level)
        self.inodes = MetadataWriter(self.compress)
        self.listings = MetadataWriter(self.compress)
        self.ids: dict[int, int] = {}
        self.content_bytes = 0
        self._locate = locate

    def write(self, root: Node, together: Collection[Node]) -> tuple[int, int]:
        """The place of the root's inode, and the number of inodes."""
        links = _Links()
        folders, count = _number_tree(root, links)
        # Written from the last one on. Whoever holds such a directory is one itself.
        folders.sort(key=lambda folder: folder.node not in together)
        place = 0
        while folders:
            folder = folders.pop()
            self._write_leaves(folder, links)
            place = self._write_directory(
                folder, folder.above.number if folder.above else count + 1
            )
            if folder.above:
                folder.above.places[folder.place_above] = place
        return place, count

    def _write_leaves(self, folder: _Folder, links: _Links) -> None:
        inodes, numbers, places = self.inodes, folder.numbers, folder.places
        for i, child in enumerate(folder.children):
            kind = child.type
            if kind == DIR:
                continue
            nlink = 1
            if child.nlink > 1:
                if child in links.places:
                    places[i] = links.places[child]
                    continue
                nlink = links.counts[child]
                links.places[child] = inodes.block << 16 | len(inodes.pending)
            places[i] = inodes.block << 16 | len(inodes.pending)
            pack = self._pack_file if kind == FILE else self._pack_special
            inodes.write(pack(child, numbers[i], nlink))

    def _owner(self, number: int) -> int:
        place = self.ids.setdefault(number, len(self.ids))
        if place >= ID_LIMIT:
            raise ImageError(
                "The image has more than 65,535 different owners.",
                why="squashfs has no room for more.",
                now="Give the files of the base fewer owners.",
            )
        return place

    def _pack_file(self, node: Node, number: int, nlink: int) -> bytes:
        start, blocks, fragment, offset = self._locate(node)
        size = node.size_bytes
        self.content_bytes += size
        uid, gid = self._owner(node.uid), self._owner(node.gid)
        if nlink == 1 and not node.sparse_bytes and start < 1 << 32 and size < 1 << 32:
            head = FILE_INODE.pack(
                FILE, node.mode, uid, gid, node.mtime, number, start, fragment, offset, size
            )
        else:
            head = LFILE_INODE.pack(
                *(FILE + EXTENDED, node.mode, uid, gid, node.mtime, number, start, size),
                *(node.sparse_bytes, nlink, fragment, offset, NO_XATTR),
            )
        return head + blocks

    def _pack_special(self, node: Node, number: int, nlink: int) -> bytes:
        kind = node.type
        uid, gid = self._owner(node.uid), self._owner(node.gid)
        head = (kind, node.mode, uid, gid, node.mtime, number, nlink)
        if kind == SYMLINK:
            return SYMLINK_INODE.pack(*head, len(node.link)) + node.link
        if kind in (BLOCK, CHAR):
            return DEVICE_INODE.pack(*head, node.rdev)
        return IPC_INODE.pack(*head)

    def _write_directory(self, folder: _Folder, parent: int) -> int:
        block, offset = self.listings.block, len(self.listings.pending)
        size, index = self._write_listing(folder)
        node = folder.node
        uid, gid = self._owner(node.uid), self._owner(node.gid)
        nlink = 2 + sum(child.type == DIR for child in folder.children)
        place = self.inodes.block << 16 | len(self.inodes.pending)
        head = (node.mode, uid, gid, node.mtime, folder.number)
        if size > METADATA_SIZE:
            fields = (nlink, size + 3, block, parent, len(index), offset, NO_XATTR)
            inode = LDIR_INODE.pack(DIR + EXTENDED, *head, *fields) + b"".join(index)
        else:
            inode = DIR_INODE.pack(DIR, *head, block, nlink, size + 3, offset, parent)
        self.inodes.write(inode)
        return place

    def _write_listing(self, folder: _Folder) -> tuple[int, list[bytes]]:
        """The size of the listing, and its index: one record for each further metadata block.

        A header speaks for at most 256 entries whose inodes lie in one metadata block and whose
        numbers are near its own; and a new one starts before 8 KiB, so that the index is dense.
        """
        listings = self.listings
        size, indexed = 0, listings.block
        index: list[bytes] = []
        for first, after, block, base in _runs(folder):
            if listings.block != indexed:
                indexed = listings.block
                name = folder.names[first]
                index.append(DIR_INDEX.pack(size, indexed, len(name) - 1) + name)
            run = LISTING_HEADER.pack(after - first - 1, block, base) + b"".join(
                LISTING_ENTRY.pack(place & 0xFFFF, number - base, child.type, len(name) - 1) + name
                for place, number, child, name in zip(
                    folder.places[first:after],
                    folder.numbers[first:after],
                    folder.children[first:after],
                    folder.names[first:after],
                    strict=True,
                )
            )
            listings.write(run)
            size += len(run)
        return size, index[:0xFFFF]


def _runs(folder: _Folder) -> list[tuple[int, int, int, int]]:
    """What goes below one header: first entry, the one after the last, inode block, base number."""
    runs: list[tuple[int, int, int, int]] = []
    first = block = base = room = 0
    for i, (place, number, name) in enumerate(
        zip(folder.places, folder.numbers, folder.names, strict=True)
    ):
        size = LISTING_ENTRY.size + len(name)
        if i > first and (
            place >> 16 != block
            or i - first >= HEADER_ENTRIES
            or size > room
            or not -32768 <= number - base <= 32767
        ):
            runs.append((first, i, block, base))
            first = i
        if i == first:
            block, base, room = place >> 16, number, METADATA_SIZE - LISTING_HEADER.size
        room -= size
    if folder.names:
        runs.append((first, len(folder.names), block, base))
    return runs


def write_tables(
    out: BinaryIO,
    origin: int,
    root: Node,
    *,
    codec: Codec,
    block_size: int,
    fragments: Fragments,
    locate: Locate,
    together: Collection[Node] = (),
) -> SquashfsStats:
    """Writes all metadata behind the data, at the end of `out`, and the superblock at `origin`.

    The directories `together`, with the root and all above them, get neighbouring places.
    """
    tree = _TreeWriter(codec, locate)
    root_place, inode_count = tree.write(root, together)
    inode_table = out.tell() - origin
    inodes, listings = tree.inodes.close(), tree.listings.close()
    directory_table = inode_table + len(inodes)
    records = b"".join(FRAGMENT.pack(start, size, 0) for start, size in fragments)
    fragment_bytes, fragment_table = pack_indexed(
        records, tree.compress, directory_table + len(listings)
    )
    position = directory_table + len(listings) + len(fragment_bytes)
    owners = b"".join(ID.pack(number) for number in tree.ids)
    id_bytes, id_table = pack_indexed(owners, tree.compress, position)
    used = position + len(id_bytes)
    padding = bytes(-used % PADDING)
    out.write(b"".join((inodes, listings, fragment_bytes, id_bytes, padding)))
    end = out.tell()
    out.seek(origin)
    out.write(
        SUPERBLOCK.pack(
            *(MAGIC, inode_count, 0, block_size, len(fragments), codec.number),
            *(block_size.bit_length() - 1, FLAG_NO_XATTRS, len(tree.ids), 4, 0, root_place, used),
            *(id_table, NO_TABLE, inode_table, directory_table, fragment_table, NO_TABLE),
        )
    )
    out.seek(end)
    return SquashfsStats(
        size_bytes=end - origin,
        inode_count=inode_count,
        content_bytes=tree.content_bytes,
        tables_start=inode_table,
    )
