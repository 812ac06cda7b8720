"""A stream of entries, in any order, into an image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from limpet.core.errors import ImageError, UsageError
from limpet.formats.squashfs.blocks import BlockWriter, Content
from limpet.formats.squashfs.codecs import COMPRESSORS, Codec, codec_by_name
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
from limpet.formats.squashfs.read import Squashfs
from limpet.formats.squashfs.tables import write_tables
from limpet.formats.squashfs.tree import (
    encode_path,
    is_name,
    make_directories,
    resolve,
    split_path,
)

LAST_SECOND = 0xFFFFFFFF
_NO_NAMES = ("", ".", "..")


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
    origin = out.tell()
    data = write_data(
        out, entries, compressor=compressor, level=level, block_size=block_size, threads=threads
    )
    return write_tables(
        out,
        origin,
        data.root(),
        codec=data.codec,
        block_size=block_size,
        fragments=data.fragments,
        locate=lambda node: (node.start, node.blocks, node.fragment, node.offset),
    )


def write_data(
    out: BinaryIO,
    entries: Iterable[Entry],
    *,
    compressor: str = "zstd",
    level: int = 3,
    block_size: int = 131072,
    threads: int | None = None,
    decodes: bool = False,
) -> Written:
    """The data of an image alone, as `write_squashfs` writes it; `compose` makes an image of it.

    `out` must be open for reading too, and stay open, for `compose` to read from. With `decodes`,
    blocks that files share are decoded before they are written; ImageError where one is not what
    it was.
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
    with BlockWriter(
        out,
        codec,
        origin=origin,
        level=level,
        block_size=block_size,
        threads=threads,
        decodes=decodes,
    ) as blocks:
        tree = _Tree(blocks)
        for entry in entries:
            tree.add(entry)
        fragments = blocks.finish()
    out.flush()
    written = Written(out, origin, codec, block_size, tree.root, fragments, blocks)
    tree.place_contents(written)
    return written


class Written:
    """The data of an image without its tables: what `compose` needs of a source.

    `contents` tells by the sha256 of a file how it was stored, for files that it is known of.
    From `data_start` to `data_end` lie blocks of these `sizes`, as they are stored, whose CRC-32
    are `block_checks`.
    """

    def __init__(
        self,
        file: BinaryIO,
        offset: int,
        codec: Codec,
        block_size: int,
        root: Node,
        fragments: list[tuple[int, int]],
        blocks: BlockWriter,
    ) -> None:
        self.file = file
        self.offset = offset
        self.codec = codec
        self.block_size = block_size
        self.fragments = fragments
        self.fragment_count = len(fragments)
        self.data_start = SUPERBLOCK.size
        self.data_end = file.tell() - offset
        self.contents = blocks.known
        self.sizes, self.block_checks = blocks.sizes, blocks.checks
        self.checks: dict[int, bytes] = {}
        self._root = root

    @property
    def compressor(self) -> str:
        return self.codec.name

    def root(self) -> Node:
        return self._root

    def fragment_at(self, number: int) -> tuple[int, int]:
        """Where a fragment block starts, and its size with the flag for raw ones."""
        return self.fragments[number]

    def checks_at(self, start: int) -> bytes | None:
        """The CRC-32 of each block of the file whose blocks start there."""
        return self.checks.get(start)

    def read_at(self, position: int, size: int) -> bytes:
        """`size` bytes from `position` on."""
        self.file.seek(self.offset + position)
        return self.file.read(size)


Image = Squashfs | Written


class _Tree:
    """The tree as it grows, entry by entry."""

    def __init__(self, blocks: BlockWriter) -> None:
        self.root = new_directory()
        self._blocks = blocks
        self._contents: list[tuple[Node, Content]] = []
        self._parents: dict[str, Node] = {}  # forgotten when a directory or symlink goes

    def add(self, entry: Entry) -> None:
        above, _, last = entry.path.rpartition("/")
        parent = self._parents.get(above)
        # The way to a known parent has been looked at; "a/." has no last name.
        if parent is not None and last not in _NO_NAMES and is_name(name := encode_path(last)):
            names = [name]
        else:
            names, parent = split_path(entry.path), None
        node = self._linked(entry) if entry.hardlink else self._node(entry)
        if not names:
            if node.type != DIR:
                raise ImageError("The root of an image must be a directory.")
            _take_attributes(self.root, node)
            return
        if parent is None:
            parent, _ = make_directories(self.root, names[:-1])
            if last:
                self._parents[above] = parent
        before = parent.children.get(names[-1])
        if before is not None:
            if before.type == node.type == DIR:
                _take_attributes(before, node)
                return
            if before.type in (DIR, SYMLINK):
                self._parents.clear()
        parent.children[names[-1]] = node

    def place_contents(self, image: Written) -> None:
        """Tells the files where their blocks are; only known when all of them are written."""
        for node, content in self._contents:
            node.image, node.fragment, node.offset = image, content.fragment, content.offset
            if content.sizes:
                node.start, node.blocks = content.start, content.sizes.tobytes()
                image.checks[content.start] = content.checks.tobytes()

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
        mtime = _seconds(entry.mtime) if entry.mtime else 0
        node = Node(kind, entry.mode, entry.uid, entry.gid, mtime)
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
