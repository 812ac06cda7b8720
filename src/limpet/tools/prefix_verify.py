"""Reads a packed folder back from its image and compares it, file by file, with what was seen.

What a file's content was, is known by the sha256 that was taken of the bytes that were read. What
became of these very bytes, is known from when they were compressed: the size and the CRC-32 of each
block. So a large file is in the image if its inode names blocks of these sizes, and what is read
from the image at their places has these CRC-32; that zstd gives back what it was given is taken for
granted. A small file shares its block with others: that is decompressed, and what lies at the
file's place in it has its sha256.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
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
Tail = tuple[int, int, int]  # a shared block's number, and a small file's place and size in it


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
    content, read from the image, each block as it is stored with what it was compressed to; of
    files that share a block, the sha256.
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
        tails = blocks.tails(node for _, node in wanted)
    for path, node in wanted:
        if not _is_stored(node, checks, tails, written, contents[path].written):
            wrong.append(f"{path} has another content")
    return tuple(wrong)


def _is_stored(
    node: Node,
    checks: Mapping[Block, int],
    tails: Mapping[Tail, bytes],
    written: Written,
    digest: bytes,
) -> bool:
    """Whether a file of an image has the content of this sha256, or what it was compressed to."""
    if node.fragment != NO_FRAGMENT:
        return not node.blocks and tails[_tail(node)] == digest
    content = written.contents.get(digest)
    if content is None or content.fragment != NO_FRAGMENT:
        return False
    if node.size_bytes != content.size_bytes or node.blocks != content.sizes.tobytes():
        return False
    return [checks[block] for block in _blocks(node)] == [
        check for size, check in zip(content.sizes, content.checks, strict=True) if size
    ]


def _tail(node: Node) -> Tail:
    return node.fragment, node.offset, node.size_bytes


def _blocks(node: Node) -> Iterator[Block]:
    """The blocks of a file that are stored: not those that hold nothing but zeros."""
    position = node.start
    for size in unpack(f"<{len(node.blocks) // 4}I", node.blocks):
        if size:
            yield position, size
            position += size & ~DATA_RAW


class _Blocks:
    """Blocks of an image, read in threads."""

    def __init__(self, image: Squashfs, pool: ThreadPoolExecutor) -> None:
        self._image = image
        self._pool = pool
        self._descriptor = image.file.fileno()

    def checks(self, nodes: Iterable[Node]) -> dict[Block, int]:
        """The CRC-32 of each block of these files, as it is stored; not of those they share."""
        found: set[Block] = set()
        for node in nodes:
            if node.blocks:
                found.update(_blocks(node))
        tasks = [self._pool.submit(self._read_checks, run) for run in _runs(sorted(found))]
        return {block: check for task in tasks for block, check in task.result()}

    def tails(self, nodes: Iterable[Node]) -> dict[Tail, bytes]:
        """The sha256 of what is in the blocks that files share, at each of these files' places."""
        found: dict[int, set[Tail]] = defaultdict(set)
        for node in nodes:
            if node.fragment != NO_FRAGMENT:
                found[node.fragment].add(_tail(node))
        tasks = [
            self._pool.submit(self._read_tails, self._image.fragment_at(number), tails)
            for number, tails in found.items()
        ]
        return {tail: digest for task in tasks for tail, digest in task.result()}

    def _read_tails(self, block: Block, tails: Iterable[Tail]) -> list[tuple[Tail, bytes]]:
        position, size = block
        data = self._read(position, position + (size & ~DATA_RAW))
        image = self._image
        try:
            plain = data if size & DATA_RAW else image.codec.decompress(data, image.block_size)
        except ImageError:  # what is no block holds no file: they are told one by one
            plain = b""
        view = memoryview(plain)
        return [(tail, sha256(view[tail[1] : tail[1] + tail[2]]).digest()) for tail in tails]

    def _read(self, start: int, end: int) -> bytes:
        data = os.pread(self._descriptor, end - start, self._image.offset + start)
        if len(data) != end - start:
            raise ImageError("The image that was written is cut off.")
        return data

    def _read_checks(self, blocks: Sequence[Block]) -> list[tuple[Block, int]]:
        start = blocks[0][0]
        end = max(position + (size & ~DATA_RAW) for position, size in blocks)
        data = memoryview(self._read(start, end))
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
