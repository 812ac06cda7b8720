"""Reads a packed folder back from its image and compares it, file by file, with what was seen.

What a file's content was, is known by the sha256 that was taken of the bytes that were read. What
became of these very bytes, is known from when they were compressed: the sizes and CRC-32 of their
blocks. A block that files share was decoded again then, and each of them was at its place in it
(`write_data(decodes=True)`); of a larger file's it is taken for granted that zstd gives back what
it was given. So a file is in the image if its inode, read from there, names these blocks and its
place in them, and if what is read from the image where they lie has their CRC-32.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Self
from zlib import crc32

from limpet.core.errors import ImageError
from limpet.core.prefix import Content, Seen, image_mode
from limpet.formats.squashfs import Node, Squashfs, Written
from limpet.formats.squashfs.contents import sizes_of
from limpet.formats.squashfs.layout import DATA_RAW, DIR, FILE, NO_FRAGMENT, SYMLINK

RUN_BLOCKS = 64  # that one task reads

Run = tuple[int, "array[int]", "array[int]"]  # where blocks start, their sizes, their CRC-32


class ReadBack:
    """The data of an image on their way back from the disk, read in threads from now on."""

    def __init__(self, image: BinaryIO, written: Written) -> None:
        self._descriptor = image.fileno()
        self._written = written
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self._tasks: list[Future[list[int]]] = [
            self._pool.submit(self._read, *run) for run in _runs(written)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def wrong(self) -> frozenset[int]:
        """Where blocks lie that are not as they were written; waits for all to be read."""
        return frozenset(place for task in self._tasks for place in task.result())

    def _read(self, start: int, sizes: Sequence[int], checks: Sequence[int]) -> list[int]:
        length = sum(size & ~DATA_RAW for size in sizes)
        data = os.pread(self._descriptor, length, self._written.offset + start)
        if len(data) != length:
            raise ImageError("The image that was written is cut off.")
        view = memoryview(data)
        wrong: list[int] = []
        at = 0
        for size, check in zip(sizes, checks, strict=True):
            end = at + (size & ~DATA_RAW)
            if crc32(view[at:end]) != check:
                wrong.append(start + at)
            at = end
        return wrong


def _runs(written: Written) -> Iterator[Run]:
    """The blocks as they lie, some at a time."""
    start = written.data_start
    for at in range(0, len(written.sizes), RUN_BLOCKS):
        sizes = written.sizes[at : at + RUN_BLOCKS]
        yield start, sizes, written.block_checks[at : at + RUN_BLOCKS]
        start += sum(size & ~DATA_RAW for size in sizes)


def verify_tree(
    image: Squashfs,
    place: str,
    seen: Sequence[Seen],
    contents: Mapping[str, Content],
    left_out: frozenset[str],
    written: Written,
    wrong_blocks: frozenset[int],
) -> tuple[str, ...]:
    """What is not in the image as it was in the folder, in words; empty where all is.

    Compared are type, mode, size, device number, link target, hard links, and of every file's
    content which blocks hold it and where in them. `wrong_blocks` are those that `ReadBack` found.
    """
    wrong: list[str] = []
    stored = _Stored(image, written, wrong_blocks)
    inodes: dict[tuple[int, int], Node] = {}
    top = image.find(place, follow=True)
    folders: dict[str, Node] = {}  # those of the image, by their path
    above, names = "", dict[bytes, Node]()
    for one in seen:
        path = one.path
        folder, _, name = path.rpartition("/")
        if folder != above or not names:
            above = folder
            names = folders[folder].children if folder in folders else {}
        node = names.get(name.encode("utf-8", "surrogateescape")) if path else top
        if path in left_out:
            continue
        if node is None:
            wrong.append(f"{path} is not in the image")
            continue
        if node.type == DIR:
            folders[path] = node
        if difference := _difference(one, node, inodes):
            wrong.append(f"{path} has another {difference}")
        elif node.type == FILE and not stored.holds(node, contents[path].written):
            wrong.append(f"{path} has another content")
    return tuple(wrong)


class _Stored:
    """Which blocks of the image hold which content."""

    def __init__(self, image: Squashfs, written: Written, wrong: frozenset[int]) -> None:
        self._fragments = [image.fragment_at(number) for number in range(image.fragment_count)]
        self._written = written
        self._wrong = wrong

    def holds(self, node: Node, digest: bytes) -> bool:
        """Whether a file of the image has the content of this sha256."""
        written = self._written
        content = written.contents.get(digest)
        if content is None or node.size_bytes != content.size_bytes:
            return False
        if content.fragment != NO_FRAGMENT:
            if node.fragment == NO_FRAGMENT or node.blocks or node.offset != content.offset:
                return False
            block = self._fragments[node.fragment]
            return block == written.fragments[content.fragment] and block[0] not in self._wrong
        if node.fragment != NO_FRAGMENT or node.blocks != content.sizes.tobytes():
            return False
        # The same blocks may have been written twice, and one of the two be in use.
        if node.start != content.start and (
            written.checks_at(node.start) != content.checks.tobytes()
        ):
            return False
        return not (self._wrong and any(at in self._wrong for at in _places(node)))


def _places(node: Node) -> Iterator[int]:
    """Where the blocks of a file lie that are stored: not those that hold nothing but zeros."""
    position = node.start
    for size in sizes_of(node.blocks):
        if size:
            yield position
            position += size & ~DATA_RAW


def _difference(one: Seen, node: Node, inodes: dict[tuple[int, int], Node]) -> str:
    mode = one.mode
    if stat.S_ISREG(mode):
        if node.type != FILE:
            return "type"
        if node.size_bytes != one.size_bytes:
            return "size"
        # Byte code that one name has a source for and the other has not, may be two files.
        first = inodes.setdefault((one.device, one.inode), node) if one.links > 1 else node
        if first is not node and not one.path.endswith(".pyc"):
            return "inode than the name that it is a hard link to"
    elif stat.S_ISLNK(mode):
        return "" if node.type == SYMLINK and node.target == one.target else "target"
    elif stat.S_ISDIR(mode) != (node.type == DIR) or (one.is_special and node.rdev != one.rdev):
        return "type"
    return "mode" if node.mode != image_mode(mode) else ""


def open_partition(file: BinaryIO, layout: str, read: Squashfs) -> Squashfs:
    """The partition of a finished SIF that holds what was packed.

    It is `read`, whose tables were read back already, if the SIF says that it lies there.
    """
    from limpet.formats.sif import overlay_partitions, read_sif, root_partition

    sif = read_sif(file)
    part = overlay_partitions(sif)[-1] if layout == "layered" else root_partition(sif)
    return read if read.offset == part.offset else Squashfs(file, part.offset)
