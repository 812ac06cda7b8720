"""Image layers as one tree: what each layer adds, hides and links, without unpacking any.

First the headers of all layers are read and played, bottom layer first, on a tree in memory; then
each layer is read once more and only the files that are left give their content. So nothing that a
later layer hides or replaces reaches the image. The rules are those of the OCI image specification
(layer.md, "Whiteouts") with symlinked parents followed, as containerd does.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, cast

from limpet.core.errors import BaseError, SpaceError
from limpet.core.prefix import source_of
from limpet.formats.squashfs import Entry, Kind
from limpet.formats.tar import Tar, inflated, open_tar, read_ahead

OpenLayer = Callable[[], BinaryIO]
_KINDS: dict[bytes, Kind] = {
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}
_HARDLINK = "hardlink"
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_LINK_LIMIT = 40


@dataclass(slots=True)
class Member:
    """A header of a layer, and where the layer has the content."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    target: str
    offset: int
    size_bytes: int
    sparse: tuple[tuple[int, int], ...] | None


@dataclass(slots=True, eq=False)
class _Node:
    """A file in the tree; two names of one node are hard links."""

    layer: int
    member: Member | None
    children: dict[str, _Node] | None = None


@dataclass(slots=True)
class LayerTree:
    """The files that are left of all layers."""

    root: _Node = field(default_factory=lambda: _Node(-1, None, {}))

    def add_layer(self, number: int, members: Sequence[Member]) -> None:
        """Play a layer on what lies below it: what it hides first, then what it brings."""
        for member in members:
            parent, name = _split(member.path)
            if name.startswith(_WHITEOUT):
                self._hide(parent, name)
        for member in members:
            parent, name = _split(member.path)
            if not name.startswith(_WHITEOUT):
                self._put(number, member, parent, name)

    def _hide(self, parent: str, name: str) -> None:
        folder = self._find(parent)
        if folder is None or folder.children is None:
            return
        if name == _OPAQUE:
            folder.children.clear()
        elif not name.startswith(_WHITEOUT * 2):  # other .wh..wh. names are aufs's own
            folder.children.pop(name.removeprefix(_WHITEOUT), None)

    def _put(self, layer: int, member: Member, parent: str, name: str) -> None:
        if not name:
            self.root.member, self.root.layer = member, layer
            return
        siblings = self._folder(parent)
        if member.kind == _HARDLINK:
            siblings[name] = self._linked(member)
            return
        there = siblings.get(name)
        if member.kind == "dir" and there is not None and there.children is not None:
            there.member, there.layer = member, layer
            return
        siblings[name] = _Node(layer, member, {} if member.kind == "dir" else None)

    def drop_old_byte_code(self) -> None:
        """Remove byte code whose source a later layer brought anew: it is of the earlier one.

        Byte code is not compared with its source any more once it is in a base (`base_store`).
        """
        for path, node in list(self.walk()):
            if path.rpartition("/")[2] != "__pycache__" or not node.children:
                continue
            above = self._find(_split(path)[0])
            sources = (above.children if above else None) or {}
            for name, code in list(node.children.items()):
                source = sources.get(source_of(f"__pycache__/{name}"))
                if source and source.layer > code.layer:
                    del node.children[name]

    def _linked(self, member: Member) -> _Node:
        parent, name = _split(member.target)
        folder = self._find(parent)
        node = (folder.children or {}).get(name) if folder else None
        if node is None or node.children is not None:
            raise BaseError(
                "A layer of the base is damaged.",
                why=f"{member.path} is a hard link to {member.target}, which is not there.",
            )
        return node

    def _find(self, path: str) -> _Node | None:
        trail = self._walk(path, make=False)
        return trail[-1] if trail else None

    def _folder(self, path: str) -> dict[str, _Node]:
        trail = self._walk(path, make=True)
        assert trail is not None
        return cast("dict[str, _Node]", trail[-1].children)

    def _walk(self, path: str, *, make: bool) -> list[_Node] | None:
        """The way to a folder from the root, through symlinks, never out of the tree."""
        names = path.split("/")[::-1]
        trail, links = [self.root], 0
        while names:
            name = names.pop()
            if name in ("", "."):
                continue
            if name == "..":
                trail = trail[:-1] or [self.root]
                continue
            children = cast("dict[str, _Node]", trail[-1].children)
            node = children.get(name)
            if node and node.member and node.member.kind == "symlink" and links < _LINK_LIMIT:
                links += 1
                if node.member.target.startswith("/"):
                    trail = [self.root]
                names.extend(node.member.target.split("/")[::-1])
                continue
            if node is None or node.children is None:
                if not make:
                    return None
                node = children[name] = _Node(-1, None, {})
            trail.append(node)
        return trail

    def walk(self) -> Iterator[tuple[str, _Node]]:
        """All names, parents first, sorted."""
        stack = [("", self.root)]
        while stack:
            path, node = stack.pop()
            yield path, node
            below = sorted((node.children or {}).items(), reverse=True)
            stack += [(f"{path}/{name}" if path else name, child) for name, child in below]


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent, name


def read_members(layer: BinaryIO) -> list[Member]:
    """All headers of a layer, with the content skipped."""
    with open_tar(layer) as tar:
        return [_describe(info) for info in tar.headers()]


def keep_layer(packed: Iterator[bytes], plain: BinaryIO) -> list[Member]:
    """All headers of a layer that is on its way; `plain` is given its tar."""
    with read_ahead(packed) as arrived, read_ahead(_kept(inflated(arrived), plain)) as chunks:
        members = [_describe(info) for info in Tar(chunks).headers()]
        for _ in chunks:
            pass  # the zeros behind the end of a tar
    return members


def _kept(chunks: Iterator[bytes], plain: BinaryIO) -> Iterator[bytes]:
    for chunk in chunks:
        try:
            plain.write(chunk)
        except OSError as error:
            raise SpaceError("A layer of the base cannot be kept.", why=str(error)) from error
        yield chunk


def _describe(info: tarfile.TarInfo) -> Member:
    kind: str = "file" if info.isreg() else _KINDS.get(info.type, "")
    if info.islnk():
        kind = _HARDLINK
    if not kind:
        raise BaseError(
            "A layer of the base holds what no file system has.",
            why=f"{info.name!r} is of tar type {info.type!r}.",
        )
    return Member(
        path=_inside(info.name),
        kind=kind,
        mode=info.mode & 0o7777,
        uid=max(info.uid, 0),
        gid=max(info.gid, 0),
        mtime=min(max(int(info.mtime), 0), 0xFFFFFFFF),
        target=_inside(info.linkname) if kind == _HARDLINK else info.linkname,
        offset=info.offset_data,
        size_bytes=info.size,
        sparse=tuple(info.sparse) if info.issparse() else None,  # type: ignore[arg-type]
    )


def _inside(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BaseError("A layer of the base leads out of it.", why=f"It holds the name {name!r}.")
    return "/".join(parts)


def read_entries(
    tree: LayerTree, layers: Sequence[OpenLayer], *, clamp: int | None = None
) -> Iterator[Entry]:
    """The entries of the finished tree: directories and links first, then the files.

    Devices are left out: no container of a plain user's can open one, and no plain user can make
    one where a derived base unpacks its own.

    With `clamp` no file is younger than that, and byte code still fits the source it came from.
    """
    tree.drop_old_byte_code()
    names: dict[_Node, list[str]] = {}
    for path, node in tree.walk():
        if node.member is not None and node.member.kind == "file":
            names.setdefault(node, []).append(path)
        elif node.member is None or node.member.kind not in ("char", "block"):
            yield _entry(path, node.member, clamp)
    wanted: list[list[_Node]] = [[] for _ in layers]
    for node in names:
        wanted[node.layer].append(node)
    for open_layer, nodes in zip(layers, wanted, strict=True):
        if nodes:
            yield from _read_files(open_layer, nodes, names, clamp)


def _read_files(
    open_layer: OpenLayer, nodes: list[_Node], names: dict[_Node, list[str]], clamp: int | None
) -> Iterator[Entry]:
    files = [(cast(Member, node.member), names[node]) for node in nodes]
    with open_layer() as layer, open_tar(layer) as tar:
        for member, (first, *others) in sorted(files, key=lambda file: file[0].offset):
            yield _entry(first, member, clamp, _content(tar, member, clamp))
            for other in others:
                yield Entry(other, "file", hardlink=first)


def stream_entries(
    stream: BinaryIO, *, clamp: int, drop: Callable[[str], bool], captured: dict[str, bytes]
) -> Iterator[Entry]:
    """The entries of one tar that hides nothing, as it comes.

    `captured` names files whose content is wanted, and is given it.
    """
    with open_tar(stream) as tar:
        for info in tar.headers():
            member = _describe(info)
            if drop(member.path) or member.kind in ("char", "block"):
                continue
            if member.kind == _HARDLINK:
                yield Entry(member.path, "file", hardlink=member.target)
            elif member.path in captured:
                captured[member.path] = _content(tar, member, clamp)().read()
                yield _entry(member.path, member, clamp, partial(io.BytesIO, captured[member.path]))
            else:
                content = _content(tar, member, clamp) if member.kind == "file" else None
                yield _entry(member.path, member, clamp, content)


def _content(tar: Tar, member: Member, clamp: int | None) -> Callable[[], BinaryIO]:
    def open_content() -> BinaryIO:
        file = tar.open_content(member.offset, member.size_bytes, member.sparse)
        if clamp is not None and member.path.endswith(".pyc"):
            return io.BytesIO(_clamp_byte_code(file.read(), clamp))
        return file

    return open_content


def _clamp_byte_code(data: bytes, clamp: int) -> bytes:
    """PEP 552: magic, flags, then for flags 0 the source's time: clamped as the source is."""
    time = int.from_bytes(data[8:12], "little")
    if len(data) < 16 or data[4:8] != bytes(4) or time <= clamp:
        return data
    return data[:8] + clamp.to_bytes(4, "little") + data[12:]


def _entry(
    path: str,
    member: Member | None,
    clamp: int | None,
    content: Callable[[], BinaryIO] | None = None,
) -> Entry:
    if member is None:
        return Entry(path, "dir", mode=0o755)
    mtime = member.mtime if clamp is None else min(member.mtime, clamp)
    return Entry(
        path,
        cast(Kind, member.kind),
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime=mtime,
        target=member.target if member.kind == "symlink" else "",
        content=content if content is not None else b"" if member.kind == "file" else None,
    )
