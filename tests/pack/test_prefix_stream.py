"""A folder read into an image and back, and what is said where the two differ."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pytest

from limpet.core.errors import BuildError, ImageError, SpaceError
from limpet.core.prefix import Seen, find_changes
from limpet.formats.squashfs import (
    Entry,
    Source,
    Squashfs,
    Written,
    compose,
    write_data,
    write_squashfs,
)
from limpet.formats.squashfs.blocks import BlockWriter, Content, Plain
from limpet.tools import prefix_scan, prefix_stream
from limpet.tools.prefix_scan import is_as_seen, looking_again, scan_tree
from limpet.tools.prefix_stream import TreeReader
from limpet.tools.prefix_verify import ReadBack, verify_tree
from tests.pack.conftest import make_tool

PLACE = "home/mé/a tool"


class Packed(NamedTuple):
    reader: TreeReader
    seen: tuple[Seen, ...]
    written: Written

    def wrong_in(self, image: BinaryIO, seen: tuple[Seen, ...] = ()) -> tuple[str, ...]:
        return proved(Squashfs(image), seen or self.seen, self.reader, self.written)


def proved(
    image: Squashfs, seen: tuple[Seen, ...], reader: TreeReader, data: Written
) -> tuple[str, ...]:
    with ReadBack(image.file, data) as back:
        wrong_blocks = back.wrong()
    return verify_tree(image, PLACE, seen, reader.contents, frozenset(), data, wrong_blocks)


def written(folder: Path, out: BinaryIO, *further: Entry) -> Packed:
    """The folder as an image in `out`, with further entries that replace some of it."""
    seen = scan_tree(folder)
    reader = TreeReader(folder, PLACE, seen)
    packed = write_data(out, chain(reader.entries(), further), decodes=True)
    compose(out, [Source(packed)])
    return Packed(reader, seen, packed)


def test_a_folder_and_its_image_are_the_same(tmp_path: Path) -> None:
    folder = make_tool(tmp_path / "tool")
    os.mkfifo(folder / "pipe")
    for number in range(300):
        (folder / "share" / f"{number}").write_bytes(b"%d " % number * (number * 3))
    with (tmp_path / "image").open("w+b") as out:
        assert written(folder, out).wrong_in(out) == ()
        image = Squashfs(out)
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
    with (tmp_path / "image").open("w+b") as out:
        wrong = written(folder, out, change).wrong_in(out)
    assert len(wrong) >= 1
    assert said in wrong[0]


def test_something_that_is_missing_in_the_image(tmp_path: Path) -> None:
    folder = make_tool(tmp_path / "tool")
    with (tmp_path / "image").open("w+b") as out:
        packed = written(folder, out)
        (folder / "late").touch()
        wrong = packed.wrong_in(out, scan_tree(folder))
    assert wrong == ("late is not in the image",)


@pytest.mark.parametrize("name", ["share/text", "share/large"])
def test_a_block_that_is_not_as_it_was_written(tmp_path: Path, name: str) -> None:
    folder = make_tool(tmp_path / "tool")
    with (tmp_path / "image").open("w+b") as out:
        packed = written(folder, out)
        image = Squashfs(out)
        node = image.find(f"{PLACE}/{name}")
        assert node is not None
        start = node.start if node.blocks else image.fragment_at(node.fragment)[0]
        out.seek(start + 20)
        (byte,) = out.read(1)
        out.seek(start + 20)
        out.write(bytes([byte ^ 1]))
        out.flush()
        assert f"{name} has another content" in packed.wrong_in(out)


def test_a_folder_by_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(make_tool(tmp_path / "tool"))
    with (tmp_path / "image").open("w+b") as out:
        packed = written(link, out)
        assert packed.wrong_in(out) == ()
        assert Squashfs(out).read(f"{PLACE}/bin/tool") == (link / "bin/tool").read_bytes()
    assert is_as_seen(link, packed.seen)


def test_data_that_lie_in_the_image_already(tmp_path: Path) -> None:
    """Behind something else in the file, with a base that has one of the large files too."""
    folder = make_tool(tmp_path / "tool")
    large = random.Random(1).randbytes(1_500_000)
    (folder / "share" / "first").write_bytes(large)
    (folder / "share" / "second").write_bytes(large)
    (folder / "share" / "other").write_bytes(b"x" + large[1:])
    base = BytesIO()
    write_squashfs(
        base,
        [Entry("etc/large", "file", content=large), Entry("etc/small", "file", content=b"small")],
    )
    seen = scan_tree(folder)
    reader = TreeReader(folder, PLACE, seen)
    with (tmp_path / "image").open("w+b") as out:
        out.write(b"before" * 100)
        packed = write_data(out, reader.entries(), decodes=True)
        stats = compose(out, [Source(Squashfs(base)), Source(packed)])
        image = Squashfs(out, 600)
        assert out.tell() == 600 + stats.size_bytes
        assert proved(image, seen, reader, packed) == ()
        assert image.read("etc/large") == large
        assert image.read("etc/small") == b"small"
        for name in ("first", "second", "other"):
            content = (folder / "share" / name).read_bytes()
            assert image.read(f"{PLACE}/share/{name}") == content
    assert stats.size_bytes < 2 * len(large) + 1_700_000  # each content once


def test_files_that_have_one_anothers_place(tmp_path: Path) -> None:
    folder = tmp_path / "tool"
    folder.mkdir()
    for name in ("one", "two", "large one", "large two"):
        (folder / name).write_bytes(name[-3:].encode() * (50_000 if "large" in name else 5))
    with (tmp_path / "image").open("w+b") as out:
        packed = written(folder, out)
        one, two, large_one, large_two = (
            packed.reader.contents.pop(name) for name in ("one", "two", "large one", "large two")
        )
        packed.reader.contents |= {
            "one": two,
            "two": one,
            "large one": large_two,
            "large two": large_one,
        }
        wrong = packed.wrong_in(out)
    assert len(wrong) == 4
    assert all(said.endswith("another content") for said in wrong)


def test_a_small_file_with_a_wrong_place_in_its_block(tmp_path: Path) -> None:
    folder = tmp_path / "tool"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / name).write_bytes(name.encode() * 5)
    with (tmp_path / "image").open("w+b") as out:
        packed = written(folder, out)
        assert packed.wrong_in(out) == ()
        node = packed.written.root()
        for step in f"{PLACE}/two".encode().split(b"/"):
            node = node.children[step]
        node.offset += 1
        out.seek(0)
        compose(out, [Source(packed.written)])
        assert packed.wrong_in(out) == ("two has another content",)


def test_a_shared_block_that_gives_back_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = BlockWriter._pack

    def bent(self: BlockWriter, blocks: list[Plain]) -> list[tuple[bytes, int, int]]:
        swapped = [[one.swapcase() for one in b] if isinstance(b, list) else b for b in blocks]
        return pack(self, swapped)

    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / "one").write_bytes(b"one" * 5)
    (folder / "digits").write_bytes(b"111" * 5)
    monkeypatch.setattr(BlockWriter, "_pack", bent)
    with (
        (tmp_path / "image").open("w+b") as out,
        pytest.raises(ImageError, match="cannot be decoded to what it was"),
    ):
        written(folder, out)


def test_a_small_file_that_is_put_elsewhere_than_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tool"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / name).write_bytes(name.encode() * 5)
    add_tail = BlockWriter._add_tail

    def astray(self: BlockWriter, data: bytes) -> Content:
        self._tail_bytes += 1
        return add_tail(self, data)

    monkeypatch.setattr(BlockWriter, "_add_tail", astray)
    with (
        (tmp_path / "image").open("w+b") as out,
        pytest.raises(ImageError, match="cannot be decoded to what it was"),
    ):
        written(folder, out)


def test_an_end_that_is_cut_off(tmp_path: Path) -> None:
    folder = make_tool(tmp_path / "tool")
    with (tmp_path / "image").open("w+b") as out:
        packed = written(folder, out)
        image = Squashfs(out)
        out.truncate(packed.written.data_end - 1)
        with pytest.raises(ImageError, match="cut off"):
            proved(image, packed.seen, packed.reader, packed.written)


@pytest.mark.parametrize("opening_s", [0.0, 0.001])
def test_files_are_read_in_their_order_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opening_s: float
) -> None:
    """One by one, and by many threads where opening takes its time."""
    folder = tmp_path / "tool"
    folder.mkdir()
    for number in range(70 * prefix_stream.BATCH_FILES):
        (folder / f"{number:05}").write_bytes(b"%d" % number * (number % 50))
    (folder / "00100").write_bytes(bytes(range(256)) * 4095)  # fills a batch of its own
    (folder / "old.pyc").write_bytes(b"\0" * (prefix_stream.BATCH_BYTES + 5))
    opened = TreeReader._open

    def slow(self: TreeReader, one: Seen) -> int:
        time.sleep(opening_s)
        return opened(self, one)

    monkeypatch.setattr(TreeReader, "_open", slow)
    entries = list(TreeReader(folder, "tool", scan_tree(folder)).entries())
    found = {entry.path: entry.content for entry in entries if entry.kind == "file"}
    assert list(found) == sorted(found)
    assert found == {f"tool/{path.name}": path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The copies of this process that are made."""
    made: list[int] = []
    fork = os.fork

    def noted() -> int:
        child = fork()
        made.append(child)
        return child

    monkeypatch.setattr(os, "fork", noted)
    return made


def all_ended(copies: list[int]) -> bool:
    for child in copies:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)
    return bool(copies)


def test_what_reads_ahead_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: list[int]
) -> None:
    folder = make_tool(tmp_path / "tool")
    monkeypatch.setattr(TreeReader, "_open", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(BuildError, match="reads the files ahead has ended"):
        list(TreeReader(folder, PLACE, scan_tree(folder)).entries())
    assert all_ended(copies)


def test_reading_that_is_broken_off_leaves_no_process(tmp_path: Path, copies: list[int]) -> None:
    folder = make_tool(tmp_path / "tool")
    entries = TreeReader(folder, PLACE, scan_tree(folder)).entries()
    next(entries)
    entries.close()  # type: ignore[attr-defined]
    assert all_ended(copies)


def test_another_look_in_a_copy(tmp_path: Path) -> None:
    folders = [make_tool(tmp_path / name) for name in ("one", "two")]
    seen = [(folder, scan_tree(folder)) for folder in folders]
    (folders[1] / "share/text").write_bytes(b"changed")
    with looking_again(seen) as answer:
        assert answer() == (True, False)


def test_data_in_the_image_are_not_ordered(tmp_path: Path) -> None:
    with (tmp_path / "image").open("w+b") as out:
        packed = write_data(out, [Entry("a", "file", content=b"a")])
        with pytest.raises(ValueError, match="already"):
            compose(out, [Source(packed)], order=["a"])


@pytest.fixture(params=["fast", "slow"])
def pace(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How long it takes to look at a file: where it is slow, threads look."""
    took_s = 1.0 if request.param == "slow" else 1e-6
    monkeypatch.setattr(prefix_scan, "_time_look", lambda entries: took_s if entries else 0.0)
    return str(request.param)


def test_folders_are_seen_in_order_whoever_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pace: str
) -> None:
    """Each before what is in it, sorted by name; many threads where looking takes its time."""
    expected = [""]
    for number in range(120):
        name = f"{number % 7}/{number:03}/deep.er"
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
        (tmp_path / f"{name}-file").touch()
    # By names, part by part: "deep.er-file" comes behind all that is in "deep.er".
    parts = [path.relative_to(tmp_path).parts for path in tmp_path.rglob("*")]
    expected += ["/".join(one) for one in sorted(parts)]
    threads: set[int] = set()
    list_folder = prefix_scan._list

    def noted(top: str, inside: str, closed: list[str]) -> object:
        threads.add(threading.get_ident())
        time.sleep(0.001)
        return list_folder(top, inside, closed)

    monkeypatch.setattr(prefix_scan, "_list", noted)
    assert [one.path for one in scan_tree(tmp_path)] == expected
    assert (len(threads) > 2) == (pace == "slow")


@pytest.mark.usefixtures("pace")
@pytest.mark.parametrize("what", ["text", "link", "mode", "new", "gone", "name", "folder", "none"])
def test_a_folder_that_is_not_as_it_was_seen(tmp_path: Path, what: str) -> None:
    folder = make_tool(tmp_path / "tool")
    seen = scan_tree(folder)
    share = folder / "share"
    if what == "text":
        (share / "text").write_bytes((share / "text").read_bytes())
    elif what == "link":
        (share / "link").unlink()
        (share / "link").symlink_to("texx")
    elif what == "mode":
        share.chmod(0o700)
    elif what == "new":
        (share / "new").touch()
    elif what == "gone":
        (share / "text").unlink()
    elif what == "name":
        (share / "text").rename(share / "texx")
    elif what == "folder":
        (share / "empty").mkdir()
    assert is_as_seen(folder, seen) == (what == "none")
    assert bool(find_changes(seen, scan_tree(folder))) == (what != "none")


@pytest.mark.parametrize("name", ["share/text", "share/large"])
def test_a_file_that_changes_before_its_turn(tmp_path: Path, name: str) -> None:
    folder = make_tool(tmp_path / "tool")
    reader = TreeReader(folder, PLACE, scan_tree(folder))
    (folder / name).write_bytes(b"changed")
    with pytest.raises(BuildError, match="changed while it was packed"):
        write_squashfs(BytesIO(), reader.entries())


@pytest.mark.usefixtures("pace")
@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_things_that_cannot_be_read(tmp_path: Path, mode: int) -> None:
    if os.geteuid() == 0:
        pytest.skip("Root reads everything.")
    folder = make_tool(tmp_path / "tool")
    (folder / "share/text").chmod(0o000)
    (folder / "bin").chmod(mode)
    try:
        with pytest.raises(SpaceError, match=r"2 of the things in .* cannot be read") as raised:
            scan_tree(folder)
        assert raised.value.why == f"{folder}/bin\n{folder}/share/text"
    finally:
        (folder / "bin").chmod(0o755)
