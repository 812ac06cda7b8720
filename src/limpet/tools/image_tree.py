"""All files of an image by path, without starting or unpacking it: SIF, squashfs or sandbox."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from limpet.core.contents import Layer
from limpet.core.errors import ImageError
from limpet.core.seen import ImageSeen
from limpet.formats.sif import overlay_partitions, read_sif, root_partition
from limpet.formats.squashfs import Squashfs

Read = Callable[[int], bytes]  # at most so many bytes of a file


@dataclass
class Tree:
    """Regular files with their unpacked sizes; a hard link counts where its first name is.

    `links` are the symbolic links in the root folder (`lib` → `usr/lib`), by which package lists
    name files.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    _readers: dict[str, Read] = field(default_factory=dict)

    def read(self, path: str, limit_bytes: int) -> bytes:
        """A file's first bytes; empty where it is none."""
        reader = self._readers.get(path)
        return reader(limit_bytes) if reader else b""

    def real_path(self, path: str) -> str:
        """The path with a link at the top followed."""
        top, slash, rest = path.partition("/")
        return f"{self.links[top]}/{rest}" if slash and top in self.links else path

    def add(self, path: str, size_bytes: int, read: Read) -> None:
        self.sizes[path] = size_bytes
        self._readers[path] = read

    def remove(self, hidden: set[str]) -> None:
        """What a later layer hides: files, and folders with all in them."""
        for path in list(self.sizes) if hidden else ():
            if path in hidden or any(path[:at] in hidden for at in _slashes(path)):
                del self.sizes[path], self._readers[path]


@contextmanager
def open_tree(image: ImageSeen) -> Iterator[Tree]:
    """The tree of an image; its files can be read until the end of the block.

    ImageError where the image is damaged, or of a kind that limpet cannot look into.
    """
    path, tree = Path(image.path), Tree()
    if image.kind == "sandbox":
        _add_folder(tree, path)
        yield tree
        return
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        if image.kind == "squashfs":
            offsets = [("root", 0)]
        else:
            sif = read_sif(file)
            offsets = [("root", root_partition(sif).offset)]
            offsets += [("layer", item.offset) for item in overlay_partitions(sif)]
        for number, (kind, offset) in enumerate(offsets):
            name = f"{kind} {number}" if kind == "layer" else kind
            try:
                _add_squashfs(tree, Squashfs(file, offset), name)
            except RecursionError as error:
                raise ImageError(f"{path}: its folders cannot be followed.") from error
        yield tree


def _add_squashfs(tree: Tree, squashfs: Squashfs, name: str) -> None:
    seen: set[int] = set()
    hidden: set[str] = set()
    members: dict[str, tuple[int, Read]] = {}
    size_bytes = 0
    for path, node in squashfs.walk():
        if node.is_file:
            first = id(node) not in seen
            seen.add(id(node))
            size = node.size_bytes if first else 0
            size_bytes += size
            members[path] = (size, partial(squashfs.read, node))
        elif node.is_symlink and "/" not in path:
            tree.links[path] = node.target.strip("/")
        elif node.kind == "char" and node.rdev == 0:  # overlayfs's mark for what is gone
            hidden.add(path)
    tree.remove(hidden)
    for path, (size, read) in members.items():
        tree.add(path, size, read)
    packed = squashfs.superblock.bytes_used
    layer = Layer(name=name, packed_bytes=packed, size_bytes=size_bytes, files=len(members))
    tree.layers.append(layer)


def _slashes(path: str) -> Iterator[int]:
    at = path.find("/")
    while at >= 0:
        yield at
        at = path.find("/", at + 1)


def _add_folder(tree: Tree, root: Path) -> None:
    seen: set[tuple[int, int]] = set()
    for above, _, names in os.walk(root):
        for name in names:
            path = Path(above, name)
            try:
                status = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                place = (status.st_dev, status.st_ino)
                size = 0 if place in seen else status.st_size
                seen.add(place)
                tree.add(os.path.relpath(path, root), size, partial(_read_file, path))
    for entry in root.iterdir():
        if entry.is_symlink():
            tree.links[entry.name] = str(entry.readlink()).strip("/")
    total = sum(tree.sizes.values())
    layer = Layer(name="folder", packed_bytes=total, size_bytes=total, files=len(tree.sizes))
    tree.layers.append(layer)


def _read_file(path: Path, limit_bytes: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(limit_bytes)
