"""Reads a packed folder back from its image and compares it, file by file, with what was seen.

What a file's content was, is known by the sha256 that was taken of the bytes that were read. What
became of these very bytes, is known from when they were compressed: the size and the CRC-32 of each
block, and the place in a block of small files. So a file is in the image if its inode names blocks
of these sizes, what is read from the image at their places has these CRC-32, and its place in the
last one is the same. What is taken for granted is that zstd gives back what it was given.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import unpack
from typing import TYPE_CHECKING, BinaryIO
from zlib import crc32

from limpet.core.errors import ImageError
from limpet.core.prefix import Content, Seen, image_mode
from limpet.formats.squashfs import Node, Squashfs, Written
from limpet.formats.squashfs.layout import DATA_RAW, NO_FRAGMENT

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

TASK_BYTES = 4 << 20

Block = tuple[int, int]  # where it lies, and its size with the flag for raw ones


def verify_tree(
    image: Squashfs,
    place: str,
    seen: Sequence[Seen],
    contents: Mapping[str, Content],
    left_out: frozenset[str],
    written: Written,
) -> tuple[str, ...]:
    """What is not in the image as it was in the folder, in words; empty where all is.

    Compared are type, mode, size, device number, link target, hard links, and of every file's
    content each block as it is stored, read from the image, with what it was compressed to.
    """
    from concurrent.futures import ThreadPoolExecutor

    wrong: list[str] = []
    wanted: list[tuple[str, Node]] = []
    inodes: dict[tuple[int, int], Node] = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        blocks = _Blocks(image, pool)
        nodes = _nodes(image, place)
        for one in seen:
            node = nodes.get(one.path)
            if one.path in left_out:
                continue
            if node is None:
                wrong.append(f"{one.path} is not in the image")
            elif difference := _difference(one, node, inodes):
                wrong.append(f"{one.path} has another {difference}")
            elif one.is_file:
                wanted.append((one.path, node))
        checks = blocks.checks(node for _, node in wanted)
    for path, node in wanted:
        if not _is_stored(node, image, checks, written, contents[path].written):
            wrong.append(f"{path} has another content")
    return tuple(wrong)


def _is_stored(
    node: Node, image: Squashfs, checks: Mapping[Block, int], written: Written, sha256: bytes
) -> bool:
    """Whether a file of an image has the blocks that content of this hash was compressed to."""
    content = written.contents.get(sha256)
    if content is None or node.size_bytes != content.size_bytes:
        return False
    if node.blocks != content.sizes.tobytes():
        return False
    if node.blocks and [checks[block] for block in _blocks(node)] != [
        check for size, check in zip(content.sizes, content.checks, strict=True) if size
    ]:
        return False
    if content.fragment == NO_FRAGMENT or node.fragment == NO_FRAGMENT:
        return content.fragment == node.fragment
    fragment = written.fragments[content.fragment]
    block = image.fragment_at(node.fragment)
    return (block[1], checks[block], node.offset) == (fragment.size, fragment.check, content.offset)


def _blocks(node: Node) -> Iterator[Block]:
    """The blocks of a file that are stored: not those that hold nothing but zeros."""
    position = node.start
    for size in unpack(f"<{len(node.blocks) // 4}I", node.blocks):
        if size:
            yield position, size
            position += size & ~DATA_RAW


class _Blocks:
    """Blocks as they are stored in an image, read in threads."""

    def __init__(self, image: Squashfs, pool: ThreadPoolExecutor) -> None:
        self._image = image
        self._pool = pool
        self._descriptor = image.file.fileno()

    def checks(self, nodes: Iterable[Node]) -> dict[Block, int]:
        """The CRC-32 of each block of these files, the blocks that hold their tails among them."""
        image = self._image
        found: set[Block] = set()
        fragments: set[int] = set()
        for node in nodes:
            if node.blocks:
                found.update(_blocks(node))
            fragments.add(node.fragment)
        fragments.discard(NO_FRAGMENT)
        found.update(image.fragment_at(number) for number in fragments)
        tasks = [self._pool.submit(self._read, run) for run in _runs(sorted(found))]
        return {block: check for task in tasks for block, check in task.result()}

    def _read(self, blocks: Sequence[Block]) -> list[tuple[Block, int]]:
        start = blocks[0][0]
        end = max(position + (size & ~DATA_RAW) for position, size in blocks)
        data = memoryview(os.pread(self._descriptor, end - start, self._image.offset + start))
        if len(data) != end - start:
            raise ImageError("The image that was written is cut off.")
        return [
            ((at, size), crc32(data[at - start : at - start + (size & ~DATA_RAW)]))
            for at, size in blocks
        ]


def _runs(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Blocks that lie side by side, some million bytes at a time."""
    run: list[Block] = []
    for block in blocks:
        if run and (
            block[0] != run[-1][0] + (run[-1][1] & ~DATA_RAW) or block[0] - run[0][0] >= TASK_BYTES
        ):
            yield run
            run = []
        run.append(block)
    if run:
        yield run


def _nodes(image: Squashfs, place: str) -> dict[str, Node]:
    top = image.find(place, follow=True)
    found = {"": top} if top is not None else {}
    stack = [("", top)] if top is not None and top.is_dir else []
    while stack:
        above, folder = stack.pop()
        for name, node in folder.children.items():
            path = above + name.decode("utf-8", "surrogateescape")
            found[path] = node
            if node.is_dir:
                stack.append((f"{path}/", node))
    return found


def _difference(one: Seen, node: Node, inodes: dict[tuple[int, int], Node]) -> str:
    if one.is_file:
        if not node.is_file:
            return "type"
        if node.size_bytes != one.size_bytes:
            return "size"
        # Byte code that one name has a source for and the other has not, may be two files.
        first = inodes.setdefault((one.device, one.inode), node) if one.links > 1 else node
        if first is not node and not one.path.endswith(".pyc"):
            return "inode than the name that it is a hard link to"
    elif one.is_link:
        if not node.is_symlink or node.target != one.target:
            return "target"
        return ""
    elif one.is_folder != node.is_dir or (one.is_special and node.rdev != one.rdev):
        return "type"
    return "mode" if node.mode != image_mode(one.mode) else ""


def open_partition(file: BinaryIO, layout: str) -> Squashfs:
    """The partition of an open SIF that holds what was packed."""
    from limpet.formats.sif import overlay_partitions, read_sif, root_partition

    sif = read_sif(file)
    part = overlay_partitions(sif)[-1] if layout == "layered" else root_partition(sif)
    return Squashfs(file, part.offset)
