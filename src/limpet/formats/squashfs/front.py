"""The small files of an order as one file more, so that a program can read many in one request.

Their fragment blocks lie one behind the other; filled up to whole blocks they are the data of a
file, too. It takes no room: the same compressed blocks are read by either name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from struct import pack
from typing import Literal

from limpet.formats.squashfs.extents import Layout
from limpet.formats.squashfs.hot import Packed
from limpet.formats.squashfs.layout import DATA_RAW, DIR, FILE, NO_FRAGMENT, SUPERBLOCK
from limpet.formats.squashfs.model import Node
from limpet.formats.squashfs.repack import Repacked, tail_of
from limpet.formats.squashfs.tree import encode_path, make_directories, resolve, split_path

# What a folder holds, links followed: no path leads out of the image.
Listing = dict[str, Literal["file", "dir"]]
Place = tuple[int, int]  # where in the file of blocks, and how many bytes
Describe = Callable[[Mapping[str, Place], Callable[[str], Listing]], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The file of blocks `path`, and the file `index` beside it, with what `describe` gives.

    `describe` is called with the place of each file of the order that lies whole in these blocks,
    by its path in the order, and with what lists a folder of the image.
    """

    path: str
    index: str
    describe: Describe


class FrontFiles:
    """The two files on their way into a tree: `lead` is the index, in blocks."""

    def __init__(
        self, front: Front, root: Node, order: Sequence[str], repacked: Repacked, block_size: int
    ) -> None:
        self._front, self._root = front, root
        self._block_size = block_size
        data = front.describe(_places(root, order, repacked, block_size), self._list)
        self.lead = [data[at : at + block_size] for at in range(0, len(data), block_size)]
        self._lead_bytes = len(data)
        self._starts: dict[Node, int] = {}

    def add(self, lead: Sequence[Packed], blocks: Sequence[Packed]) -> None:
        """Put them into the tree; both lie at the start of the image's data."""
        start = SUPERBLOCK.size
        self._put(self._front.index, self._lead_bytes, start, lead)
        start += sum(size & ~DATA_RAW for _, size in lead)
        self._put(self._front.path, len(blocks) * self._block_size, start, blocks)

    def locate(self, node: Node) -> tuple[int, bytes, int, int] | None:
        """Where the data of one of the two lie, as `Copied.locate` says it; None for any other."""
        start = self._starts.get(node)
        return None if start is None else (start, node.blocks, NO_FRAGMENT, 0)

    def _put(self, path: str, size_bytes: int, start: int, blocks: Sequence[Packed]) -> None:
        sizes = pack(f"<{len(blocks)}I", *(size for _, size in blocks))
        node = Node(FILE, 0o644, 0, 0, 0, size_bytes=size_bytes, start=start, blocks=sizes)
        *folders, name = split_path(path)
        parent, _ = make_directories(self._root, folders)
        parent.children[name] = node
        self._starts[node] = start

    def _list(self, path: str) -> Listing:
        trail = resolve(self._root, encode_path(path), follow_last=True)
        if trail is None:
            return {}
        here = trail[-1][1] if trail else self._root
        found: Listing = {}
        for name in here.children if here.type == DIR else ():
            there = resolve(self._root, name, follow_last=True, below=trail)
            if there is not None:
                kind = there[-1][1].type if there else DIR
                if kind in (DIR, FILE):
                    found[name.decode("utf-8", "surrogateescape")] = (
                        "dir" if kind == DIR else "file"
                    )
        return found


def plan_front(front: Front, root: Node, order: Sequence[str], layout: Layout) -> FrontFiles | None:
    """The files, with their index as the layout's lead; None where there is nothing in them."""
    if not layout.repacked.blocks:
        return None
    found = FrontFiles(front, root, order, layout.repacked, layout.images[0].block_size)
    layout.lead = found.lead
    return found if found.lead else None


def _places(
    root: Node, order: Sequence[str], repacked: Repacked, block_size: int
) -> dict[str, Place]:
    places = {}
    for path in order:
        trail = resolve(root, encode_path(path), follow_last=True)
        if not trail or trail[-1][1].type != FILE or trail[-1][1].blocks:
            continue
        tail = tail_of(trail[-1][1])
        if tail and tail in repacked.places:
            number, offset = repacked.places[tail]
            places[path] = number * block_size + offset, tail[3]
    return places
