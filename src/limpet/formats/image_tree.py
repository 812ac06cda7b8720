"""All files of an image as one tree, read from its file or folder; nothing is started.

Layers lie over the base as the runtime lays them. No link is followed out of the image.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from limpet.core.contents import Layer
from limpet.core.errors import ImageError
from limpet.core.seen import ImageSeen
from limpet.formats import sif
from limpet.formats.squashfs import Node, Squashfs
from limpet.formats.squashfs.seek import open_seekable

MOST_FILES = 3_000_000
_TOO_MANY = f"There are more than {MOST_FILES} files in it."
_LINK_LIMIT = 40


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
    """Members by their path without a leading slash, and the file systems that they are from.

    Parents come before children. `troubles` are files that could not be read so far.
    """

    def __init__(self, members: dict[str, Member], layers: Sequence[Layer]) -> None:
        self.members = members
        self.layers = tuple(layers)
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

    def files(self) -> Iterator[tuple[str, Member]]:
        """All regular files."""
        return ((path, one) for path, one in self.members.items() if one.kind == "file")

    def real_path(self, path: str) -> str:
        """A path as package lists have it (`lib/x`) as it is here: a link at the top is followed.

        Without a `find`, which takes its time: lists name hundreds of thousands of files.
        """
        if path in self.members:
            return path
        top, slash, rest = path.partition("/")
        link = self.members.get(top) if slash else None
        target = link.target.strip("/") if link and link.kind == "symlink" else ""
        return f"{target}/{rest}" if target else path

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
    """The tree of an image, which stays open for the time of the block.

    ImageError where the image is damaged, or of a kind that limpet cannot look into.
    """
    path = Path(image.path)
    if image.kind == "sandbox":
        members = dict(_walk_sandbox(path))
        yield ImageTree(members, [_layer("folder", members.values())])
        return
    with path.open("rb") as file:
        offsets = [0]
        if image.kind == "sif":
            found = sif.read_sif(file)
            parts = (sif.root_partition(found), *sif.overlay_partitions(found))
            offsets = [part.offset for part in parts]
        try:
            tree = merged_tree(Squashfs(file, offset) for offset in offsets)
        except ImageError as error:
            raise ImageError(f"{path}: {error.what}", why=error.why, now=error.now) from error
        yield tree


def merged_tree(file_systems: Iterable[Squashfs]) -> ImageTree:
    """The root file system and its layers as one tree; their file must stay open."""
    members: dict[str, Member] = {}
    layers = []
    for number, squashfs in enumerate(file_systems):
        added, gone = _read_layer(squashfs, members)
        layers.append(
            _layer(f"layer {number}" if number else "root", added.values(), squashfs.size_bytes)
        )
        _remove(members, gone)
        members |= added
        if len(members) > MOST_FILES:
            raise ImageError(_TOO_MANY)
    return ImageTree(members, layers)


def _read_layer(
    squashfs: Squashfs, below: Mapping[str, Member]
) -> tuple[dict[str, Member], set[str]]:
    """What a layer has, and what of the layers below it is gone: files, and folders with all."""
    added: dict[str, Member] = {}
    gone: set[str] = set()
    for path, node in squashfs.walk():
        if len(added) > MOST_FILES:
            raise ImageError(_TOO_MANY)
        if node.kind == "char" and node.rdev == 0:  # overlayfs's mark for what is gone
            gone.add(path)
            continue
        before = below.get(path)
        if before and before.kind == "dir" and not node.is_dir:
            gone.add(path)
        added[path] = _member(squashfs, node)
    return added, gone


def _remove(members: dict[str, Member], gone: set[str]) -> None:
    for path in list(members) if gone else ():
        if path in gone or any(path[: at.start()] in gone for at in re.finditer("/", path)):
            del members[path]


def _layer(name: str, members: Iterable[Member], packed_bytes: int | None = None) -> Layer:
    files = [member for member in members if member.kind == "file"]
    size = sum({member.key: member.size_bytes for member in files}.values())
    return Layer(
        name=name,
        packed_bytes=size if packed_bytes is None else packed_bytes,
        size_bytes=size,
        files=len(files),
    )


def _member(image: Squashfs, node: Node) -> Member:
    target = node.target if node.is_symlink else ""
    return Member(
        node.kind,
        node.size_bytes,
        node.mode,
        node.mtime,
        node,
        target=target,
        opened=partial(open_seekable, image, node) if node.is_file else None,
    )


def _walk_sandbox(root: Path) -> Iterator[tuple[str, Member]]:
    stack = [""]
    number = 0
    while stack:
        folder = stack.pop()
        entries: list[os.DirEntry[str]] = []
        with contextlib.suppress(OSError), os.scandir(root / folder) as listed:
            entries = sorted(listed, key=lambda one: one.name)
        number += len(entries)
        if number > MOST_FILES:
            raise ImageError(_TOO_MANY)
        for entry in entries:
            path = posixpath.join(folder, entry.name)
            with contextlib.suppress(OSError):  # gone by now
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
    opened = partial(_open_file, place) if kind == "file" else None
    key = (status.st_dev, status.st_ino)
    mode, mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    return Member(kind, status.st_size, mode, mtime, key, target=target, opened=opened)


def _open_file(path: Path) -> BinaryIO:
    """The file, also where somebody puts a link or a pipe in its place meanwhile."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags), "rb")
