"""Merges images by their metadata: data blocks are copied as they are, never decompressed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from limpet.core.errors import ImageError
from limpet.formats.squashfs.codecs import COMPRESSORS
from limpet.formats.squashfs.extents import copy_parts, plan_layout
from limpet.formats.squashfs.front import Front, plan_front
from limpet.formats.squashfs.hot import Hot, Packer
from limpet.formats.squashfs.layout import DIR, FILE, SUPERBLOCK, SYMLINK
from limpet.formats.squashfs.model import Node, SquashfsStats, new_directory
from limpet.formats.squashfs.tables import write_tables
from limpet.formats.squashfs.tree import (
    Trail,
    directory_at,
    encode_path,
    make_directories,
    own_trail,
    resolve,
    split_path,
)
from limpet.formats.squashfs.write import Image, Written


@dataclass(frozen=True, slots=True)
class Source:
    """An image, and where its root goes in the composed one ("" is the root)."""

    squashfs: Image
    at: str = ""


def compose(
    out: BinaryIO,
    sources: Sequence[Source],
    *,
    order: Sequence[str] = (),
    remove: Collection[str] = (),
    level: int = 3,
    keep_share: float = 2.0,
    front: Front | None = None,
    hot: Hot | None = None,
) -> SquashfsStats:
    """Writes the union of `sources` as one image from `out.tell()` on.

    Directories merge, with the attributes of the first source that has them; of anything else the
    later source wins. Where a later source has a directory and an earlier one a symlink that leads
    to a directory (`lib -> usr/lib`), the directory's content goes to where the symlink leads; any
    other symlink gives way to the directory. Paths in `remove` are left out of the result, with all
    that is below. Extended attributes are dropped.

    The data of the files in `order` come first, in that order, with small files and tails packed
    anew at `level` (see `repack`), and the directories that lead to them lie together; blocks that
    no file needs any more are left out. Of shared blocks those stay of which the order has at least
    `keep_share`. With a `front` the blocks that are packed anew are a file, too; with `hot` what a
    run read is compressed harder. Without `order` all data areas are copied whole, but for whole
    files' blocks that came before.
    A `Written` whose data lie in `out` is not copied: the image starts where it does, and the other
    data come behind it. No `Written` can be ordered.
    """
    first = _checked(sources, ordered=bool(order))
    images = list(dict.fromkeys(source.squashfs for source in sources))
    there = next((one for one in images if isinstance(one, Written) and one.file is out), None)
    images.sort(key=lambda image: image is not there)
    root = _merge(sources, remove)
    origin = there.offset if there else out.tell()
    if front:
        make_directories(root, split_path(front.path)[:-1])
    ordered, folders = _find_ordered(root, order)
    repack = first.compressor in COMPRESSORS
    # It looks for data that are the same, so it reads what lies in `out`, and moves it.
    layout = plan_layout(
        root, images, ordered, repack=repack, keep_share=keep_share, there=there, hot=hot
    )
    more = plan_front(front, root, order, layout) if front else None
    out.seek(origin + (there.data_end if there else 0))
    if not there:
        out.write(bytes(SUPERBLOCK.size))
    copied = copy_parts(out, layout, Packer(first.codec, level, hot))
    if more:
        more.add(copied.lead, copied.blocks)
    stats = write_tables(
        out,
        origin,
        root,
        codec=first.codec,
        block_size=first.block_size,
        fragments=copied.fragments,
        locate=lambda node: (more and more.locate(node)) or copied.locate(node),
        together=folders,
    )
    return replace(stats, hot=copied.hot)


def _find_ordered(root: Node, order: Sequence[str]) -> tuple[dict[str, Node], set[Node]]:
    """The files of an order, by path, and the directories on the ways to them."""
    ordered: dict[str, Node] = {}
    folders: set[Node] = set()
    for path in order:
        trail = resolve(root, encode_path(path), follow_last=True)
        if trail and trail[-1][1].type == FILE:
            ordered[path] = trail[-1][1]
            folders.update(node for _, node in trail[:-1])
    return ordered, folders | ({root} if folders else set())


def _checked(sources: Sequence[Source], *, ordered: bool) -> Image:
    if not sources:
        raise ImageError("There is nothing to compose an image from.")
    if ordered and any(isinstance(source.squashfs, Written) for source in sources):
        raise ValueError("data that lie in the image already have their order")
    first = sources[0].squashfs
    for source in sources[1:]:
        image = source.squashfs
        if (image.compressor, image.block_size) != (first.compressor, first.block_size):
            raise ImageError(
                "These images cannot be composed into one.",
                why=f"One has {first.compressor} blocks of {first.block_size} bytes, "
                f"another {image.compressor} blocks of {image.block_size} bytes.",
                now="Write them with the same compressor and block size.",
            )
    return first


def _merge(sources: Sequence[Source], remove: Collection[str]) -> Node:
    root = new_directory()
    for i, source in enumerate(sources):
        names = split_path(source.at)
        top = source.squashfs.root()
        if names:
            parent, trail = make_directories(root, names[:-1])
            _merge_children(root, parent, trail, {names[-1]: top})
        elif i == 0:
            root = top.owned_copy()
        else:
            _merge_children(root, root, [], top.children)
    for path in remove:
        _remove(root, path)
    return root


def _merge_children(root: Node, target: Node, trail: Trail, children: dict[bytes, Node]) -> None:
    """Puts `children` and all below them into the owned directory `target`.

    Directories that meet a symlink wait for the rest: what it leads to may be among it.
    """
    work = [(target, trail, children)]
    waiting: list[tuple[Node, Trail, bytes, Node]] = []
    while work or waiting:
        if not work:
            target, trail, name, child = waiting.pop()
            if _leads_to_directory(root, trail, name):
                inner, inner_trail = directory_at(root, trail, name)
                work.append((inner, inner_trail, child.children))
            else:
                target.children[name] = child
            continue
        target, trail, children = work.pop()
        for name, child in children.items():
            have = target.children.get(name)
            if child.type != DIR or have is None or have.type not in (DIR, SYMLINK):
                target.children[name] = child
            elif have.type == SYMLINK:
                waiting.append((target, trail, name, child))
            else:
                inner, inner_trail = directory_at(root, trail, name)
                work.append((inner, inner_trail, child.children))


def _leads_to_directory(root: Node, trail: Trail, name: bytes) -> bool:
    there = resolve(root, name, follow_last=True, below=trail)
    return there is not None and (not there or there[-1][1].type == DIR)


def _remove(root: Node, path: str) -> None:
    trail = resolve(root, encode_path(path), follow_last=False)
    if trail:
        parent, _ = own_trail(root, trail[:-1])
        parent.children.pop(trail[-1][0], None)
