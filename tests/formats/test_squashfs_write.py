"""What is written is what is read, whatever the tree."""

from __future__ import annotations

import random
from collections.abc import Iterator
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.core.errors import ImageError, UsageError
from limpet.formats.squashfs import Entry, Squashfs, write_squashfs
from tests.formats.trees import (
    BLOCK,
    Tree,
    entries_of,
    everything,
    image_of,
    looks,
    looks_of,
    noise,
    trees,
)


@settings(max_examples=40, deadline=None)
@given(trees, st.randoms(use_true_random=False), st.sampled_from(["zstd", "gzip"]))
def test_any_tree_in_any_order(tree: Tree, shuffle: random.Random, compressor: str) -> None:
    entries = entries_of(tree)
    shuffle.shuffle(entries)
    assert looks(image_of(entries, compressor=compressor, threads=1)) == looks_of(entries)


def test_everything_is_read_back() -> None:
    found = looks(image_of(everything()))
    assert found["etc/twin"] == found["etc/small"] == ("file", 0o600, b"small\n")
    assert found["etc/zeros"][2] == bytes(BLOCK * 3 + 5)
    assert found["etc/block"][2] == noise(BLOCK, 1)
    assert found["bin/su"][1] == 0o4755
    assert found["void"] == ("dir", 0o1777, 0)
    assert found["dev/null"] == ("char", 0o666, 259)
    assert len([path for path in found if path.startswith("many/")]) == 1200
    assert found["bin"] == ("dir", 0o755, 0)


def test_hard_links_are_one_inode() -> None:
    image = Squashfs(BytesIO(image_of(everything())))
    small, twin = image.find("etc/small"), image.find("etc/twin")
    assert small is twin
    assert small is not None and small.nlink == 2


def test_same_bytes_for_any_number_of_threads() -> None:
    one = image_of(everything(), threads=1)
    assert one == image_of(everything(), threads=5) == image_of(everything())


def test_equal_small_files_are_stored_once() -> None:
    twice = [Entry(f"{i}", "file", content=noise(BLOCK)) for i in range(40)]
    assert len(image_of(twice)) <= 2 * BLOCK + 4096


def test_later_entries_replace_earlier_ones() -> None:
    found = looks(
        image_of(
            [
                Entry("a/b/c", "file", content=b"1"),
                Entry("a/b/c", "file", content=b"2"),
                Entry("a/b", "dir", 0o711),
                Entry("x", "dir"),
                Entry("x/y", "file"),
                Entry("x", "file", content=b"now a file"),
                Entry("q", "file"),
                Entry("q/inside", "file"),
            ]
        )
    )
    assert found["a/b/c"][2] == b"2"
    assert found["a/b"][1] == 0o711
    assert found["x"][2] == b"now a file"
    assert "x/y" not in found
    assert found["q"][0] == "dir"


def test_parents_that_are_symlinks_are_followed_inside_the_image() -> None:
    found = looks(
        image_of(
            [
                Entry("usr/lib/a", "file"),
                Entry("lib", "symlink", target="/usr/lib"),
                Entry("lib/b", "file", content=b"b"),
                Entry("dangling", "symlink", target="../../nowhere"),
                Entry("dangling/c", "file"),
                Entry("loop", "symlink", target="loop"),
                Entry("loop/d", "file"),
            ]
        )
    )
    assert found["lib"][0] == "symlink"
    assert found["usr/lib/b"][2] == b"b"
    assert found["dangling/c"][0] == found["loop/d"][0] == "file"


def test_seventy_thousand_inodes_and_a_link_across_all_of_them() -> None:
    def entries() -> Iterator[Entry]:
        yield Entry("000/first", "file", content=b"far")
        for i in range(70_000):
            yield Entry(f"{i // 700:03}/{i % 700}", "symlink", target="t")
        yield Entry("099/zz", "file", hardlink="000/first")

    image = Squashfs(BytesIO(image_of(entries(), threads=1)))
    assert sum(1 for _ in image.walk()) == 70_000 + 100 + 2 + 1
    assert image.read("099/zz") == b"far"


def test_starts_where_the_file_stands() -> None:
    out = BytesIO(b"x" * 5000)
    out.seek(5000)
    stats = write_squashfs(out, [Entry("f", "file", content=noise(9000))], block_size=BLOCK)
    assert stats.size_bytes % 4096 == 0
    assert out.tell() == 5000 + stats.size_bytes
    assert stats.inode_count == 2 and stats.content_bytes == 9000
    assert Squashfs(out, 5000).read("f") == noise(9000)


class _Dribble(BytesIO):
    """A stream that gives less than it is asked for, as those of zip members do."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 1, 100))


def test_streams_may_give_less_than_asked() -> None:
    data = noise(BLOCK * 2 + 50)
    image = image_of([Entry("f", "file", content=lambda: _Dribble(data))])
    assert looks(image)["f"][2] == data


def test_content_is_never_read_whole() -> None:
    asked: list[int] = []

    class Watched(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size or -1)
            return super().read(size)

    image_of([Entry("f", "file", content=lambda: Watched(bytes(BLOCK * 9)))])
    assert asked and 0 < max(asked) <= BLOCK and min(asked) > 0


@pytest.mark.parametrize(
    "entry",
    [
        Entry("../etc/passwd", "file"),
        Entry("a/../../b", "file"),
        Entry("n" * 256, "file"),
        Entry("a\0b", "file"),
        Entry("", "file"),
        Entry("link", "symlink"),
        Entry("hard", "file", hardlink="missing"),
    ],
)
def test_entries_that_cannot_be(entry: Entry) -> None:
    with pytest.raises(ImageError):
        image_of([entry])


@pytest.mark.parametrize("options", [{"compressor": "lz4"}, {"block_size": 5000}])
def test_options_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        image_of([], **options)
