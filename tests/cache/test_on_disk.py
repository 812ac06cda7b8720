"""The cache as it lies on a disk: looked through, checked, cleaned, and never under a build."""

from __future__ import annotations

import hashlib
import io
import os
import time
from pathlib import Path

import pytest

from limpet.actions.cache import clean_cache, see_cache, using_cache, verify_cache
from limpet.core.errors import LimpetError, UsageError
from limpet.core.events import Event
from limpet.core.request import BuildRequest
from limpet.formats.sif import SifWriter
from limpet.formats.squashfs import Entry, write_squashfs
from limpet.tools import files
from limpet.tools.cache_store import IN_USE
from limpet.tools.pieces import find_piece, write_piece

KEY = "ab" * 32
CONTENT = os.urandom(5000)
TEXT = b"".join(b"%d " % number for number in range(20000))


def add_piece(cache: Path, key: str = KEY) -> Path:
    entries = [Entry("f", "file", content=CONTENT)]
    made = write_piece(
        cache, key, entries, name="numpy", version="2.0", compressor="zstd", threads=1
    )
    return made.path


@pytest.fixture
def cache(tmp_path: Path, home: Path) -> Path:
    """One of each kind."""
    folder = tmp_path / "my cäche"
    add_piece(folder)
    data = b"wheel" * 1000
    wheel = folder / "wheels" / hashlib.sha256(data).hexdigest() / "numpy-2.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(data)
    base = folder / "bases/v2/sha256-1.sif"
    base.parent.mkdir(parents=True)
    with base.open("w+b") as file:
        writer = SifWriter(file, arch="amd64", ident=bytes(16))
        with writer.partition("root") as out:
            write_squashfs(out, [Entry("etc/x", "file", content=TEXT)])
        writer.finish()
    base.with_suffix(".facts.json").write_text("{}")
    (folder / "orders").mkdir()
    (folder / "orders/x.order").write_text("order\n")
    (folder / "uv").mkdir()
    (folder / "uv/index").write_text("x")
    return folder


def kinds(cache: Path) -> list[str]:
    return sorted(one.kind for one in see_cache(cache_dir=str(cache)).entries)


def test_everything_is_seen(cache: Path) -> None:
    seen = see_cache(cache_dir=str(cache))
    assert kinds(cache) == ["base", "download", "order", "other", "piece"]
    assert {one.name for one in seen.entries} >= {"numpy 2.0", "numpy-2.0-py3-none-any.whl", "uv"}
    assert all(one.size_bytes and one.used_s for one in seen.entries)
    assert see_cache(cache_dir=str(cache / "none")).entries == ()


def test_what_is_whole_stays(cache: Path) -> None:
    assert verify_cache(cache_dir=str(cache)).damaged == ()
    assert find_piece(cache, KEY)


def test_damage_is_found_and_goes(cache: Path) -> None:
    found = (*cache.glob("pieces/*/*.sqfs"), *cache.glob("wheels/*/*.whl"))
    for path in (*found, *cache.glob("bases/v2/*.sif")):
        data = bytearray(path.read_bytes())
        start = data.find(b"hsqs") if path.suffix == ".sif" else 0
        data[start + 96 : start + 300] = bytes(204)
        times = path.stat()
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a dying disk does it
    damaged = verify_cache(cache_dir=str(cache)).damaged
    assert sorted(one.kind for one in damaged) == ["base", "download", "piece"]
    assert kinds(cache) == ["order", "other"]


def test_a_piece_that_was_written_over_is_no_piece(cache: Path) -> None:
    (path,) = cache.glob("pieces/*/*.sqfs")
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    os.utime(path, (1, 1))
    assert find_piece(cache, KEY) is None
    add_piece(cache)
    os.utime(path, (1, 1))  # a copy of the whole cache: its bytes count
    assert find_piece(cache, KEY)


def test_what_is_used_is_kept_longest(cache: Path) -> None:
    other = "cd" * 32
    add_piece(cache, other)
    for note in cache.glob("pieces/*/*.json"):
        os.utime(note, (1000, 1000))
        os.utime(note.with_suffix(".sqfs"), (1000, 1000))
    find_piece(cache, KEY)  # two copies, so both are read once; only this one is used later
    pieces_bytes = sum(e.size_bytes for e in see_cache(cache_dir=str(cache)).entries) - 1
    cleaned = clean_cache((), max_size=str(pieces_bytes), cache_dir=str(cache))
    assert next(path for one in cleaned.removed for path in one.paths).endswith(f"{other}.sqfs")
    assert find_piece(cache, KEY) and not find_piece(cache, other)


def test_cleaning_needs_a_word_and_leaves_the_rest(cache: Path) -> None:
    where = str(cache)
    with pytest.raises(UsageError, match="not told what to remove"):
        clean_cache((), cache_dir=where)
    with pytest.raises(UsageError, match="holds no wheel"):
        clean_cache(("wheel",), cache_dir=where)
    with pytest.raises(UsageError, match="must be an age"):
        clean_cache((), older_than="long", cache_dir=where)
    with pytest.raises(UsageError, match="must be a size"):
        clean_cache((), max_size="much", cache_dir=where)
    assert len(clean_cache((), everything=True, dry_run=True, cache_dir=where).removed) == 5
    assert len(kinds(cache)) == 5
    clean_cache(("download",), cache_dir=where)
    assert kinds(cache) == ["base", "order", "other", "piece"]
    assert clean_cache((), older_than="1d", cache_dir=where).removed == ()
    clean_cache((), everything=True, cache_dir=where)
    assert kinds(cache) == []


def test_nothing_goes_while_a_build_is_at_work(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMPET_CACHE_MAX", "1")
    said: list[str] = []

    def notify(event: Event) -> None:
        said.append(event.message)

    request = BuildRequest(cache_dir=str(cache))
    with using_cache(request, notify):
        with pytest.raises(LimpetError, match="A build is using the cache"):
            clean_cache((), everything=True, cache_dir=str(cache))
        with using_cache(request, notify):
            pass  # another build that ends first
        assert len(kinds(cache)) == 5 and not said
    assert kinds(cache) == []
    assert "Removed 5 unused things" in said[0]


def test_a_bound_that_is_kept_removes_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with using_cache(BuildRequest(cache_dir=str(cache)), lambda _: None):
        pass
    monkeypatch.setenv("LIMPET_CACHE_MAX", "1G")
    with using_cache(BuildRequest(cache_dir=str(cache)), lambda _: None):
        pass
    assert len(kinds(cache)) == 5


def test_a_piece_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(28, "No space left on device")

    entries = [Entry("f", "file", content=lambda: Full())]
    with pytest.raises(LimpetError, match="cannot be written"):
        write_piece(tmp_path, KEY, entries, name="x", version="1", compressor="zstd", threads=1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert find_piece(tmp_path, KEY) is None


def test_locks_are_shared_or_taken(tmp_path: Path) -> None:
    place = tmp_path / IN_USE
    with files.shared(place), files.shared(place), files.taken(place) as alone:
        assert not alone
    with files.taken(place) as alone:
        assert alone
    started_s = time.monotonic()
    with files.shared(tmp_path / "file" / "x"):
        pass
    (tmp_path / "plain").write_text("")
    with files.shared(tmp_path / "plain" / "x"):  # cannot be: it goes without
        pass
    assert time.monotonic() - started_s < 5
