"""Overlays as values: words, sizes, superblocks, and what speaks against a start."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest

from limpet.core.errors import ImageError, SpaceError, UsageError
from limpet.core.overlay import (
    Overlay,
    Wish,
    check_start,
    label_of,
    mark_of,
    parse_size,
    parse_superblock,
    parse_wish,
)
from limpet.core.seen import ImageSeen

IMAGE = ImageSeen(path="/i/a.sif", kind="sif", identity="abc", title="Ä long title of an image")
GOOD = Overlay(
    path="/o.img",
    name="o",
    kind="file",
    disk_bytes=1,
    size_bytes=10**8,
    free_bytes=5 * 10**7,
    free_inodes=9,
    mark=mark_of(IMAGE),
)


def overlay(**changes: Any) -> Overlay:
    return msgspec.structs.replace(GOOD, **changes)


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("data", Wish(name="data")),
        ("data:ro", Wish(name="data", writable=False)),
        ("data:rw", Wish(name="data")),
        ("data.img", Wish(path="data.img")),
        ("./data", Wish(path="./data")),
        ("/a b/ä.img:ro", Wish(path="/a b/ä.img", writable=False)),
    ],
)
def test_names_and_paths(text: str, wish: Wish) -> None:
    assert parse_wish(text) == wish


@pytest.mark.parametrize("text", ["", ":ro", "/a,b.img", "/a:b.img", "a:rx"])
def test_what_the_runtime_would_split(text: str) -> None:
    with pytest.raises(UsageError):
        parse_wish(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("16M", 16 * 1024**2),
        ("4G", 4 * 1024**3),
        ("1.5gib", 3 * 1024**3 // 2),
        ("2 TB", 2 * 1024**4),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "big", "-4G", "4", "15M", "17T", "4X", "1e9", "٤G "])
def test_nonsense_sizes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def superblock(**fields: int) -> bytes:
    data = bytearray(2048)
    numbers = {"inodes": 100, "blocks": 1000, "reserved": 10, "free": 500, "free_inodes": 90}
    numbers |= {"first": 1, "log_size": 2, "state": 1} | fields
    struct.pack_into("<7I", data, 1024, *list(numbers.values())[:7])
    struct.pack_into("<HH", data, 1024 + 56, 0xEF53, numbers["state"])
    data[1024 + 120 : 1024 + 125] = b"title"
    return bytes(data)


def test_a_superblock() -> None:
    found = parse_superblock(superblock())
    assert found
    assert (found.size_bytes, found.free_bytes, found.free_inodes) == (4096000, 490 * 4096, 90)
    assert (found.label, found.mark, found.has_errors) == ("title", "", False)
    # fuse2fs keeps a tenth where nothing is reserved
    nothing_reserved = parse_superblock(superblock(reserved=0, free=90))
    assert nothing_reserved and nothing_reserved.free_bytes == 0
    broken = parse_superblock(superblock(state=3, log_size=2**31))
    assert broken and broken.has_errors
    assert parse_superblock(b"\0" * 2048) is None
    assert parse_superblock(b"short") is None


def test_a_good_one_has_nothing_against_it() -> None:
    assert check_start(GOOD, IMAGE, writable=True) == ""
    assert check_start(overlay(use="read"), IMAGE, writable=False) == ""
    assert check_start(overlay(mark=""), IMAGE, writable=True) == ""  # not made by limpet
    assert check_start(overlay(free_bytes=0), IMAGE, writable=False) == ""
    assert check_start(overlay(size_bytes=0, free_bytes=0), IMAGE, writable=True) == ""
    assert "nearly full" in check_start(overlay(free_bytes=10**6), IMAGE, writable=True)


@pytest.mark.parametrize(
    ("changes", "writable", "error", "words"),
    [
        ({"damage": "It is cut off."}, False, ImageError, "damaged"),
        ({"mark": "x", "label": "other"}, False, ImageError, "another image \\(other\\)"),
        ({"use": "written"}, True, ImageError, "in use"),
        ({"use": "written"}, False, ImageError, "in use"),
        ({"use": "read"}, True, ImageError, "in use"),
        ({"free_bytes": 0}, True, SpaceError, "full"),
        ({"free_inodes": 0}, True, SpaceError, "full"),
    ],
)
def test_what_speaks_against_a_start(
    changes: dict[str, Any], writable: bool, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        check_start(overlay(**changes), IMAGE, writable=writable)


def test_the_mark_is_the_images_and_the_label_fits() -> None:
    other = msgspec.structs.replace(IMAGE, identity="def")
    copy = msgspec.structs.replace(IMAGE, path="/elsewhere.sif")
    assert mark_of(IMAGE) == mark_of(copy) != mark_of(other)
    assert label_of(IMAGE) == "__long_title_of_"
