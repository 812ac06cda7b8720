"""What images are made of: entries that go in, the nodes of a tree, the numbers that come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

import msgspec

from limpet.core.ranges import Ranges
from limpet.formats.squashfs.layout import DIR, FILE, KINDS, NO_FRAGMENT, SYMLINK

if TYPE_CHECKING:
    from limpet.formats.squashfs.read import Squashfs
    from limpet.formats.squashfs.write import Written

Kind = Literal["dir", "file", "symlink", "char", "block", "fifo", "socket"]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One file, directory, link or device on its way into an image.

    `path` is relative to the root of the image ("" is the root), "/"-separated, with bytes outside
    UTF-8 as surrogateescape. `mode` has the permission bits with suid, sgid and sticky. `content`
    of a file is bytes, or a callable that is called when the file's turn comes and whose stream is
    read in blocks. A file with `hardlink` is the same inode as the earlier entry of that path.
    `sha256` is that of the content, where it is known already.
    """

    path: str
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    target: str = ""
    rdev: int = 0
    content: bytes | Callable[[], BinaryIO] | None = None
    hardlink: str = ""
    sha256: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SquashfsStats:
    """`size_bytes`: what was written, padding included; `content_bytes`: what the files hold.

    `hot` is what a start reads of the files of an order, with small gaps closed; from
    `tables_start` on lie the tables.
    """

    size_bytes: int
    inode_count: int
    content_bytes: int
    hot: Ranges = ()
    tables_start: int = 0


class Node:
    """One inode in a tree. The same object below two names is a hard link.

    `image` is where its data lie, and for a directory where its listing is; None for directories
    that limpet made. Children of a directory that was read are parsed when first asked for.
    """

    __slots__ = (
        "_children",
        "blocks",
        "fragment",
        "gid",
        "image",
        "link",
        "listing",
        "mode",
        "mtime",
        "nlink",
        "offset",
        "rdev",
        "size_bytes",
        "sparse_bytes",
        "start",
        "type",
        "uid",
    )

    def __init__(
        self,
        type: int,  # noqa: A002 - squashfs's own word
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        image: Squashfs | Written | None = None,
        size_bytes: int = 0,
        start: int = 0,
        fragment: int = NO_FRAGMENT,
        offset: int = 0,
        blocks: bytes = b"",
        nlink: int = 1,
    ) -> None:
        self.type = type
        self.mode = mode & 0o7777
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.image = image
        self.size_bytes = size_bytes
        self.start = start
        self.fragment = fragment
        self.offset = offset
        self.blocks = blocks
        self.nlink = nlink
        self.sparse_bytes = 0
        self.link = b""
        self.rdev = 0
        self.listing = (0, 0)
        self._children: dict[bytes, Node] | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.type]

    @property
    def is_dir(self) -> bool:
        return self.type == DIR

    @property
    def is_file(self) -> bool:
        return self.type == FILE

    @property
    def is_symlink(self) -> bool:
        return self.type == SYMLINK

    @property
    def target(self) -> str:
        """Where a symlink points."""
        return self.link.decode("utf-8", "surrogateescape")

    @property
    def children(self) -> dict[bytes, Node]:
        """What a directory holds, by name."""
        if self._children is None:
            image = cast("Squashfs | None", self.image)  # only files have another
            self._children = image.list_directory(self) if image else {}
        return self._children

    def owned_copy(self) -> Node:
        """The same directory with names of its own, to change without harm to the image."""
        copy = Node(DIR, self.mode, self.uid, self.gid, self.mtime)
        copy._children = dict(self.children)
        return copy


def new_directory() -> Node:
    return Node(DIR, 0o755, 0, 0, 0)
