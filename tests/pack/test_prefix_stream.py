"""A folder read into an image and back, and what is said where the two differ."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest

from limpet.core.errors import BuildError, SpaceError
from limpet.core.prefix import Seen
from limpet.formats.squashfs import Entry, Squashfs, write_squashfs
from limpet.tools.prefix_scan import scan_tree
from limpet.tools.prefix_stream import TreeReader
from limpet.tools.prefix_verify import verify_tree
from tests.pack.conftest import make_tool

PLACE = "home/mé/a tool"


def written(folder: Path, out: BinaryIO) -> tuple[TreeReader, tuple[Seen, ...]]:
    seen = scan_tree(folder)
    reader = TreeReader(folder, PLACE, seen)
    write_squashfs(out, reader.entries())
    return reader, seen


def test_a_folder_and_its_image_are_the_same(tmp_path: Path) -> None:
    folder = make_tool(tmp_path / "tool")
    os.mkfifo(folder / "pipe")
    for number in range(300):
        (folder / "share" / f"{number}").write_bytes(b"%d " % number * (number * 3))
    with (tmp_path / "image").open("w+b") as out:
        reader, seen = written(folder, out)
        image = Squashfs(out)
        assert verify_tree(image, PLACE, seen, reader.contents, frozenset()) == ()
        assert image.find(f"{PLACE}/bin/tool") is image.find(f"{PLACE}/bin/same")
        assert image.find(f"{PLACE}/pipe").kind == "fifo"  # type: ignore[union-attr]
        assert image.read(f"{PLACE}/share/large") == (folder / "share/large").read_bytes()
        assert image.find(f"{PLACE}/share/holes").sparse_bytes > 2_000_000  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Entry(f"{PLACE}/share/text", "file", 0o644, content=b"said by a tool!!\n"), "content"),
        (Entry(f"{PLACE}/share/text", "file", 0o644, content=b"longer " * 9), "size"),
        (Entry(f"{PLACE}/share/text", "file", 0o755, content=b"said by the tool\n"), "mode"),
        (Entry(f"{PLACE}/share/link", "symlink", 0o777, target="other"), "target"),
        (Entry(f"{PLACE}/share/text", "fifo", 0o644), "type"),
        (Entry(f"{PLACE}/share/large", "file", 0o644, content=bytes(1_500_000)), "content"),
        (Entry(f"{PLACE}/bin/tool", "file", 0o755, content=b"x"), "size"),
    ],
)
def test_an_image_that_is_not_the_folder(tmp_path: Path, change: Entry, said: str) -> None:
    folder = make_tool(tmp_path / "tool")
    seen = scan_tree(folder)
    reader = TreeReader(folder, PLACE, seen)
    with (tmp_path / "image").open("w+b") as out:
        write_squashfs(out, [*reader.entries(), change])
        wrong = verify_tree(Squashfs(out), PLACE, seen, reader.contents, frozenset())
    assert len(wrong) >= 1
    assert said in wrong[0]


def test_something_that_is_missing_in_the_image(tmp_path: Path) -> None:
    folder = make_tool(tmp_path / "tool")
    with (tmp_path / "image").open("w+b") as out:
        reader, _ = written(folder, out)
        (folder / "late").touch()
        wrong = verify_tree(Squashfs(out), PLACE, scan_tree(folder), reader.contents, frozenset())
    assert wrong == ("late is not in the image",)


@pytest.mark.parametrize("name", ["share/text", "share/large"])
def test_a_file_that_changes_before_its_turn(tmp_path: Path, name: str) -> None:
    folder = make_tool(tmp_path / "tool")
    reader = TreeReader(folder, PLACE, scan_tree(folder))
    (folder / name).write_bytes(b"changed")
    with pytest.raises(BuildError, match="changed while it was packed"):
        write_squashfs(BytesIO(), reader.entries())


def test_things_that_cannot_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("Root reads everything.")
    folder = make_tool(tmp_path / "tool")
    (folder / "share/text").chmod(0o000)
    (folder / "bin").chmod(0o000)
    try:
        with pytest.raises(SpaceError, match=r"2 of the things in .* cannot be read") as raised:
            scan_tree(folder)
        assert f"{folder}/share/text" in raised.value.why
    finally:
        (folder / "bin").chmod(0o755)
