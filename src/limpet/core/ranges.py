"""Ranges of a file's bytes, `(start, length)` each."""

from __future__ import annotations

from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]


def join_ranges(ranges: Iterable[tuple[int, int]], *, gap_bytes: int) -> Ranges:
    """Sorted, with gaps of less than `gap_bytes` between them closed."""
    joined: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        if joined and start - sum(joined[-1]) < gap_bytes:
            joined[-1] = joined[-1][0], max(sum(joined[-1]), start + length) - joined[-1][0]
        else:
            joined.append((start, length))
    return tuple(joined)
