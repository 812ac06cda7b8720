"""What one tree has that another has not: the files of an image that are not its base's."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from limpet.formats.squashfs.layout import DATA_RAW, NO_FRAGMENT
from limpet.formats.squashfs.model import Node
from limpet.formats.squashfs.read import Squashfs

COMPARE_BYTES = 1 << 20
Tree = dict[str, Node]


def read_tree(images: Sequence[Squashfs], passed_over: Callable[[str], bool]) -> Tree:
    """Path → node of images laid over each other as overlayfs does, parents first.

    A character device 0/0 in an upper image hides what lies below it.
    """
    tree: Tree = {}
    for number, image in enumerate(images):
        for path, node in image.walk():
            if not path or passed_over(path):
                continue
            if number and node.kind == "char" and node.rdev == 0:
                _remove(tree, path)
                continue
            have = tree.get(path)
            if number and have is not None and have.is_dir and not node.is_dir:
                _remove(tree, path)
            tree[path] = node
    return tree


def _remove(tree: Tree, path: str) -> None:
    below = f"{path}/"
    for name in [name for name in tree if name == path or name.startswith(below)]:
        del tree[name]


def find_changes(base: Tree, tree: Tree) -> Iterator[tuple[str, Node | None]]:
    """What to lay over `base` to have `tree`: a path's node, or None where it is gone.

    Owners and times are not compared: a base that was unpacked by a plain user has lost both. The
    folders on the way to a change are among the changes, each before what is in it.
    """
    same = Comparison().is_same
    gone = (path for path in base if path not in tree)
    wanted = {path for path in gone if _is_folder(tree, _parent(path))}
    wanted |= {path for path, node in tree.items() if not same(base.get(path), node)}
    for path in tuple(wanted):
        while (path := _parent(path)) and path not in wanted:
            wanted.add(path)
    for path in sorted(wanted):
        yield path, tree.get(path)


def _is_folder(tree: Tree, path: str) -> bool:
    return not path or (path in tree and tree[path].is_dir)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


class Comparison:
    """Compares compressed data as they lie, and only where those differ what they hold."""

    def __init__(self) -> None:
        self._fragments: dict[tuple[Squashfs, int, Squashfs, int], bool] = {}

    def is_same(self, one: Node | None, other: Node) -> bool:
        if one is None or one.type != other.type or one.mode != other.mode:
            return False
        if other.is_symlink:
            return one.link == other.link
        if not other.is_file:
            return one.rdev == other.rdev
        return self.has_same_content(one, other)

    def has_same_content(self, one: Node, other: Node) -> bool:
        """Whether two files of images hold the same bytes."""
        if one.size_bytes != other.size_bytes:
            return False
        return self._is_stored_alike(one, other) or _is_content_alike(one, other)

    def _is_stored_alike(self, one: Node, other: Node) -> bool:
        mine, theirs = one.image, other.image
        assert isinstance(mine, Squashfs)
        assert isinstance(theirs, Squashfs)
        if mine.codec is not theirs.codec or one.blocks != other.blocks:
            return False
        length = sum(size & ~DATA_RAW for (size,) in struct.iter_unpack("<I", one.blocks))
        return self._has_same_tail(one, other) and _is_range_alike(
            mine, one.start, theirs, other.start, length
        )

    def _has_same_tail(self, one: Node, other: Node) -> bool:
        if NO_FRAGMENT in (one.fragment, other.fragment):
            return one.fragment == other.fragment
        if one.offset != other.offset:
            return False
        mine, theirs = one.image, other.image
        assert isinstance(mine, Squashfs)
        assert isinstance(theirs, Squashfs)
        pair = (mine, one.fragment, theirs, other.fragment)
        if pair not in self._fragments:
            start, size = mine.fragment_at(one.fragment)
            at, theirs_size = theirs.fragment_at(other.fragment)
            self._fragments[pair] = size == theirs_size and _is_range_alike(
                mine, start, theirs, at, size & ~DATA_RAW
            )
        return self._fragments[pair]


def _is_range_alike(one: Squashfs, start: int, other: Squashfs, at: int, length: int) -> bool:
    for done in range(0, length, COMPARE_BYTES):
        count = min(COMPARE_BYTES, length - done)
        if one.read_at(start + done, count) != other.read_at(at + done, count):
            return False
    return True


def _is_content_alike(one: Node, other: Node) -> bool:
    assert isinstance(one.image, Squashfs)
    assert isinstance(other.image, Squashfs)
    with one.image.open(one) as mine, other.image.open(other) as theirs:
        while chunk := mine.read(COMPARE_BYTES):
            if theirs.read(len(chunk)) != chunk:
                return False
    return True
