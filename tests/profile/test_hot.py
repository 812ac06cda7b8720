"""What a run was seen to read is compressed harder and told of; what it did not read stays."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.core.ranges import join_ranges
from limpet.formats.squashfs import (
    Entry,
    Front,
    Hot,
    Kept,
    Source,
    Squashfs,
    SquashfsStats,
    compose,
)
from tests.formats.trees import BLOCK, Tree, entries_of, image_of, looks, noise, trees

TEXT = b"".join(b"%d %x\n" % (i * i, i) for i in range(4000))
COUNT = len(TEXT) // BLOCK + 1


def hot_image(
    data: bytes,
    order: Collection[str],
    read: Mapping[str, Collection[int]],
    kept: Kept | None = None,
) -> tuple[bytes, SquashfsStats]:
    """`read` has the blocks of BLOCK bytes that were read."""
    out = BytesIO()
    ranges = {path: tuple((n * BLOCK, BLOCK) for n in sorted(read[path])) for path in read}
    hot = Hot(read=ranges, level=19, kept=kept or Kept())
    stats = compose(out, [Source(Squashfs(BytesIO(data)))], order=list(order), hot=hot)
    return out.getvalue(), stats


def stored(data: bytes, path: str) -> list[tuple[int, int]]:
    node = Squashfs(BytesIO(data)).find(path)
    assert node
    places, at = [], node.start
    for (size,) in struct.iter_unpack("<I", node.blocks):
        places.append((at, size))
        at += size & 0xFFFFFF
    return places


def entries() -> list[Entry]:
    small = [Entry(f"d/{i:03}", "file", content=noise(300, i)) for i in range(40)]
    return [*small, Entry("text", "file", content=TEXT), Entry("other", "file", content=TEXT[5:])]


@settings(max_examples=40, deadline=None)
@given(trees, st.randoms(), st.sampled_from(["zstd", "gzip"]), st.booleans())
def test_no_content_changes(tree: Tree, random: object, compressor: str, again: bool) -> None:
    data = image_of(entries_of(tree), threads=1, compressor=compressor)
    names = list(looks(data))
    random.shuffle(names)  # type: ignore[attr-defined]
    read = {name: {0, 2} for name in names[::2]}
    kept = Kept()
    found, _ = hot_image(data, names[1:], read, kept)
    assert looks(found) == looks(data)
    if again:
        assert hot_image(data, names[1:], read, Kept(known=kept.used))[0] == found
        assert looks(hot_image(found, names, {})[0]) == looks(data)


@pytest.mark.parametrize("compressor", ["zstd", "gzip"])
def test_only_what_was_read_is_compressed_harder(
    compressor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limpet.formats.squashfs.extents.GAP_BYTES", 0)
    data = image_of(entries(), compressor=compressor, level=1)
    read = {1, 2, 9}
    found, stats = hot_image(data, ["d/003", "text"], {"text": read, "nowhere": {1}})
    for number, ((_, before), (at, after)) in enumerate(
        zip(stored(data, "text"), stored(found, "text"), strict=True)
    ):
        assert after < before if number in read else after == before
        inside = [start for start, length in stats.hot if start <= at < start + length]
        assert bool(inside) is (number in read)
    assert [size for _, size in stored(found, "other")] == [s for _, s in stored(data, "other")]
    assert looks(found) == looks(data)


def test_only_what_was_read_is_told_of() -> None:
    large = noise(100 * BLOCK)
    data = image_of([Entry("large", "file", content=large), Entry("small", "file", content=b"x")])
    found, stats = hot_image(data, ["large", "small"], {"large": {0, 50, 51, 99}})
    at = [place for place, _ in stored(found, "large")]
    assert stats.hot == (
        (0, at[1]),
        (at[50], 2 * BLOCK),
        (at[99], BLOCK),
    )
    whole, stats = hot_image(data, ["large", "small"], {})
    assert stats.hot == ((0, at[99] + BLOCK),) and looks(whole) == looks(found)
    assert hot_image(data, ["nowhere"], {})[1].hot == ()


def test_blocks_that_are_kept_are_not_compressed_again() -> None:
    data = image_of(entries(), level=1)
    kept = Kept()
    found, _ = hot_image(data, ["text", "d/001"], {"text": {1, 2}}, kept)
    assert len(kept.used) == 3  # two blocks, and the one of small files
    mark = b"from before"
    known = dict.fromkeys(kept.used, (mark, len(mark)))
    assert (
        hot_image(data, ["text", "d/001"], {"text": {1, 2}}, Kept(known=known))[0].count(mark) == 3
    )
    again = Kept(known={**kept.used, b"of another": (b"", 0)})
    assert hot_image(data, ["text", "d/001"], {"text": {1, 2}}, again)[0] == found
    assert again.used == kept.used  # what is not needed any more goes


def test_what_is_kept_is_for_one_way_of_compressing() -> None:
    """One cache serves images of any compressor; a file may hold what is another's stored block."""
    inner = next(iter_blocks(image_of([Entry("t", "file", content=TEXT[:BLOCK] * 2)]), "t"))
    files = [Entry("a", "file", content=inner), Entry("t", "file", content=TEXT[:BLOCK] * 2)]
    kept = Kept()
    for compressor in ("zstd", "gzip", "zstd"):
        data = image_of(files, compressor=compressor)
        found, _ = hot_image(data, ["a", "t"], {}, kept)
        assert looks(found) == looks(data)
        kept = Kept(known={**kept.known, **kept.used})


def iter_blocks(data: bytes, path: str) -> Iterator[bytes]:
    for at, size in stored(data, path):
        yield data[at : at + (size & 0xFFFFFF)]


def test_the_effort_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a run reads, much may be data: the first of it is what its start needs."""
    data = image_of(entries(), level=1)
    order = ["d/001", "text", "other"]
    monkeypatch.setattr("limpet.formats.squashfs.hot.MOST_BYTES", 3 * BLOCK)
    found, stats = hot_image(data, order, {})
    assert looks(found) == looks(data) and found == hot_image(data, order, {})[0]
    smaller = [
        after < before
        for path in ("text", "other")
        for (_, before), (_, after) in zip(stored(data, path), stored(found, path), strict=True)
    ]
    assert smaller == [True, True] + [False] * (len(smaller) - 2)
    (whole,) = stats.hot
    at, size = stored(found, "other")[-1]
    assert whole == (0, at + size)  # it is read ahead all the same


def test_files_that_share_blocks() -> None:
    """The same bytes under two names, in one image and in two."""
    twins = [Entry(name, "file", content=TEXT) for name in ("a", "b")]
    data = image_of([*entries(), *twins, Entry("c", "file", hardlink="a")])
    found, _ = hot_image(data, ["b", "text"], {"b": {3}, "text": {4}})
    assert looks(found) == looks(data)
    assert stored(found, "a") == stored(found, "b") == stored(found, "c")


@pytest.mark.parametrize("how", ["shorter", "cut otherwise", "zeros"])
def test_files_that_share_bytes_but_not_blocks(how: str) -> None:
    """Such files stay as they are; zeros may name the place of another file, as mksquashfs does."""
    source = Squashfs(BytesIO(image_of(entries(), level=1)))
    text, other = source.find("text"), source.find("other")
    assert text and other
    sizes = struct.unpack(f"<{len(text.blocks) // 4}I", text.blocks)
    other.start = text.start
    other.blocks = {
        "shorter": text.blocks[:-8],
        "cut otherwise": struct.pack(f"<{len(sizes)}I", *reversed(sizes)),
        "zeros": bytes(4 * 3),
    }[how]
    other.size_bytes = len(other.blocks) // 4 * BLOCK
    out = BytesIO()
    compose(out, [Source(source)], order=["text"], hot=Hot(read={}, level=19, kept=Kept()))
    image = Squashfs(out)
    found = image.find("other")
    assert image.read("text") == TEXT and found
    assert found.blocks == other.blocks
    before, after = stored(source.file.getvalue(), "text"), stored(out.getvalue(), "text")  # type: ignore[attr-defined]
    shrunk = [b[1] < a[1] for a, b in zip(before, after, strict=True)]
    assert any(shrunk) is (how == "zeros")
    if how == "zeros":
        assert image.read("other") == bytes(3 * BLOCK)
    if how == "shorter":
        assert image.read("other") == TEXT[: other.size_bytes]


def test_blocks_that_are_a_fragment_block_too_stay() -> None:
    """The packed blocks of an order may be a file, and that one may be in the order of the next."""
    small = [Entry(f"d/{i}", "file", content=TEXT[i * 1000 : i * 1000 + 900]) for i in range(4)]
    front = Front(path="fr/data", index="fr/index", describe=lambda *_: b"index")
    first = BytesIO()
    source = Source(Squashfs(BytesIO(image_of(small, level=1))))
    compose(first, [source], order=[one.path for one in small], front=front, level=1)
    before = looks(first.getvalue())
    assert len(Squashfs(first).find("fr/data").blocks) == 4  # type: ignore[union-attr]
    for order in (["fr/data"], ["d/1", "fr/data"], ["fr/data", "d/2"]):
        found, _ = hot_image(first.getvalue(), order, {})
        assert looks(found) == before  # a block that is longer than its data would be refused


def test_small_gaps_between_ranges_are_closed() -> None:
    assert join_ranges([(50, 10), (0, 10), (12, 8)], gap_bytes=5) == ((0, 20), (50, 10))
    assert join_ranges([(0, 10), (2, 3)], gap_bytes=0) == ((0, 10),)
    assert join_ranges([], gap_bytes=9) == ()
