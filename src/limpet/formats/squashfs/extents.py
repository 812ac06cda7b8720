"""Which bytes of which images a composed one takes over, in which order, and where they end up."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from limpet.core.ranges import Ranges, join_ranges
from limpet.formats.squashfs.codecs import damaged
from limpet.formats.squashfs.contents import Twins, files_below, find_twins, ranges_of
from limpet.formats.squashfs.hot import (
    Hot,
    HotBlocks,
    HotFile,
    Packed,
    Packer,
    pack_files,
)
from limpet.formats.squashfs.layout import DATA_RAW, NO_FRAGMENT, SUPERBLOCK
from limpet.formats.squashfs.model import Node
from limpet.formats.squashfs.repack import PackedBlock, Repacked, tail_of
from limpet.formats.squashfs.write import Image, Written

COPY_BYTES = 8 << 20
# Of a file's blocks only those are asked for that are touched, here and there in large libraries.
# Behind the others they interrupt no reading on: 303 reads instead of 345 for one cold import.
LARGE_BYTES = 3 << 20
# What lies between two ranges costs less to read along than another request.
GAP_BYTES = 32 << 10

Reads = Mapping[Node, Ranges]


@dataclass(slots=True, eq=False)
class Extent:
    """A run of bytes of an image's data area, with the fragment blocks that lie in it."""

    image: Image
    start: int
    end: int


@dataclass(slots=True, eq=False)
class Layout:
    """What becomes of the data: `parts` one behind the other, the first `ordered` of them in use.

    Those are what the files of the order need. The data of the image that is `there`
    already come first, and stay where they are. Where there is a `lead`, blocks that belong to no
    image, it comes before all, and blocks that are packed anew are filled up behind it.
    """

    images: Sequence[Image]
    twins: Twins
    repacked: Repacked
    there: Written | None = None
    parts: list[Extent | PackedBlock | HotFile] = field(default_factory=list)
    ordered: int = 0
    lead: Sequence[bytes] = ()


def plan_layout(
    root: Node,
    images: Sequence[Image],
    ordered: Mapping[str, Node],
    *,
    repack: bool,
    keep_share: float,
    there: Written | None,
    hot: Hot | None = None,
) -> Layout:
    """The data of the files `ordered`, by path, first; without any, all data areas as they are.

    With `repack` the tails and small files among them get fragment blocks of their own, ahead of
    the larger files' blocks; the largest come last. A block of which they are `keep_share` or more
    stays as it is. Where a run was seen, `hot` has which blocks of a file it read.
    """
    layout = Layout(images, find_twins(root, images), Repacked(images[0].block_size), there)
    if ordered:
        nodes = list(dict.fromkeys(ordered.values()))
        reads = _reads_of(ordered, hot) if hot and repack else None
        _plan_packed(layout, nodes if repack else (), keep_share)
        _plan_ordered(layout, root, nodes, reads)
    else:
        layout.parts.extend(_whole_extents(images, layout.twins, there))
    return layout


def _reads_of(ordered: Mapping[str, Node], hot: Hot) -> Reads:
    """What was read of files by any of their names; not those that were read whole."""
    whole = {node for path, node in ordered.items() if path not in hot.read}
    reads: dict[Node, Ranges] = {}
    for path, node in ordered.items():
        if node not in whole:
            reads[node] = (*reads.get(node, ()), *hot.read[path])
    return reads


def _whole_extents(
    images: Sequence[Image], twins: Twins, there: Written | None
) -> Iterator[Extent]:
    """All data, but for blocks that came before; of the image that is `there` already, all."""
    if there:
        yield Extent(there, there.data_start, there.data_end)
    for image in images:
        if image is there:
            continue
        at = image.data_start
        for start, length in sorted(
            (start, length) for (of, start), (_, length) in twins.items() if of is image
        ):
            yield Extent(image, at, start)
            at = start + length
        yield Extent(image, at, image.data_end)


def _plan_packed(layout: Layout, ordered: Sequence[Node], keep_share: float) -> None:
    """Give tails blocks of their own, but for blocks of which they are at least `keep_share`."""
    tails = dict.fromkeys(tail for node in ordered if (tail := tail_of(node)))
    wanted: dict[tuple[Image, int], int] = {}
    for image, fragment, _, length in tails:
        wanted[image, fragment] = wanted.get((image, fragment), 0) + length
    for tail in tails:
        if wanted[tail[:2]] < keep_share * tail[0].block_size:
            layout.repacked.add(tail)


def _plan_ordered(layout: Layout, root: Node, ordered: Sequence[Node], reads: Reads | None) -> None:
    """Every extent that a file needs: those of `ordered` first, then the rest as they lie.

    Files may share blocks, also in part, so what overlaps is one extent and moves as one.
    """
    # These are read from end to end; of a library's blocks between them many are never asked for.
    layout.parts.extend(layout.repacked.blocks)
    by_image: dict[Image, dict[tuple[int, int], set[bytes]]] = {i: {} for i in layout.images}
    for node in files_below(root):
        for image, start, end, blocks in _needed(node, layout):
            by_image[image].setdefault((start, end), set()).add(blocks)
    merged = {image: _joined(ranges) for image, ranges in by_image.items()}
    placed: set[tuple[Image, int]] = set()

    def place(image: Image, start: int, file: Node | None = None) -> None:
        extents, shared = merged[image]
        at, end = extents[bisect_right(extents, (start, 1 << 64)) - 1]
        if (image, at) in placed:
            return
        placed.add((image, at))
        if file and reads is not None and at not in shared:
            layout.parts.append(HotFile(file, reads.get(file), (image, at, end)))
        else:
            layout.parts.append(Extent(image, at, end))

    for node in sorted(ordered, key=_is_large):
        for image, start, _, blocks in _needed(node, layout):
            place(image, start, node if blocks else None)
    layout.ordered = len(layout.parts)
    for image, (extents, _) in merged.items():
        for start, _ in extents:
            place(image, start)


def _is_large(node: Node) -> bool:
    """Whether a file lies behind the smaller ones of the order."""
    return node.size_bytes >= LARGE_BYTES


def _needed(node: Node, layout: Layout) -> Iterator[tuple[Image, int, int, bytes]]:
    """Which bytes of which image a file needs, and how they are cut: b"" for a fragment block."""
    assert node.image is not None
    repacked = bool(layout.repacked.places) and tail_of(node) in layout.repacked.places
    for start, end, blocks in ranges_of(node, tail=not repacked):
        (image, at), _ = layout.twins.get((node.image, start), ((node.image, start), 0))
        yield image, at, at + end - start, blocks


def _joined(
    ranges: Mapping[tuple[int, int], set[bytes]],
) -> tuple[list[tuple[int, int]], set[int]]:
    """Sorted, with overlapping ones made one; and where those start that are cut in two ways.

    Blocks of a file may be a fragment block, too, as those of a `Front` are.
    """
    joined: list[tuple[int, int]] = []
    shared = set()
    for (start, end), ways in sorted(ranges.items()):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            shared.add(joined[-1][0])
        else:
            joined.append((start, end))
        if len(ways) > 1:
            shared.add(joined[-1][0])
    return joined, shared


class _Placement:
    """Where an image's data went: `starts` sorted, each with how far its extent has moved."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.moves: list[int] = []
        self.fragments: list[int] = []  # new numbers by old ones; -1 for those left out

    def moved(self, start: int) -> int:
        return max(start + self.moves[max(bisect_right(self.starts, start) - 1, 0)], 0)


class Copied:
    """Data in their new place: `fragments`, and `hot`, what a start reads of the order's files.

    `lead` and `blocks` are the layout's, as they are stored, and so are `files`.
    """

    def __init__(
        self,
        layout: Layout,
        lead: Sequence[Packed],
        blocks: Sequence[Packed],
        files: Mapping[HotFile, HotBlocks],
    ) -> None:
        self._layout = layout
        self.lead, self.blocks, self.files = lead, blocks, files
        self._hot = {(file.image, file.start): file for file in files}
        self._placements = {image: _Placement() for image in layout.images}
        self.fragments: list[tuple[int, int]] = []
        self.hot: Ranges = ()

    def locate(self, node: Node) -> tuple[int, bytes, int, int]:
        """Where a file's blocks start, their sizes, its fragment's number, and its place there."""
        assert node.image is not None
        fragment, offset = node.fragment, node.offset
        if fragment != NO_FRAGMENT:
            fragment, offset = self._tail(node)
        if not node.blocks:
            return 0, b"", fragment, offset
        place = node.image, node.start
        twins = self._layout.twins
        image, start = place = twins[place][0] if place in twins else place
        sizes = self._sizes(place, node)
        return self._placements[image].moved(start), sizes, fragment, offset

    def _sizes(self, place: tuple[Image, int], node: Node) -> bytes:
        # A file of nothing but zeros may name the place of the next one, as mksquashfs writes it.
        file = self._hot.get(place)
        return self.files[file].sizes if file and file.blocks == node.blocks else node.blocks

    def _tail(self, node: Node) -> tuple[int, int]:
        places = self._layout.repacked.places
        if places and (tail := tail_of(node)) in places:
            assert tail
            return places[tail]
        assert node.image is not None
        fragment = self._placements[node.image].fragments[node.fragment]
        if fragment < 0:
            raise damaged("A file's data lie outside the image.")
        return fragment, node.offset

    def place(self) -> None:
        """Give every part its place behind the superblock, and every fragment its number."""
        position = SUPERBLOCK.size + sum(len(data) for data, _ in self.lead)
        hot = [(0, position)]
        self.fragments = [(0, 0)] * len(self.blocks)
        moves: dict[Image, list[tuple[int, int, int]]] = {i: [] for i in self._layout.images}
        for count, part in enumerate(self._layout.parts):
            if isinstance(part, PackedBlock):
                data, size = self.blocks[part.number]
                self.fragments[part.number] = position, size
                length = len(data)
            else:
                moves[part.image].append((part.start, part.end, position - part.start))
                length = part.end - part.start
            if isinstance(part, HotFile):
                file = self.files[part]
                length = file.length
                hot += [(position + start, size) for start, size in file.hot]
            elif count < self._layout.ordered:
                hot.append((position, length))
            position += length
        self.hot = join_ranges(hot, gap_bytes=GAP_BYTES) if self._layout.ordered else ()
        for image, placement in self._placements.items():
            ordered = sorted(moves[image])
            placement.starts = [start for start, _, _ in ordered] or [0]
            placement.moves = [move for _, _, move in ordered] or [0]
            self._number_fragments(image, placement, [end for _, end, _ in ordered])

    def _number_fragments(self, image: Image, placement: _Placement, ends: list[int]) -> None:
        for number in range(image.fragment_count):
            start, size = image.fragment_at(number)
            at = bisect_right(placement.starts, start) - 1
            if 0 <= at < len(ends) and start + (size & ~DATA_RAW) <= ends[at]:
                placement.fragments.append(len(self.fragments))
                self.fragments.append((placement.moved(start), size))
            else:
                placement.fragments.append(-1)


def copy_parts(out: BinaryIO, layout: Layout, packer: Packer) -> Copied:
    """Write all parts one behind the other; blocks that are not packed anew are copied."""
    packed: list[Packed] = []
    if layout.repacked.blocks:
        packed = layout.repacked.pack(packer, lead=layout.lead, whole=bool(layout.lead))
    count = len(layout.lead)
    files = pack_files([part for part in layout.parts if isinstance(part, HotFile)], packer)
    copied = Copied(layout, packed[:count], packed[count:], files)
    copied.place()
    for data, _ in copied.lead:
        out.write(data)
    for part in _coalesced(layout.parts):
        if isinstance(part, PackedBlock):
            out.write(copied.blocks[part.number][0])
        elif isinstance(part, HotFile):
            for piece in files[part].parts:
                if isinstance(piece, bytes):
                    out.write(piece)
                else:
                    start, length = piece
                    copy_range(part.image.file, part.image.offset + start, length, out)
        elif part.image is not layout.there:
            start = part.image.offset + part.start
            copy_range(part.image.file, start, part.end - part.start, out)
    return copied


def _coalesced(
    parts: Sequence[Extent | PackedBlock | HotFile],
) -> Iterator[Extent | PackedBlock | HotFile]:
    """Neighbours as one, so that they are copied in one go."""
    last: Extent | PackedBlock | HotFile | None = None
    for part in parts:
        if (
            isinstance(part, Extent)
            and isinstance(last, Extent)
            and last.image is part.image
            and last.end == part.start
        ):
            last = Extent(last.image, last.start, part.end)
            continue
        if last is not None:
            yield last
        last = part
    if last is not None:
        yield last


def copy_range(source: BinaryIO, start: int, length: int, out: BinaryIO) -> None:
    """Copies bytes to where `out` stands: inside the kernel where it can, else in big chunks."""
    done = _copy_in_kernel(source, start, length, out)
    source.seek(start + done)
    while done < length:
        chunk = source.read(min(COPY_BYTES, length - done))
        if not chunk:
            raise damaged("It is cut off.")
        out.write(chunk)
        done += len(chunk)


def _copy_in_kernel(source: BinaryIO, start: int, length: int, out: BinaryIO) -> int:
    """How many bytes were copied; 0 where file system, kernel or object cannot."""
    done = 0
    position = out.tell()
    try:
        out.flush()
        source_fd, out_fd = source.fileno(), out.fileno()
        while done < length:
            count = os.copy_file_range(
                source_fd, out_fd, length - done, start + done, position + done
            )
            if not count:
                break
            done += count
    except OSError:  # io.UnsupportedOperation is an OSError
        pass
    out.seek(position + done)
    return done
