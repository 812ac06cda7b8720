"""Walking names in a tree of nodes, with the symlinks resolved inside the tree and nowhere else."""

from __future__ import annotations

from collections import deque

from limpet.core.errors import ImageError
from limpet.formats.squashfs.layout import DIR, NAME_LIMIT, SYMLINK
from limpet.formats.squashfs.model import Node, new_directory

LINK_LIMIT = 40  # as the kernel's MAXSYMLINKS

Trail = list[tuple[bytes, Node]]  # the real names and nodes from below the root down


def encode_path(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def is_name(name: bytes) -> bool:
    """Whether this, which has no slash and is not `..`, can be a file's name."""
    return len(name) <= NAME_LIMIT and b"\0" not in name


def split_path(path: str) -> list[bytes]:
    """The names of a path in an image; raises ImageError for one that leads out of it."""
    whole = encode_path(path)
    names = [name for name in whole.split(b"/") if name not in (b"", b".")]
    if b".." in names or b"\0" in whole:
        raise ImageError(f"The path {path!r} cannot be in an image.", why="It leads out of it.")
    if len(whole) > NAME_LIMIT and (longest := max(map(len, names), default=0)) > NAME_LIMIT:
        raise ImageError(
            f"The path {path!r} cannot be in an image.",
            why=f"A name has {longest} bytes; Linux takes at most {NAME_LIMIT}.",
        )
    return names


def resolve(
    root: Node, path: bytes, *, follow_last: bool, below: Trail | None = None
) -> Trail | None:
    """The real way to `path` from the root, or from `below`; None if it leads nowhere."""
    names = deque(path.split(b"/"))
    trail: Trail = [] if below is None or path.startswith(b"/") else list(below)
    links = 0
    while names:
        name = names.popleft()
        if name in (b"", b"."):
            continue
        if name == b"..":
            del trail[-1:]
            continue
        here = trail[-1][1] if trail else root
        node = here.children.get(name) if here.type == DIR else None
        if node is None:
            return None
        if node.type == SYMLINK and (follow_last or any(names)):
            links += 1
            if links > LINK_LIMIT:
                return None
            if node.link.startswith(b"/"):
                trail.clear()
            names.extendleft(reversed(node.link.split(b"/")))
        else:
            trail.append((name, node))
    return trail


def own_child(parent: Node, name: bytes) -> Node:
    """The directory `name` in an owned `parent`, made our own so that it can be changed."""
    child = parent.children[name]
    if child.image is not None:
        child = parent.children[name] = child.owned_copy()
    return child


def directory_at(root: Node, trail: Trail, name: bytes) -> tuple[Node, Trail]:
    """The owned directory `name` below `trail`, to put things in, and the way to it.

    A symlink that leads to a directory of this tree is followed, as a runtime would follow it. What
    is no directory, or leads to none, gives way to a new one.
    """
    here = trail[-1][1] if trail else root
    if name not in here.children:
        here.children[name] = new_directory()
    elif here.children[name].type == SYMLINK:
        there = resolve(root, name, follow_last=True, below=trail)
        if there is not None and (not there or there[-1][1].type == DIR):
            return own_trail(root, there)
    if here.children[name].type != DIR:
        here.children[name] = new_directory()
    child = own_child(here, name)
    return child, [*trail, (name, child)]


def own_trail(root: Node, trail: Trail) -> tuple[Node, Trail]:
    """All directories on the way made our own."""
    here = root
    owned: Trail = []
    for name, _ in trail:
        here = own_child(here, name)
        owned.append((name, here))
    return here, owned


def make_directories(root: Node, names: list[bytes]) -> tuple[Node, Trail]:
    """The owned directory at `names`, made with its parents where it is missing."""
    here = root
    trail: Trail = []
    for name in names:
        here, trail = directory_at(root, trail, name)
    return here, trail
