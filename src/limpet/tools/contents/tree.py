"""All files of an image as one tree, read from its file or folder; nothing is started.

Layers lie over the base as the runtime lays them. No link is followed out of the image.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from limpet.core.errors import ImageError
from limpet.core.seen import ImageSeen
from limpet.formats import sif
from limpet.formats.squashfs import Node, Squashfs
from limpet.formats.squashfs.layout import DATA_RAW, NO_FRAGMENT

MOST_FILES = 3_000_000
_LINK_LIMIT = 40
_CACHED_BLOCKS = 8


class Member:
    """A file, folder or link of an image. `key` is the same for hard links."""

    __slots__ = ("_open", "key", "kind", "mode", "mtime", "size_bytes", "target")

    def __init__(
        self,
        kind: str,
        size_bytes: int,
        mode: int,
        mtime: int,
        key: object,
        target: str = "",
        opened: Callable[[], BinaryIO] | None = None,
    ) -> None:
        self.kind = kind
        self.size_bytes = size_bytes
        self.mode = mode
        self.mtime = mtime
        self.key = key
        self.target = target
        self._open = opened

    def open(self) -> BinaryIO:
        """A stream of a file's content that can be sought in."""
        if self._open is None:
            raise ImageError(f"A {self.kind} in an image has no content to read.")
        return self._open()

    def start(self, limit_bytes: int) -> bytes:
        """Its first bytes."""
        with self.open() as file:
            return file.read(limit_bytes)


class ImageTree:
    """Members by their path without a leading slash; parents come before children."""

    def __init__(self, members: dict[str, Member]) -> None:
        self.members = members
        self.troubles: list[str] = []
        self._children: dict[str, list[str]] = {}
        for path in members:
            if path:
                folder, _, name = path.rpartition("/")
                self._children.setdefault(folder, []).append(name)

    def find(self, path: str) -> tuple[str, Member] | None:
        """The true path and the member at a path, through links, never out of the image."""
        rest = [part for part in path.split("/") if part]
        at: list[str] = []
        links = 0
        while rest:
            part = rest.pop(0)
            if part == "..":
                del at[-1:]
                continue
            if part == ".":
                continue
            member = self.members.get("/".join((*at, part)))
            if member is None:
                return None
            if member.kind == "symlink":
                links += 1
                if links > _LINK_LIMIT:
                    return None
                at = [] if member.target.startswith("/") else at
                rest = [p for p in member.target.split("/") if p] + rest
            else:
                at.append(part)
        name = "/".join(at)
        found = self.members.get(name)
        return (name, found) if found else None

    def read_start(self, path: str, limit_bytes: int) -> bytes:
        """The start of a file; empty where there is none, or where it is damaged (`troubles`)."""
        found = self.find(path)
        if found is None or found[1].kind != "file":
            return b""
        try:
            return found[1].start(limit_bytes)
        except (ImageError, OSError) as error:
            self.troubles.append(f"/{found[0]}: {getattr(error, 'why', '') or error}")
            return b""

    def read_text(self, path: str, limit_bytes: int = 1 << 20) -> str:
        """The same as text."""
        return self.read_start(path, limit_bytes).decode("utf-8", "replace")

    def below(self, folder: str) -> Iterator[tuple[str, Member]]:
        """All that lies below a folder (its true path), parents first."""
        stack = [folder]
        while stack:
            at = stack.pop()
            for name in self._children.get(at, ()):
                path = f"{at}/{name}" if at else name
                yield path, self.members[path]
                stack.append(path)

    def names(self, folder: str) -> list[str]:
        """The names in a folder, found through links."""
        found = self.find(folder)
        return self._children.get(found[0], []) if found else []


@contextlib.contextmanager
def opened_tree(image: ImageSeen) -> Iterator[ImageTree]:
    """The tree of an image, which stays open for the time of the block."""
    path = Path(image.path)
    if image.kind == "sandbox":
        yield ImageTree(dict(_walk_sandbox(path)))
        return
    with path.open("rb") as file:
        offsets = [0]
        if image.kind == "sif":
            found = sif.read_sif(file)
            parts = (sif.root_partition(found), *sif.overlay_partitions(found))
            offsets = [part.offset for part in parts]
        members: dict[str, Member] = {}
        try:
            for offset in offsets:
                _lay_over(members, Squashfs(file, offset))
        except ImageError as error:
            raise ImageError(f"{path}: {error.what}", why=error.why, now=error.now) from error
        yield ImageTree(members)


def _lay_over(members: dict[str, Member], image: Squashfs) -> None:
    for path, node in image.walk():
        if len(members) > MOST_FILES:
            raise ImageError(f"There are more than {MOST_FILES} files in it.")
        before = members.get(path)
        hidden = node.kind == "char" and node.rdev == 0
        if before and before.kind == "dir" and not node.is_dir:
            for below in [p for p in members if p.startswith(f"{path}/")]:
                del members[below]
        if hidden:
            members.pop(path, None)
        else:
            members[path] = _member(image, node)


def _member(image: Squashfs, node: Node) -> Member:
    opened = None
    if node.is_file:
        opened = lambda: cast(BinaryIO, io.BufferedReader(_Blocks(image, node), 1 << 16))  # noqa: E731
    target = node.target if node.is_symlink else ""
    return Member(
        node.kind, node.size_bytes, node.mode, node.mtime, node, target=target, opened=opened
    )


class _Blocks(io.RawIOBase):
    """A file in an image that can be sought in: only the blocks that are read are unpacked."""

    def __init__(self, image: Squashfs, node: Node) -> None:
        self._image = image
        self._node = node
        self._at = 0
        self._kept: dict[int, bytes] = {}
        self._sizes = memoryview(node.blocks).cast("I") if node.blocks else memoryview(b"")
        self._starts = [node.start]
        for size in self._sizes:
            self._starts.append(self._starts[-1] + (int(size) & ~DATA_RAW))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._at, self._node.size_bytes)[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._at >= self._node.size_bytes:
            return 0
        number, inside = divmod(self._at, self._image.block_size)
        block = self._block(number)
        count = min(len(buffer), len(block) - inside)
        buffer[:count] = block[inside : inside + count]
        self._at += count
        return count

    def _block(self, number: int) -> bytes:
        if number not in self._kept:
            while len(self._kept) >= _CACHED_BLOCKS:
                del self._kept[next(iter(self._kept))]
            self._kept[number] = self._unpack(number)
        return self._kept[number]

    def _unpack(self, number: int) -> bytes:
        image, node = self._image, self._node
        expected = min(image.block_size, node.size_bytes - number * image.block_size)
        if number < len(self._sizes):
            size = int(self._sizes[number])
            if not size:
                return bytes(expected)
            return image.read_block(self._starts[number], size, expected)[:expected]
        if node.fragment == NO_FRAGMENT:
            raise ImageError("A file in an image is shorter than it says.")
        start, size = image.fragment_at(node.fragment)
        end = node.offset + expected
        return image.read_block(start, size, end)[node.offset : end]


def _walk_sandbox(root: Path) -> Iterator[tuple[str, Member]]:
    stack = [""]
    while stack:
        folder = stack.pop()
        with contextlib.suppress(OSError), os.scandir(root / folder) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                path = posixpath.join(folder, entry.name)
                member = _sandbox_member(entry)
                yield path, member
                if member.kind == "dir":
                    stack.append(path)


def _sandbox_member(entry: os.DirEntry[str]) -> Member:
    status = entry.stat(follow_symlinks=False)
    kinds = ((stat.S_ISDIR, "dir"), (stat.S_ISREG, "file"), (stat.S_ISLNK, "symlink"))
    kind = next((name for test, name in kinds if test(status.st_mode)), "other")
    place = Path(entry.path)
    target = os.readlink(place) if kind == "symlink" else ""  # noqa: PTH115 - text
    opened = (lambda: cast(BinaryIO, place.open("rb"))) if kind == "file" else None
    key = (status.st_dev, status.st_ino)
    mode, mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    return Member(kind, status.st_size, mode, mtime, key, target=target, opened=opened)
