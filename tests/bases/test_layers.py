from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Sequence
from functools import partial

import pytest

from limpet.core.errors import BaseError, FetchError, SpaceError
from limpet.formats.squashfs import Entry, Squashfs, write_squashfs
from limpet.tools import layers
from tests.images import make_layer


def entries_of(*tars: bytes, clamp: int | None = None) -> list[Entry]:
    tree = layers.LayerTree()
    for number, tar in enumerate(tars):
        tree.add_layer(number, layers.read_members(io.BytesIO(tar)))
    openers = [partial(io.BytesIO, tar) for tar in tars]
    out = io.BytesIO()
    found = []
    for entry in layers.read_entries(tree, openers, clamp=clamp):
        data = entry.content().read() if callable(entry.content) else entry.content
        found.append(
            Entry(
                entry.path, entry.kind, mode=entry.mode, mtime=entry.mtime, target=entry.target,
                content=data, hardlink=entry.hardlink,
            )
        )  # fmt: skip
    write_squashfs(out, found)
    assert Squashfs(out).root().is_dir
    return found


def names(*tars: bytes) -> set[str]:
    return {entry.path for entry in entries_of(*tars) if entry.path and entry.kind != "dir"}


def content(path: str, found: Sequence[Entry]) -> object:
    return next(entry.content for entry in found if entry.path == path)


def test_a_whiteout_hides_what_lies_below_and_nothing_of_its_own_layer() -> None:
    lower = make_layer({"a/": None, "a/x": "1", "a/y": "2", "b": "3"})
    upper = make_layer({"a/.wh.x": "", ".wh.b": "", "b": "new"})
    assert names(lower, upper) == {"a/y", "b"}
    assert content("b", entries_of(lower, upper)) == b"new"


def test_a_whiteout_of_a_folder_hides_all_of_it() -> None:
    lower = make_layer({"a/": None, "a/b/": None, "a/b/c": "1", "ab": "2"})
    assert names(lower, make_layer({".wh.a": ""})) == {"ab"}


def test_an_opaque_folder_keeps_only_its_own_wherever_the_mark_stands() -> None:
    lower = make_layer({"a/": None, "a/x": "1", "a/deep/": None, "a/deep/y": "2"})
    for upper in (
        make_layer({"a/": None, "a/.wh..wh..opq": "", "a/z": "3"}),
        make_layer({"a/": None, "a/z": "3", "a/.wh..wh..opq": ""}),
    ):
        assert names(lower, upper) == {"a/z"}


def test_only_the_last_content_of_a_file_is_read() -> None:
    found = entries_of(make_layer({"x": "old" * 1000}), make_layer({"x": "new"}))
    assert [entry.content for entry in found if entry.path == "x"] == [b"new"]


def test_a_file_gives_way_to_a_folder_and_back() -> None:
    file, folder = make_layer({"x": "1"}), make_layer({"x/": None, "x/y": "2"})
    assert names(file, folder) == {"x/y"}
    assert names(folder, file) == {"x"}


def test_a_name_below_a_symlink_lands_where_it_points() -> None:
    lower = make_layer({"usr/": None, "usr/lib/": None, "lib -> usr/lib": None})
    found = entries_of(lower, make_layer({"lib/x": "1"}))
    assert {entry.path for entry in found if entry.kind != "dir"} == {"lib", "usr/lib/x"}


def test_a_symlink_cannot_lead_out() -> None:
    lower = make_layer({"out -> ../../..": None})
    assert names(lower, make_layer({"out/x": "1"})) == {"out", "x"}


def hardlinked(first: str, second: str, target: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(first)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
        link = tarfile.TarInfo(second)
        link.type, link.linkname = tarfile.LNKTYPE, f"./{target or first}"
        tar.addfile(link)
    return buffer.getvalue()


def test_a_hard_link_outlives_its_hidden_first_name() -> None:
    found = entries_of(hardlinked("a", "b"), make_layer({".wh.a": ""}))
    assert [(e.path, e.content, e.hardlink) for e in found if e.path] == [("b", b"data", "")]
    found = entries_of(hardlinked("a", "b"))
    assert ("b", "a") in {(entry.path, entry.hardlink) for entry in found}


def test_a_hard_link_to_nothing_is_an_error() -> None:
    with pytest.raises(BaseError, match="damaged"):
        entries_of(make_layer({"x": "1"}), hardlinked("a", "b", "q"))


def test_a_name_that_leads_out_is_an_error() -> None:
    with pytest.raises(BaseError, match="leads out"):
        entries_of(make_layer({"../x": "1"}))


def test_a_layer_on_its_way_is_kept_as_a_plain_tar() -> None:
    tar = make_layer({"a/": None, "a/x": "1", "y": bytes(range(256)) * 9000})
    packed, kept = gzip.compress(tar), io.BytesIO()
    arriving = (packed[at : at + 1000] for at in range(0, len(packed), 1000))
    members = layers.keep_layer(arriving, kept)
    assert kept.getvalue() == tar
    assert members == layers.read_members(io.BytesIO(tar))


def test_a_disk_that_is_full_is_not_a_damaged_layer() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(SpaceError, match="No space left"):
        layers.keep_layer(iter([make_layer({"x": "1"})]), Full())


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_layer_cut_short_is_an_error(cut: float) -> None:
    whole = gzip.compress(make_layer({"x": bytes(range(256)) * 4000}))
    with pytest.raises(FetchError, match="damaged"):
        entries_of(whole[: int(len(whole) * cut)])


def test_modes_are_kept() -> None:
    for mode in (0o4755, 0o000, 0o1777):
        found = entries_of(make_layer({"x": "1"}, mode=mode))
        assert next(e.mode for e in found if e.path == "x") == mode


def test_byte_code_is_no_older_than_its_source() -> None:
    code = {f"m/__pycache__/{name}.cpython-313.pyc": "old" for name in "abcd"}
    sources = {f"m/{name}.py": "1" for name in "abc"}
    lower = make_layer({"m/": None, "m/__pycache__/": None, **sources, **code})
    new_b = {"m/b.py": "2", "m/__pycache__/b.cpython-313.pyc": "new"}
    found = names(lower, make_layer({"m/a.py": "2", **new_b}), make_layer({"m/c.py": "1"}))
    # A later layer brought `a` and `c` anew, `b` with its byte code; `d` has no source.
    wanted = {f"m/__pycache__/{name}.cpython-313.pyc" for name in "bd"}
    assert {path for path in found if path.endswith(".pyc")} == wanted


def test_clamped_byte_code_still_fits_its_source() -> None:
    pyc = b"magi" + bytes(4) + (1_600_000_000).to_bytes(4, "little") + b"sizecode"
    hashed = b"magi" + (1).to_bytes(4, "little") + b"hashhashcode"
    found = entries_of(make_layer({"x.pyc": pyc, "h.pyc": hashed}), clamp=1000)
    assert content("x.pyc", found) == pyc[:8] + (1000).to_bytes(4, "little") + pyc[12:]
    assert content("h.pyc", found) == hashed
    assert {entry.mtime for entry in found if entry.path} == {1000}
