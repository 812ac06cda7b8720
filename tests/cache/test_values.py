"""What goes first when the cache is too large, and how sizes are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.core.cache import CacheEntry, parse_size, plan_clean, plan_eviction
from limpet.core.errors import UsageError


def entry(name: str, size_bytes: int, used_s: float, kind: str = "piece") -> CacheEntry:
    return CacheEntry(kind=kind, name=name, paths=(name,), size_bytes=size_bytes, used_s=used_s)  # type: ignore[arg-type]


ENTRIES = (entry("new", 10, 3), entry("old", 10, 1), entry("mid", 10, 2, "base"))


def names(entries: tuple[CacheEntry, ...]) -> list[str]:
    return [one.name for one in entries]


def test_the_least_recently_used_goes_first() -> None:
    assert names(plan_eviction(ENTRIES, 30)) == []
    assert names(plan_eviction(ENTRIES, 29)) == ["old"]
    assert names(plan_eviction(ENTRIES, 10)) == ["old", "mid"]
    assert names(plan_eviction(ENTRIES, 0)) == ["old", "mid", "new"]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=20), st.integers(0, 400))
def test_never_more_than_needed_goes(sizes: list[tuple[int, int]], most: int) -> None:
    entries = [entry(str(i), size, used) for i, (size, used) in enumerate(sizes)]
    going = plan_eviction(entries, most)
    left = [one for one in entries if one not in going]
    assert sum(one.size_bytes for one in left) <= most
    if going:
        assert sum(one.size_bytes for one in (*left, going[-1])) > most
        assert max(one.used_s for one in going) <= min((one.used_s for one in left), default=9)


def test_only_what_was_asked_for_goes() -> None:
    assert names(plan_clean(ENTRIES, kinds=("base",))) == ["mid"]
    assert names(plan_clean(ENTRIES, unused_since_s=2.5)) == ["old", "mid"]
    assert names(plan_clean(ENTRIES, kinds=("piece",), most_bytes=15)) == ["old", "new"]
    assert names(plan_clean(ENTRIES, kinds=("piece",), most_bytes=20)) == ["old"]


def test_sizes() -> None:
    assert parse_size("500M", "x") == parse_size("0.5 GB", "x") == 500_000_000
    assert parse_size("7", "x") == 7 and parse_size("2t", "x") == 2 * 10**12
    for wrong in ("", "much", "-1G", "1X", "G"):
        with pytest.raises(UsageError, match="must be a size"):
            parse_size(wrong, "x")
