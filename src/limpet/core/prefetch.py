"""Whether a launch reads ahead what the start will read, decided by what was seen of the image."""

from __future__ import annotations

import msgspec

from limpet.core.image import Ahead

# Reading it at once takes some of the cores from the start, and saves 200 waits for a page. At
# 0.2 ms each neither is felt, from 0.5 ms on it is faster (docs/reference/benchmarks.md).
SLOW_S = 3e-4
# Of a larger part much is never read, and a node's memory is also its job's.
MOST_BYTES = 1 << 30
MEMORY_SHARE = 0.25


class AheadSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of an image's profile part.

    `kind` is its file system's type, `shared` whether that is one of a network. `waits_s` are how
    long single pages took, here and there in it. `memory_bytes`: what programs may still take.
    """

    ahead: Ahead = Ahead()
    kind: str = ""
    shared: bool = False
    waits_s: tuple[float, ...] = ()
    memory_bytes: int = 0
    rank: int = 0


class Prefetch(msgspec.Struct, frozen=True, kw_only=True):
    """`ranges` are to be read while the program starts, none of them where it does not pay."""

    ranges: tuple[tuple[int, int], ...] = ()
    reason: str


def is_worth_it(ahead: Ahead) -> bool:
    """Whether an image's profile part is there, and small enough to be read ahead anywhere."""
    return 0 < ahead.size_bytes <= MOST_BYTES


def plan_prefetch(seen: AheadSeen) -> Prefetch:
    """Read ahead only what is slow to read now: it costs a start more than it saves when cached."""
    size_bytes = seen.ahead.size_bytes
    if not size_bytes:
        return Prefetch(reason="no: the image has no profile")
    if not seen.shared:
        return Prefetch(reason=f"no: {seen.kind or 'its file system'} is local")
    if seen.rank:
        return Prefetch(reason="no: the first rank on this node does")
    slow = sum(wait_s > SLOW_S for wait_s in seen.waits_s)
    of = len(seen.waits_s)
    if slow * 2 <= of:
        said = "could not be read" if not of else f"{of - slow} of {of} pages came at once"
        return Prefetch(reason=f"no: {said}")
    if not is_worth_it(seen.ahead) or size_bytes > seen.memory_bytes * MEMORY_SHARE:
        return Prefetch(reason=f"no: {size_bytes / 1e6:.0f} MB is too much for the memory here")
    longest_ms = sorted(seen.waits_s)[of // 2] * 1e3
    return Prefetch(
        ranges=seen.ahead.ranges,
        reason=f"{size_bytes / 1e6:.0f} MB: {slow} of {of} pages on {seen.kind} were not at hand "
        f"(median {longest_ms:.1f} ms)",
    )
