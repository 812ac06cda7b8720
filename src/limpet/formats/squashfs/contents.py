"""Where the contents of files lie in their images, and which of them are the same."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256

from limpet.formats.squashfs.codecs import damaged
from limpet.formats.squashfs.layout import DATA_RAW, DIR, FILE, NO_FRAGMENT, SUPERBLOCK
from limpet.formats.squashfs.model import Node
from limpet.formats.squashfs.write import Image

READ_BYTES = 1 << 20

Place = tuple[Image, int]  # an image, and where a file's blocks start in it
Twins = dict[Place, tuple[Place, int]]  # where the same blocks lie before it, and how long they are


def files_below(root: Node) -> Iterator[Node]:
    """All files; those with several names several times."""
    stack = [root]
    while stack:
        for child in stack.pop().children.values():
            if child.type == DIR:
                stack.append(child)
            elif child.type == FILE:
                yield child


def ranges_of(node: Node, *, tail: bool = True) -> Iterator[tuple[int, int, bytes]]:
    """Where a file's blocks lie, and the fragment block with its tail, if that is asked for.

    Each with how it is cut: the sizes of the blocks, b"" for the fragment block.
    """
    image = node.image
    assert image is not None
    length = packed_bytes(node.blocks)
    if length:
        yield *_checked(image, node.start, length), node.blocks
    if tail and node.fragment != NO_FRAGMENT:
        start, size = image.fragment_at(node.fragment)
        yield *_checked(image, start, size & ~DATA_RAW), b""


def packed_bytes(blocks: bytes) -> int:
    """How long a file's blocks are, compressed, one behind the other."""
    return sum(size & ~DATA_RAW for size in sizes_of(blocks))


def sizes_of(blocks: bytes) -> tuple[int, ...]:
    """A file's list of block sizes, with the flag for raw ones."""
    return struct.unpack(f"<{len(blocks) // 4}I", blocks)


def _checked(image: Image, start: int, length: int) -> tuple[int, int]:
    if start < SUPERBLOCK.size or start + length > image.data_end:
        raise damaged("A file's data lie outside the image.")
    return start, start + length


def find_twins(root: Node, images: Sequence[Image]) -> Twins:
    """The blocks that lie in `images` more than once: for each but the first, where that is.

    Wheels of different packages carry the same libraries. Files whose blocks are as long, each of
    them, are compared by the hash of their compressed bytes, if nothing tells them apart before.
    Blocks that files share in part are left as they are.
    """
    alike: dict[bytes, set[Place]] = defaultdict(set)
    ranges: dict[Image, set[tuple[int, int]]] = defaultdict(set)
    for node in files_below(root):
        if any(node.blocks):
            assert node.image is not None
            alike[node.blocks].add((node.image, node.start))
            ranges[node.image].add((node.start, node.start + packed_bytes(node.blocks)))
    order = {image: number for number, image in enumerate(images)}
    alone = {image: _without_overlap(found) for image, found in ranges.items()}
    twins: Twins = {}
    for blocks, places in alike.items():
        if _may_be_twins(places):
            length = packed_bytes(blocks)
            firsts: dict[bytes, Place] = {}
            for image, start in sorted(places, key=lambda place: (order[place[0]], place[1])):
                first = firsts.setdefault(_digest(image, start, length), (image, start))
                if first != (image, start) and (start, start + length) in alone[image]:
                    twins[image, start] = first, length
    return twins


def _may_be_twins(places: set[Place]) -> bool:
    """Not where there is one place only, or where the CRC-32 of all are known and different."""
    checks = {image.checks_at(start) for image, start in places}
    return len(places) > 1 and (None in checks or len(checks) < len(places))


def _without_overlap(ranges: set[tuple[int, int]]) -> set[tuple[int, int]]:
    alone: set[tuple[int, int]] = set()
    farthest = (0, 0)
    for start, end in sorted(ranges):
        if start < farthest[1]:
            alone.discard(farthest)
        else:
            alone.add((start, end))
        farthest = max(farthest, (start, end), key=lambda one: one[1])
    return alone


def _digest(image: Image, start: int, length: int) -> bytes:
    digest = sha256()
    for at in range(0, length, READ_BYTES):
        digest.update(image.read_at(start + at, min(READ_BYTES, length - at)))
    return digest.digest()
