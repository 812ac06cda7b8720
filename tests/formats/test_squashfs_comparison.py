"""Contents of two images are compared as they lie, and each shared block is decoded once."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest

from limpet.formats.squashfs import Entry, Squashfs, write_squashfs
from limpet.formats.squashfs.difference import Comparison

BLOCK = 131072
MANY = {f"f{number:03}": b"%d " % number * 800 for number in range(300)}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the data blocks lie that are decoded."""
    places: list[int] = []
    read_block = Squashfs.read_block

    def noted(image: Squashfs, position: int, size: int, expected: int) -> bytes:
        places.append(position)
        return read_block(image, position, size, expected)

    monkeypatch.setattr(Squashfs, "read_block", noted)
    return places


def image(files: Mapping[str, bytes], level: int = 3) -> Squashfs:
    out = io.BytesIO()
    entries = [Entry(path, "file", content=data) for path, data in files.items()]
    write_squashfs(out, entries, level=level)
    return Squashfs(out)


def same(one: Squashfs, other: Squashfs, comparison: Comparison | None = None) -> list[str]:
    """The files that both have, and with the same content."""
    comparison = comparison or Comparison()
    found = []
    for path, node in one.walk():
        there = other.find(path)
        if node.is_file and there and comparison.has_same_content(node, there):
            found.append(path)
    return found


def test_what_is_stored_alike_is_not_decoded(decoded: list[int]) -> None:
    files = {**MANY, "large": bytes(range(256)) * 4096}
    assert same(image(files), image(files)) == sorted(files)
    assert decoded == []


def test_small_files_that_differ_decode_each_block_once(decoded: list[int]) -> None:
    """Three hundred files of one length in a handful of blocks; only the last one is the same."""
    other = {path: data[::-1] for path, data in MANY.items()} | {"f299": MANY["f299"]}
    one, two = image(MANY), image(other)
    assert same(one, two) == ["f299"]
    assert 2 <= len(decoded) <= one.fragment_count + two.fragment_count + 2


def test_large_files_that_differ_early_are_not_read_to_their_end(decoded: list[int]) -> None:
    data = b"".join(b"%08d" % number for number in range(4 * BLOCK))
    one, two = image({"x": b"a" + data}), image({"x": b"b" + data})
    blocks = len(data) // BLOCK
    assert same(one, two) == []
    assert 0 < len(decoded) < blocks


@pytest.mark.parametrize("level", [1, 19])
def test_the_same_that_is_stored_otherwise_is_the_same(decoded: list[int], level: int) -> None:
    files = {**MANY, "large": b"".join(b"%08d" % number for number in range(BLOCK))}
    assert same(image(files), image(files, level=level)) == sorted(files)
    assert decoded


def test_what_one_image_tells_of_a_block_is_no_word_about_another_image() -> None:
    """The same number of a block, place and length in three images, of which one has another."""
    one, twin, other = (image({"x": word * 100}) for word in (b"same ", b"same ", b"else "))
    comparison = Comparison()
    assert same(one, twin, comparison) == ["x"]
    assert same(one, other, comparison) == []
    assert same(other, one, comparison) == []
