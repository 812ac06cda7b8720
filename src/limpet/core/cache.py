"""The cache as values: what is in it, what goes first when it is too large."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import msgspec

from limpet.core.errors import UsageError

Kind = Literal["base", "piece", "download", "order", "other"]
KINDS: tuple[Kind, ...] = ("base", "piece", "download", "order", "other")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class CacheEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing in the cache: all its `paths` go together. `used_s` is in seconds since 1970.

    What lies in a file of `other` is small or another tool's; `name` says which folder it is.
    """

    kind: Kind
    name: str
    paths: tuple[str, ...]
    size_bytes: int
    files: int = 1
    used_s: float = 0.0


class CacheSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The whole cache; `most_bytes` is the configured bound (0: none)."""

    folder: str
    entries: tuple[CacheEntry, ...] = ()
    most_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """All entries together."""
        return sum(entry.size_bytes for entry in self.entries)


class CacheCleaned(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, or would be; and how large the cache is without it."""

    removed: tuple[CacheEntry, ...] = ()
    left_bytes: int = 0
    dry_run: bool = False


class CacheVerified(msgspec.Struct, frozen=True, kw_only=True):
    """How many entries were read, and those that were damaged and are gone."""

    checked: int = 0
    damaged: tuple[CacheEntry, ...] = ()


def parse_size(text: str, what: str) -> int:
    """`500M`, `20G`, `1.5 TB` in bytes; UsageError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:B|iB)?", text.strip(), re.IGNORECASE)
    if not found:
        raise UsageError(f"{what} must be a size, not {text!r}.", now="Write 500M, 20G or 1T.")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def plan_eviction(entries: Iterable[CacheEntry], most_bytes: int) -> tuple[CacheEntry, ...]:
    """What was not used for longest, until the rest is no larger than `most_bytes`."""
    ordered = sorted(entries, key=lambda entry: (entry.used_s, entry.name))
    excess_bytes = sum(entry.size_bytes for entry in ordered) - most_bytes
    going = []
    for entry in ordered:
        if excess_bytes <= 0:
            break
        going.append(entry)
        excess_bytes -= entry.size_bytes
    return tuple(going)


def plan_clean(
    entries: Sequence[CacheEntry],
    *,
    kinds: Collection[str] = (),
    most_bytes: int | None = None,
    unused_since_s: float | None = None,
) -> tuple[CacheEntry, ...]:
    """What goes: of these kinds (or all) what is that old, and only so much as is too much."""
    found = [entry for entry in entries if not kinds or entry.kind in kinds]
    if unused_since_s is not None:
        found = [entry for entry in found if entry.used_s < unused_since_s]
    if most_bytes is None:
        return tuple(found)
    kept_bytes = sum(entry.size_bytes for entry in entries if entry not in found)
    return plan_eviction(found, most_bytes - kept_bytes)
