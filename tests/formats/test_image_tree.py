"""Layers over a root as one tree, and folders that change while they are read."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import pytest

from limpet.core.errors import ImageError
from limpet.core.seen import ImageSeen
from limpet.formats import image_tree
from limpet.formats.image_tree import ImageTree, merged_tree, opened_tree
from limpet.formats.squashfs import Entry, Squashfs, write_squashfs


def layer(*entries: Entry) -> Squashfs:
    out = BytesIO()
    write_squashfs(out, sorted(entries, key=lambda entry: entry.path))
    return Squashfs(out)


def folder(path: str) -> Entry:
    return Entry(path, "dir", mode=0o755)


def file(path: str, content: bytes = b"x") -> Entry:
    return Entry(path, "file", content=content)


def names(tree: ImageTree) -> set[str]:
    return {path for path, _ in tree.files()}


def test_what_a_layer_hides_is_gone_with_all_below_it() -> None:
    root = layer(
        *(folder("a"), folder("a/b"), file("a/b/c"), file("a/bc"), folder("d"), file("d/e")),
        *(file("f"), folder("g"), file("g/h")),
    )
    gone = Entry("a/b", "char", mode=0, rdev=0)
    over = layer(folder("a"), gone, file("d"), folder("f"), file("f/i"), folder("g"), file("g/j"))
    tree = merged_tree([root, over])
    assert names(tree) == {"a/bc", "d", "f/i", "g/h", "g/j"}
    assert [(one.name, one.files) for one in tree.layers] == [("root", 5), ("layer 1", 3)]


def test_a_later_layer_wins_and_brings_back() -> None:
    first = layer(folder("a"), file("a/b", b"old"))
    second = layer(Entry("a", "char", mode=0, rdev=0))
    third = layer(folder("a"), file("a/c", b"new"))
    tree = merged_tree([first, second, third])
    assert names(tree) == {"a/c"} and tree.read_text("a/c") == "new"


def test_a_file_with_two_names_counts_once() -> None:
    tree = merged_tree([layer(file("a", b"x" * 100), Entry("b", "file", hardlink="a"))])
    (one,) = tree.layers
    assert (one.size_bytes, one.files) == (100, 2)
    assert tree.members["a"].key == tree.members["b"].key


def test_lists_name_files_by_links_at_the_top() -> None:
    link = Entry("lib", "symlink", mode=0o777, target="/usr/lib")
    tree = merged_tree([layer(link, folder("usr"), folder("usr/lib"), file("usr/lib/x"))])
    assert tree.real_path("lib/x") == "usr/lib/x"
    assert tree.real_path("usr/lib/x") == "usr/lib/x"
    assert tree.real_path("bin/x") == "bin/x"


def test_a_file_that_becomes_a_link_or_a_pipe_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    box = tmp_path / "box"
    box.mkdir()
    for name in ("link", "pipe"):
        (box / name).write_text("plain")
    with opened_tree(
        ImageSeen(path=str(box), kind="sandbox", title="i", identity="i", arch="")
    ) as tree:
        assert tree.read_text("link") == "plain"
        for name in ("link", "pipe"):
            (box / name).unlink()
        (box / "link").symlink_to(secret)
        os.mkfifo(box / "pipe")
        assert tree.read_text("link") == "" and tree.read_text("pipe") == ""
    assert tree.troubles[0].startswith("/link: ")


def test_an_image_with_too_many_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_tree, "MOST_FILES", 5)
    many = [file(f"f{number}") for number in range(9)]
    with pytest.raises(ImageError, match="more than"):
        merged_tree([layer(*many)])
    with pytest.raises(ImageError, match="more than"):
        merged_tree([layer(*many[:3]), layer(*many[3:6])])
    for number in range(9):
        (tmp_path / f"f{number}").touch()
    image = ImageSeen(path=str(tmp_path), kind="sandbox", title="i", identity="i", arch="")
    with pytest.raises(ImageError, match="more than"), opened_tree(image):
        pass
