"""A stream of entries, in any order, into an image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from limpet.core.errors import ImageError, UsageError
from limpet.formats.squashfs.blocks import BlockWriter, Content
from limpet.formats.squashfs.codecs import COMPRESSORS, codec_by_name
from limpet.formats.squashfs.layout import (
    DIR,
    FILE,
    MAX_BLOCK_SIZE,
    MIN_BLOCK_SIZE,
    SUPERBLOCK,
    SYMLINK,
    TYPES,
)
from limpet.formats.squashfs.model import Entry, Node, SquashfsStats, new_directory
from limpet.formats.squashfs.tables import write_tables
from limpet.formats.squashfs.tree import (
    encode_path,
    make_directories,
    resolve,
    split_path,
)

LAST_SECOND = 0xFFFFFFFF


def write_squashfs(
    out: BinaryIO,
    entries: Iterable[Entry],
    *,
    compressor: str = "zstd",
    level: int = 3,
    block_size: int = 131072,
    threads: int | None = None,
) -> SquashfsStats:
    """Writes an image from `out.tell()` on; the same entries give the same bytes.

    Missing parents become directories of root's. A later entry replaces an earlier one of the same
    path, but a directory keeps what is in it. A path that goes through a symlink to a directory of
    the image ends up in that directory, as it does when the layers of a container are unpacked.
    """
    if compressor not in COMPRESSORS:
        raise UsageError(
            f"limpet cannot write images compressed with {compressor!r}.",
            now=f"Choose one of: {', '.join(COMPRESSORS)}.",
        )
    if not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE or block_size & (block_size - 1):
        raise UsageError(
            f"A block size of {block_size} bytes does not exist.",
            now="Choose a power of two from 4096 to 1048576.",
        )
    codec = codec_by_name(compressor)
    origin = out.tell()
    out.write(bytes(SUPERBLOCK.size))
    with BlockWriter(out, origin, codec.compressor(level), block_size, threads) as blocks:
        tree = _Tree(blocks)
        for entry in entries:
            tree.add(entry)
        fragments = blocks.finish()
    tree.place_contents()
    return write_tables(
        out,
        origin,
        tree.root,
        codec=codec,
        block_size=block_size,
        fragments=fragments,
        locate=lambda node: (node.start, node.fragment, node.offset),
    )


class _Tree:
    """The tree as it grows, entry by entry."""

    def __init__(self, blocks: BlockWriter) -> None:
        self.root = new_directory()
        self._blocks = blocks
        self._contents: list[tuple[Node, Content]] = []
        self._parents: dict[str, Node] = {}  # forgotten when a directory or symlink goes

    def add(self, entry: Entry) -> None:
        names = split_path(entry.path)
        node = self._linked(entry) if entry.hardlink else self._node(entry)
        if not names:
            if node.type != DIR:
                raise ImageError("The root of an image must be a directory.")
            _take_attributes(self.root, node)
            return
        parent = self._parent(entry.path.rpartition("/")[0], names[:-1])
        before = parent.children.get(names[-1])
        if before is not None and before.type == node.type == DIR:
            _take_attributes(before, node)
            return
        if before is not None and before.type in (DIR, SYMLINK):
            self._parents.clear()
        parent.children[names[-1]] = node

    def _parent(self, path: str, names: list[bytes]) -> Node:
        parent = self._parents.get(path)
        if parent is None:
            parent, _ = make_directories(self.root, names)
            self._parents[path] = parent
        return parent

    def place_contents(self) -> None:
        """Tells the files where their blocks are; only known when all of them are written."""
        for node, content in self._contents:
            node.start, node.fragment, node.offset = content.start, content.fragment, content.offset
            node.blocks = content.sizes.tobytes()

    def _linked(self, entry: Entry) -> Node:
        trail = resolve(self.root, encode_path(entry.hardlink), follow_last=False)
        if not trail or trail[-1][1].type == DIR:
            raise ImageError(
                f"{entry.path!r} is a hard link to {entry.hardlink!r}, which is no file before it.",
                why="The archive that it comes from is incomplete or out of order.",
            )
        node = trail[-1][1]
        node.nlink = 2  # at least; the names are counted when the tree is written
        return node

    def _node(self, entry: Entry) -> Node:
        kind = TYPES[entry.kind]
        node = Node(kind, entry.mode, entry.uid, entry.gid, _seconds(entry.mtime))
        if kind == FILE:
            content = self._blocks.store(entry.content or b"", entry.sha256)
            node.size_bytes, node.sparse_bytes = content.size_bytes, content.sparse_bytes
            self._contents.append((node, content))
        elif kind == SYMLINK:
            node.link = encode_path(entry.target)
            if not node.link:
                raise ImageError(f"The symlink {entry.path!r} has no target.")
        node.rdev = entry.rdev
        return node


def _take_attributes(node: Node, other: Node) -> None:
    node.mode, node.mtime, node.uid, node.gid = other.mode, other.mtime, other.uid, other.gid


def _seconds(mtime: int) -> int:
    return min(max(mtime, 0), LAST_SECOND)
