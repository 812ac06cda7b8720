"""Composed images: what wins, what moves, and that the data stay as they are."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.core.errors import ImageError
from limpet.formats.squashfs import Entry, Source, Squashfs, compose
from tests.formats.trees import (
    BLOCK,
    Look,
    Tree,
    composed,
    entries_of,
    everything,
    image_of,
    looks,
    looks_of,
    noise,
    trees,
)


def merged(first: Tree, second: Tree) -> Tree:
    both = dict(first)
    for name, item in second.items():
        have = both.get(name)
        both[name] = (
            merged(have, item) if isinstance(have, dict) and isinstance(item, dict) else item
        )
    return both


@settings(max_examples=40, deadline=None)
@given(trees, trees, trees)
def test_any_trees_merge(first: Tree, second: Tree, third: Tree) -> None:
    images = [(image_of(entries_of(tree), threads=1), "") for tree in (first, second, third)]
    expected = looks_of(entries_of(merged(merged(first, second), third)))
    everywhere = list(expected)
    assert _modeless(looks(composed(images))) == _modeless(expected)
    ordered = composed(images, order=everywhere[::2])
    assert _modeless(looks(ordered)) == _modeless(expected)


def _modeless(found: dict[str, Look]) -> dict[str, tuple[str, object]]:
    """Without the modes of directories, which those of the first source are."""
    return {path: (kind, held) for path, (kind, _, held) in found.items()}


def test_grafts_and_keeps_everything() -> None:
    plain = image_of(everything())
    found = looks(composed([(plain, ""), (plain, "opt/env")]))
    original = looks(plain)
    for path, look in original.items():
        assert found[path] == look
        assert found[f"opt/env/{path}".rstrip("/")] == look


def test_the_first_source_gives_directories_their_attributes() -> None:
    one = image_of([Entry("d", "dir", 0o700, uid=3), Entry("d/f", "file", content=b"1")])
    two = image_of([Entry("d", "dir", 0o755), Entry("d/f", "file", content=b"2")])
    found = looks(composed([(one, ""), (two, "")]))
    assert found["d"] == ("dir", 0o700, 0)
    assert found["d/f"][2] == b"2"


def test_directories_go_where_symlinks_lead() -> None:
    base = image_of(
        [
            Entry("usr/lib/old", "file"),
            Entry("lib", "symlink", target="usr/lib"),
            Entry("lib64", "symlink", target="../lib"),
            Entry("lost", "symlink", target="nowhere"),
            Entry("usr/file", "file"),
            Entry("usr/other", "file"),
            Entry("to-file", "symlink", target="usr/other"),
        ]
    )
    piece = image_of(
        [Entry(path, "file", content=path.encode()) for path in ("lib/x", "lost/y", "to-file/z")]
        + [Entry("lib64/deep/x", "file"), Entry("usr/file", "dir"), Entry("usr/file/w", "file")]
    )
    found = looks(composed([(base, ""), (piece, "")]))
    assert found["lib"][0] == found["lib64"][0] == "symlink"
    assert found["usr/lib/x"][2] == b"lib/x"
    assert found["usr/lib/deep/x"][0] == "file"
    assert found["lost/y"][0] == found["to-file/z"][0] == found["usr/file/w"][0] == "file"
    # a symlink may lead to what the same source brings
    later = image_of([Entry("lost/y", "file"), Entry("nowhere/here", "file")])
    assert looks(composed([(base, ""), (later, "")]))["nowhere/y"][0] == "file"
    # and the same through the place of a graft
    found = looks(composed([(base, ""), (piece, "lib64/plugins")]))
    assert found["usr/lib/plugins/lost/y"][0] == "file"


def test_removes() -> None:
    data = image_of(everything())
    found = looks(composed([(data, "")], remove=["etc/long", "many", "lib/libx.so", "not/there"]))
    assert "etc/long" not in found and "many" not in found and "usr/lib/libx.so" not in found
    assert "etc/small" in found and "lib" in found


def test_ordered_data_come_first_and_unneeded_ones_go() -> None:
    base = image_of(
        [Entry(f"{i}", "file", content=noise(BLOCK * 3 + 9, i)) for i in range(9)]
        + [Entry(f"tail{i}", "file", content=noise(BLOCK - 96, 50 + i)) for i in range(9)]
    )
    data = composed([(base, "")], order=["7", "tail5", "2"], remove=["1"])
    image = Squashfs(BytesIO(data))
    assert looks(data) == {path: look for path, look in looks(base).items() if path != "1"}
    seven, two, five = (image.find(name) for name in ("7", "2", "tail5"))
    assert seven and two and five
    assert image.fragment_at(five.fragment)[0] == image.data_start < seven.start < two.start
    others = [image.find(name) for name in "034568"]
    assert all(other and other.start > two.start for other in others)
    assert len(data) < len(base) - BLOCK * 2


def test_composes_between_real_files_inside_another_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"-" * 777 + image_of(everything()))
    with source.open("rb") as file, (tmp_path / "out").open("w+b") as out:
        out.write(b"+" * 12345)
        stats = compose(out, [Source(Squashfs(file, 777)), Source(Squashfs(file, 777), "again")])
        assert out.tell() == 12345 + stats.size_bytes
        image = Squashfs(out, 12345)
        assert image.read("again/usr/lib/libx.so") == noise(BLOCK * 6 + 17, 2)
        out.seek(0)
        assert out.read(12345) == b"+" * 12345
    assert (tmp_path / "out").stat().st_size == 12345 + stats.size_bytes


def test_the_same_sources_give_the_same_bytes() -> None:
    data = image_of(everything())
    assert composed([(data, ""), (data, "x")]) == composed([(data, ""), (data, "x")])


@pytest.mark.parametrize("options", [{"compressor": "gzip"}, {"block_size": 8192}])
def test_sources_must_be_alike(options: dict[str, object]) -> None:
    with pytest.raises(ImageError, match="cannot be composed"):
        composed([(image_of([]), ""), (image_of([], **options), "")])


def test_there_must_be_a_source() -> None:
    with pytest.raises(ImageError):
        composed([])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=2, max_size=4), st.booleans())
def test_blocks_that_lie_in_images_more_than_once_are_stored_once(
    sources: list[list[int]], ordered: bool
) -> None:
    contents = [noise(3 * BLOCK, seed) for seed in range(4)] + [noise(BLOCK, 4)]
    images = []
    expected: dict[str, bytes] = {}
    for number, chosen in enumerate(sources):
        held = {f"{number}-{place}": contents[seed] for place, seed in enumerate(chosen)}
        expected |= held
        entries = [Entry(name, "file", content=data) for name, data in held.items()]
        images.append((image_of([*entries, Entry(f"t{number}", "file", content=b"tail")]), ""))
    image = composed(images, order=[*expected][::2] if ordered else ())
    found = looks(image)
    assert {name: found[name][2] for name in expected} == expected
    assert found["t1"][2] == b"tail"
    used = {seed for chosen in sources for seed in chosen}
    assert len(image) < sum(len(contents[seed]) for seed in used) + BLOCK + 4096


def test_blocks_that_are_only_as_long_are_kept_apart() -> None:
    one, two = (image_of([Entry(n, "file", content=noise(3 * BLOCK, ord(n)))]) for n in "ab")
    found = looks(composed([(one, ""), (two, "")]))
    assert found["a"][2] == noise(3 * BLOCK, ord("a"))
    assert found["b"][2] == noise(3 * BLOCK, ord("b"))


def test_a_hard_link_keeps_its_names_where_its_blocks_are_another_images() -> None:
    data = noise(5 * BLOCK + 7, 1)
    one = image_of([Entry("a", "file", content=data)])
    two = image_of([Entry("b", "file", content=data), Entry("c", "file", hardlink="b")])
    image = Squashfs(BytesIO(composed([(one, ""), (two, "")])))
    b, c = image.find("b"), image.find("c")
    assert b is c and b is not None and image.read(b) == data
    assert b.start == (image.find("a") or b).start
