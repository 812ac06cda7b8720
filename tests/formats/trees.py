"""Trees for tests: random ones, one with everything, and how to look at the result."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from limpet.formats.squashfs import Entry, Node, Squashfs, compose, write_squashfs
from limpet.formats.squashfs.compose import Source

BLOCK = 4096
ODD_NAME = b"caf\xe9 \n$(x)".decode("utf-8", "surrogateescape")

# What a place in a tree looks like: kind, permissions, and what it holds
Look = tuple[str, int, bytes | str | int]


def image_of(entries: Iterable[Entry], **options: Any) -> bytes:
    out = BytesIO()
    options.setdefault("block_size", BLOCK)
    write_squashfs(out, entries, **options)
    return out.getvalue()


def composed(sources: Iterable[tuple[bytes, str]], **options: Any) -> bytes:
    out = BytesIO()
    compose(out, [Source(Squashfs(BytesIO(image)), at) for image, at in sources], **options)
    return out.getvalue()


def look_at(image: Squashfs, node: Node) -> Look:
    held: bytes | str | int = node.rdev
    if node.is_file:
        held = image.read(node)
    elif node.is_symlink:
        held = node.target
    return node.kind, node.mode, held


def looks(data: bytes) -> dict[str, Look]:
    image = Squashfs(BytesIO(data))
    return {path: look_at(image, node) for path, node in image.walk()}


def looks_on_disk(folder: Path, *, devices: bool) -> dict[str, Look]:
    """The same of a real folder, read by the system."""
    found: dict[str, Look] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            found[str(path.relative_to(folder))] = _look_at_path(path)
    return {
        path: look for path, look in found.items() if devices or look[0] not in ("char", "block")
    }


def _look_at_path(path: Path) -> Look:
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode):
        return "file", mode, path.read_bytes()
    if stat.S_ISLNK(status.st_mode):
        return "symlink", mode, str(path.readlink())
    for kind, test in (("dir", stat.S_ISDIR), ("fifo", stat.S_ISFIFO), ("socket", stat.S_ISSOCK)):
        if test(status.st_mode):
            return kind, mode, 0
    number = os.major(status.st_rdev) << 8 | os.minor(status.st_rdev)
    return "char" if stat.S_ISCHR(status.st_mode) else "block", mode, number


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def everything() -> list[Entry]:
    """All kinds of inodes, all sizes around a block, all awkward names."""
    long = noise(BLOCK * 2) + bytes(BLOCK * 3) + b"text " * BLOCK + noise(100)
    return [
        Entry("", "dir", 0o755),
        Entry("etc", "dir", 0o750, mtime=7),
        Entry("etc/empty", "file"),
        Entry("etc/small", "file", 0o600, content=b"small\n"),
        Entry("etc/block", "file", content=noise(BLOCK, 1)),
        Entry("etc/block-and-one", "file", content=b"a" * (BLOCK + 1)),
        Entry("etc/long", "file", content=lambda: BytesIO(long)),
        Entry("etc/zeros", "file", content=bytes(BLOCK * 3 + 5)),
        Entry("etc/twin", "file", hardlink="etc/small"),
        Entry("bin/su", "file", 0o4755, content=b"#!/bin/sh\n"),
        Entry("void", "dir", 0o1777),
        Entry("lib", "symlink", 0o777, target="usr/lib"),
        Entry("usr/lib/libx.so", "file", content=noise(BLOCK * 6 + 17, 2)),
        Entry("fifo", "fifo", 0o644),
        Entry("dev/null", "char", 0o666, rdev=1 << 8 | 3),
        Entry("dev/loop0", "block", 0o660, rdev=7 << 8),
        Entry("n" * 255, "file", content=b"long name"),
        Entry(f"odd/{ODD_NAME}", "file", content=b"odd name"),
        *(
            Entry(f"many/{i:04}-{'x' * (i % 60)}", "symlink", 0o777, target="t")
            for i in range(1200)
        ),
        *(Entry(f"wide/{'y' * 250}{i:05}", "file", content=b"%d" % i) for i in range(300)),
    ]


names = st.sampled_from(["a", "b", "ab", "B", "ä", ODD_NAME, "z" * 255, "-", ".x"])
modes = st.integers(0, 0o7777)
contents = st.one_of(
    st.binary(max_size=30),
    st.integers(1, 3 * BLOCK).map(lambda size: noise(size, size)),
    st.integers(1, 6 * BLOCK).map(bytes),
    st.sampled_from([BLOCK, 2 * BLOCK, BLOCK - 1]).map(lambda size: b"x" * size),
)
# a tree is a dict of names; a leaf is an entry without a path
leaves = st.one_of(
    st.builds(
        lambda mode, content: Entry("", "file", mode, 5, 6, 7, content=content), modes, contents
    ),
    st.builds(lambda name: Entry("", "symlink", 0o777, target=f"/nowhere/{name}"), names),
    st.builds(
        lambda mode, rdev: Entry("", "char", mode, rdev=rdev), modes, st.integers(0, 1 << 19)
    ),
    st.builds(lambda mode: Entry("", "fifo", mode, mtime=2**32 - 1), modes),
)
Tree = dict[str, Any]
trees: st.SearchStrategy[Tree] = st.dictionaries(
    names,
    st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=12),
    max_size=5,
)


def entries_of(tree: Tree, prefix: str = "") -> list[Entry]:
    found = []
    for name, item in tree.items():
        path = prefix + name
        if isinstance(item, dict):
            found.append(Entry(path, "dir", 0o700 + len(item)))
            found += entries_of(item, path + "/")
        else:
            found.append(msgspec.structs.replace(item, path=path))
    return found


def looks_of(entries: Iterable[Entry]) -> dict[str, Look]:
    found: dict[str, Look] = {"": ("dir", 0o755, 0)}
    for entry in entries:
        held: bytes | str | int = entry.rdev
        if entry.kind == "file":
            assert entry.content is None or isinstance(entry.content, bytes)
            held = entry.content or b""
        elif entry.kind == "symlink":
            held = entry.target
        found[entry.path] = (entry.kind, entry.mode, held)
    return found
