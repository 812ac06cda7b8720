"""Reads a packed folder back from its image and compares it, file by file, with what was seen."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import BinaryIO

from limpet.core.errors import ImageError
from limpet.core.prefix import Content, Seen, image_mode
from limpet.formats.squashfs import Node, Squashfs
from limpet.formats.squashfs.layout import DATA_RAW, NO_FRAGMENT

TASK_BYTES = 4 << 20

Wanted = tuple[str, Node, bytes]  # a path for people, its node, the sha256 that it must have


def verify_tree(
    image: Squashfs,
    place: str,
    seen: Sequence[Seen],
    contents: Mapping[str, Content],
    left_out: frozenset[str],
) -> tuple[str, ...]:
    """What is not in the image as it was in the folder, in words; empty where all is.

    Compared are type, mode, size, device number, link target, hard links, and the sha256 of every
    file's content, which is read from the image and decompressed for it.
    """
    wrong: list[str] = []
    wanted: list[Wanted] = []
    inodes: dict[tuple[int, int], Node] = {}
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
            wanted.append((one.path, node, contents[one.path].written))
    wrong += [f"{path} has another content" for path in _wrong_contents(image, wanted)]
    return tuple(wrong)


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


def _wrong_contents(image: Squashfs, wanted: Sequence[Wanted]) -> Iterator[str]:
    """Decompresses and hashes in threads; each block of small files is decompressed once."""
    from concurrent.futures import ThreadPoolExecutor

    reader = _Reader(image)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for paths in pool.map(reader.wrong_in, _tasks(wanted)):
            yield from paths


def _tasks(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Files together that share a block; other small ones by the million bytes."""
    shared: dict[int, list[Wanted]] = {}
    batch: list[Wanted] = []
    size_bytes = 0
    for one in wanted:
        node = one[1]
        if not node.blocks and node.fragment != NO_FRAGMENT:
            shared.setdefault(node.fragment, []).append(one)
            continue
        batch.append(one)
        size_bytes += node.size_bytes
        if size_bytes >= TASK_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
    yield from shared.values()


class _Reader:
    """Reads blocks by their place, from any thread."""

    def __init__(self, image: Squashfs) -> None:
        self._image = image
        self._descriptor = image.file.fileno()
        image.ids, image.fragment_count and image.fragment_at(0)  # read by this thread

    def wrong_in(self, files: Sequence[Wanted]) -> list[str]:
        block = b""
        last = NO_FRAGMENT
        wrong = []
        for path, node, digest in files:
            if not node.blocks and node.fragment != NO_FRAGMENT:
                if node.fragment != last:
                    block, last = (
                        self._plain(*self._image.fragment_at(node.fragment)),
                        node.fragment,
                    )
                found = sha256(memoryview(block)[node.offset : node.offset + node.size_bytes])
                if found.digest() != digest:
                    wrong.append(path)
            elif self._hash(node) != digest:
                wrong.append(path)
        return wrong

    def _hash(self, node: Node) -> bytes:
        digest = sha256()
        position, left = node.start, node.size_bytes
        for at in range(0, len(node.blocks), 4):
            size = int.from_bytes(node.blocks[at : at + 4], "little")
            length = min(left, self._image.block_size)
            plain = self._plain(position, size) if size else bytes(length)
            digest.update(plain[:length])
            position += size & ~DATA_RAW
            left -= length
        if left and node.fragment != NO_FRAGMENT:
            plain = self._plain(*self._image.fragment_at(node.fragment))
            digest.update(plain[node.offset : node.offset + left])
        return digest.digest()

    def _plain(self, position: int, size: int) -> bytes:
        stored = size & ~DATA_RAW
        data = os.pread(self._descriptor, stored, self._image.offset + position)
        if len(data) != stored:
            raise ImageError("The image that was written is cut off.")
        return (
            data if size & DATA_RAW else self._image.codec.decompress(data, self._image.block_size)
        )


def open_partition(file: BinaryIO, layout: str) -> Squashfs:
    """The partition of an open SIF that holds what was packed."""
    from limpet.formats.sif import overlay_partitions, read_sif, root_partition

    sif = read_sif(file)
    part = overlay_partitions(sif)[-1] if layout == "layered" else root_partition(sif)
    return Squashfs(file, part.offset)
