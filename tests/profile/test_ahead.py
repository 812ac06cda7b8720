"""What an image says that is to be read ahead, and what is read of it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from limpet.core.image import AHEAD_OBJECT, FACTS_OBJECT, Ahead
from limpet.formats.sif import SifWriter
from limpet.formats.squashfs import Kept, write_squashfs
from limpet.tools import images, kept_blocks, page_cache
from tests.wrap.conftest import facts

KEPT = Kept(used={b"1": (b"one", 3), b"2": (b"two", 3)})


def image_with(path: Path, ahead: bytes) -> Path:
    with path.open("w+b") as out:
        writer = SifWriter(out, arch="amd64", ident=bytes(16))
        with writer.partition("root") as partition:
            write_squashfs(partition, [])
        writer.add_object(FACTS_OBJECT, msgspec.json.encode(facts()), kind="json")
        writer.add_object(AHEAD_OBJECT, ahead, kind="json")
        writer.finish()
    return path


def test_what_an_image_says_is_believed_if_it_can_be(tmp_path: Path) -> None:
    good = Ahead(ranges=((0, 4096), (5000, 10)))
    image = image_with(tmp_path / "good.sif", msgspec.json.encode(good))
    assert images.read_image(str(image)).ahead == good


@pytest.mark.parametrize(
    "said",
    [
        b"[]",
        b"\xff",
        b'{"ranges": [[0]]}',
        b'{"ranges": [[-4096, 4096]]}',
        b'{"ranges": [[0, 0]]}',
        b'{"ranges": [[8192, -4096], [0, 4096]]}',
        b'{"ranges": [[0, 1099511627776]]}',
        b'{"ranges": [[9223372036854775807, 4096]]}',
    ],
)
def test_what_cannot_be_so_is_not_there(tmp_path: Path, said: bytes) -> None:
    image = image_with(tmp_path / "bad.sif", said)
    assert images.read_image(str(image)).ahead == Ahead()


def test_ranges_are_read_in_whole_pages_and_their_ends_first(tmp_path: Path) -> None:
    ranges = ((5, 10), (4090, 300_000), (1_000_000, 3_000_000))
    chunks = page_cache._chunks(ranges)
    assert all(start % 4096 == 0 == size % 4096 for start, size in chunks)
    assert [start + size for start, size in chunks[:3]] == [4096, 307_200, 4_001_792]
    assert max(size for _, size in chunks) <= page_cache.CHUNK_BYTES
    for first, length in ranges:
        pages = range(first // 4096, (first + length - 1) // 4096 + 1)
        for page in pages:
            assert any(start <= page * 4096 < start + size for start, size in chunks)


def test_a_cache_that_is_a_colleagues_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.blocks"
    kept_blocks.keep(path, KEPT)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.utime", refuse)
    assert kept_blocks.recall(path).known == KEPT.used


@pytest.mark.parametrize("bend", [lambda data: data[:-1], lambda data: b"", lambda data: data[1:]])
def test_a_damaged_cache_is_empty(tmp_path: Path, bend: object) -> None:
    path = tmp_path / "x.blocks"
    kept_blocks.keep(path, KEPT)
    path.write_bytes(bend(path.read_bytes()))  # type: ignore[operator]
    assert kept_blocks.recall(path) == Kept() == kept_blocks.recall(tmp_path / "none")


def test_another_recipe_has_most_blocks_of_the_last_one(tmp_path: Path) -> None:
    for number, name in enumerate(("old", "last", "older")):
        path = tmp_path / f"{name}.blocks"
        kept_blocks.keep(path, Kept(used={name.encode(): (b"one", 3)}))
        os.utime(path, (number % 2, number % 2))
    path = tmp_path / "new.blocks"
    kept = kept_blocks.recall(path)
    assert kept.known == {b"last": (b"one", 3)}
    kept_blocks.keep(path, Kept(known=kept.known, used={b"new": (b"one", 3)}))
    assert kept_blocks.recall(path).known == {b"new": (b"one", 3)}


def test_nothing_new_is_nothing_to_write(tmp_path: Path) -> None:
    path = tmp_path / "x.blocks"
    kept_blocks.keep(path, Kept(known=KEPT.used))
    assert not path.exists()
    kept_blocks.keep(path, Kept(known=KEPT.used, used=dict(KEPT.used)))
    before = path.stat()
    kept_blocks.keep(path, Kept(known=KEPT.used, used=dict(KEPT.used)))
    assert path.stat().st_ino == before.st_ino
    kept_blocks.keep(path, Kept(known=KEPT.used, used={b"1": (b"one", 3)}))
    assert kept_blocks.recall(path).known == {b"1": (b"one", 3)}
