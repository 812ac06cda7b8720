"""Merges images by their metadata: data blocks are copied as they are, never decompressed."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from limpet.core.errors import ImageError
from limpet.formats.squashfs.codecs import damaged
from limpet.formats.squashfs.contents import Twins, files_below, find_twins, ranges_of
from limpet.formats.squashfs.layout import DATA_RAW, DIR, FILE, NO_FRAGMENT, SUPERBLOCK, SYMLINK
from limpet.formats.squashfs.model import Node, SquashfsStats, new_directory
from limpet.formats.squashfs.read import Squashfs
from limpet.formats.squashfs.tables import write_tables
from limpet.formats.squashfs.tree import (
    Trail,
    directory_at,
    encode_path,
    make_directories,
    own_trail,
    resolve,
    split_path,
)
from limpet.formats.squashfs.write import Written

COPY_BYTES = 8 << 20

Image = Squashfs | Written


@dataclass(frozen=True, slots=True)
class Source:
    """An image, and where its root goes in the composed one ("" is the root)."""

    squashfs: Image
    at: str = ""


def compose(
    out: BinaryIO,
    sources: Sequence[Source],
    *,
    order: Sequence[str] = (),
    remove: Collection[str] = (),
) -> SquashfsStats:
    """Writes the union of `sources` as one image from `out.tell()` on.

    Directories merge, with the attributes of the first source that has them; of anything else the
    later source wins. Where a later source has a directory and an earlier one a symlink that leads
    to a directory (`lib -> usr/lib`), the directory's content goes to where the symlink leads; any
    other symlink gives way to the directory. Paths in `remove` are left out of the result, with all
    that is below. Extended attributes are dropped.

    The data of the files in `order` come first, in that order, each with the fragment block that
    holds its tail; then blocks that no file needs any more are left out. Without `order` all data
    areas are copied whole, but for whole files' blocks that came before. A `Written` whose data lie
    in `out` is not copied: the image starts where it does, and the other data come behind it.
    """
    first = _checked(sources)
    if order and any(source.squashfs.file is out for source in sources):
        raise ValueError("data that lie in the image already have their order")
    root = _merge(sources)
    for path in remove:
        _remove(root, path)
    images = list(dict.fromkeys(source.squashfs for source in sources))
    images.sort(key=lambda image: image.file is not out)
    there = images[0] if images[0].file is out else None
    origin = there.offset if there else out.tell()
    twins = find_twins(root, images)  # reads, also what is `there`
    if there:
        out.seek(origin + there.data_end)
    else:
        out.write(bytes(SUPERBLOCK.size))
    if order:
        extents = _ordered_extents(root, images, order, twins)
    else:
        extents = _whole_extents(images, twins, there)
    placements, fragments = _copy_extents(out, images, extents)
    return write_tables(
        out,
        origin,
        root,
        codec=first.codec,
        block_size=first.block_size,
        fragments=fragments,
        locate=lambda node: _locate(node, placements, twins),
    )


def _checked(sources: Sequence[Source]) -> Image:
    if not sources:
        raise ImageError("There is nothing to compose an image from.")
    first = sources[0].squashfs
    for source in sources[1:]:
        image = source.squashfs
        if (image.compressor, image.block_size) != (first.compressor, first.block_size):
            raise ImageError(
                "These images cannot be composed into one.",
                why=f"One has {first.compressor} blocks of {first.block_size} bytes, "
                f"another {image.compressor} blocks of {image.block_size} bytes.",
                now="Write them with the same compressor and block size.",
            )
    return first


def _merge(sources: Sequence[Source]) -> Node:
    root = new_directory()
    for i, source in enumerate(sources):
        names = split_path(source.at)
        top = source.squashfs.root()
        if names:
            parent, trail = make_directories(root, names[:-1])
            _merge_children(root, parent, trail, {names[-1]: top})
        elif i == 0:
            root = top.owned_copy()
        else:
            _merge_children(root, root, [], top.children)
    return root


def _merge_children(root: Node, target: Node, trail: Trail, children: dict[bytes, Node]) -> None:
    """Puts `children` and all below them into the owned directory `target`.

    Directories that meet a symlink wait for the rest: what it leads to may be among it.
    """
    work = [(target, trail, children)]
    waiting: list[tuple[Node, Trail, bytes, Node]] = []
    while work or waiting:
        if not work:
            target, trail, name, child = waiting.pop()
            if _leads_to_directory(root, trail, name):
                inner, inner_trail = directory_at(root, trail, name)
                work.append((inner, inner_trail, child.children))
            else:
                target.children[name] = child
            continue
        target, trail, children = work.pop()
        for name, child in children.items():
            have = target.children.get(name)
            if child.type != DIR or have is None or have.type not in (DIR, SYMLINK):
                target.children[name] = child
            elif have.type == SYMLINK:
                waiting.append((target, trail, name, child))
            else:
                inner, inner_trail = directory_at(root, trail, name)
                work.append((inner, inner_trail, child.children))


def _leads_to_directory(root: Node, trail: Trail, name: bytes) -> bool:
    there = resolve(root, name, follow_last=True, below=trail)
    return there is not None and (not there or there[-1][1].type == DIR)


def _remove(root: Node, path: str) -> None:
    trail = resolve(root, encode_path(path), follow_last=False)
    if trail:
        parent, _ = own_trail(root, trail[:-1])
        parent.children.pop(trail[-1][0], None)


@dataclass(slots=True, eq=False)
class _Extent:
    """A run of bytes of an image's data area, with the fragment blocks that lie in it."""

    image: Image
    start: int
    end: int


class _Placement:
    """Where an image's data went: `starts` sorted, each with how far its extent has moved."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.moves: list[int] = []
        self.fragments: list[int] = []  # new numbers by old ones; -1 for those left out

    def moved(self, start: int) -> int:
        return max(start + self.moves[max(bisect_right(self.starts, start) - 1, 0)], 0)


def _locate(node: Node, placements: dict[Image, _Placement], twins: Twins) -> tuple[int, int]:
    assert node.image is not None
    fragment = node.fragment
    if fragment != NO_FRAGMENT:
        fragment = placements[node.image].fragments[fragment]
        if fragment < 0:
            raise damaged("A file's data lie outside the image.")
    if not node.blocks:
        return 0, fragment
    place = node.image, node.start
    image, start = twins[place][0] if place in twins else place
    return placements[image].moved(start), fragment


def _whole_extents(images: Sequence[Image], twins: Twins, there: Image | None) -> list[_Extent]:
    """All data, but for blocks that came before; of the image that is `there` already, all."""
    extents = [_Extent(there, there.data_start, there.data_end)] if there else []
    for image in images:
        if image is there:
            continue
        at = image.data_start
        for start, length in sorted(
            (start, length) for (of, start), (_, length) in twins.items() if of is image
        ):
            extents.append(_Extent(image, at, start))
            at = start + length
        extents.append(_Extent(image, at, image.data_end))
    return extents


def _ordered_extents(
    root: Node, images: Sequence[Image], order: Sequence[str], twins: Twins
) -> list[_Extent]:
    """Every extent that a file needs: those of `order` first, then the rest as they lie.

    Files may share blocks, also in part, so what overlaps is one extent and moves as one.
    """
    by_image: dict[Image, list[tuple[int, int]]] = {image: [] for image in images}
    for node in files_below(root):
        for image, start, end in _needed(node, twins):
            by_image[image].append((start, end))
    merged = {image: _joined(ranges) for image, ranges in by_image.items()}
    placed: dict[tuple[Image, int], _Extent] = {}

    def place(image: Image, start: int) -> None:
        extents = merged[image]
        at, end = extents[bisect_right(extents, (start, 1 << 64)) - 1]
        placed.setdefault((image, at), _Extent(image, at, end))

    for path in order:
        trail = resolve(root, encode_path(path), follow_last=True)
        if trail and trail[-1][1].type == FILE:
            for image, start, _ in _needed(trail[-1][1], twins):
                place(image, start)
    for image, extents in merged.items():
        for start, _ in extents:
            place(image, start)
    return list(placed.values())


def _needed(node: Node, twins: Twins) -> Iterator[tuple[Image, int, int]]:
    """Which bytes of which image a file needs."""
    assert node.image is not None
    for start, end in ranges_of(node):
        (image, at), _ = twins.get((node.image, start), ((node.image, start), 0))
        yield image, at, at + end - start


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted, with overlapping ones made one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(set(ranges)):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _copy_extents(
    out: BinaryIO, images: Sequence[Image], extents: Sequence[_Extent]
) -> tuple[dict[Image, _Placement], list[tuple[int, int]]]:
    """Copies the extents one behind the other; where they are now, and all fragment blocks."""
    placements = {image: _Placement() for image in images}
    fragments: list[tuple[int, int]] = []
    position = SUPERBLOCK.size
    moves: dict[Image, list[tuple[int, int, int]]] = {image: [] for image in images}
    for extent in extents:
        moves[extent.image].append((extent.start, extent.end, position - extent.start))
        position += extent.end - extent.start
    for image, placement in placements.items():
        ordered = sorted(moves[image])
        placement.starts = [start for start, _, _ in ordered] or [0]
        placement.moves = [move for _, _, move in ordered] or [0]
        _number_fragments(image, placement, [end for _, end, _ in ordered], fragments)
    for image, start, end in _coalesced(extents):
        if image.file is not out:
            copy_range(image.file, image.offset + start, end - start, out)
    return placements, fragments


def _number_fragments(
    image: Image, placement: _Placement, ends: list[int], fragments: list[tuple[int, int]]
) -> None:
    for number in range(image.fragment_count):
        start, size = image.fragment_at(number)
        at = bisect_right(placement.starts, start) - 1
        if 0 <= at < len(ends) and start + (size & ~DATA_RAW) <= ends[at]:
            placement.fragments.append(len(fragments))
            fragments.append((placement.moved(start), size))
        else:
            placement.fragments.append(-1)


def _coalesced(extents: Sequence[_Extent]) -> Iterator[tuple[Image, int, int]]:
    """Neighbours as one, so that they are copied in one go."""
    last: _Extent | None = None
    for extent in extents:
        if last is not None and last.image is extent.image and last.end == extent.start:
            last = _Extent(last.image, last.start, extent.end)
            continue
        if last is not None:
            yield last.image, last.start, last.end
        last = extent
    if last is not None:
        yield last.image, last.start, last.end


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
