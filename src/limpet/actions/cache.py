"""`limpet cache`: what builds keep, listed, bounded, checked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from limpet.core.cache import (
    KINDS,
    CacheCleaned,
    CacheEntry,
    CacheSeen,
    CacheVerified,
    parse_size,
    plan_clean,
    plan_eviction,
)
from limpet.core.errors import LimpetError, UsageError
from limpet.core.events import Event, Notify
from limpet.core.request import BuildRequest
from limpet.core.state import parse_age
from limpet.tools import cache_store, files
from limpet.tools.config import read_config


def see_cache(*, cache_dir: str = "", config_file: str = "") -> CacheSeen:
    """All that is in the cache, the largest first."""
    config = read_config(config_file)
    folder = files.cache_folder(cache_dir or config.cache_dir)
    found = sorted(cache_store.list_entries(folder), key=lambda entry: -entry.size_bytes)
    most_bytes = parse_size(config.cache_max, "cache_max") if config.cache_max else 0
    return CacheSeen(folder=str(folder), entries=tuple(found), most_bytes=most_bytes)


def clean_cache(
    kinds: Collection[str],
    *,
    everything: bool = False,
    max_size: str = "",
    older_than: str = "",
    dry_run: bool = False,
    cache_dir: str = "",
    config_file: str = "",
) -> CacheCleaned:
    """Remove what was asked for; UsageError where nothing was, or while a build is at work."""
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise UsageError(f"The cache holds no {unknown[0]}.", why=f"It holds: {', '.join(KINDS)}.")
    if not (kinds or everything or max_size or older_than):
        raise UsageError(
            "limpet cache clean was not told what to remove.",
            now="Name kinds, --max-size, --older-than, or --all.",
        )
    age_s = parse_age(older_than) if older_than else None
    if older_than and age_s is None:
        raise UsageError(f"--older-than {older_than}: it must be an age.", now="Write 30d or 12h.")
    most_bytes = parse_size(max_size, "--max-size") if max_size else None
    seen = see_cache(cache_dir=cache_dir, config_file=config_file)
    going = plan_clean(
        seen.entries,
        kinds=kinds,
        most_bytes=most_bytes,
        unused_since_s=None if age_s is None else time.time() - age_s,
    )
    if dry_run:
        left_bytes = seen.size_bytes - sum(entry.size_bytes for entry in going)
        return CacheCleaned(removed=going, left_bytes=left_bytes, dry_run=True)
    return _remove(seen, going)


def _remove(seen: CacheSeen, going: tuple[CacheEntry, ...]) -> CacheCleaned:
    with _alone(Path(seen.folder)):
        gone = tuple(entry for entry in going if cache_store.remove_entry(entry))
    left_bytes = seen.size_bytes - sum(entry.size_bytes for entry in gone)
    return CacheCleaned(removed=gone, left_bytes=left_bytes)


def verify_cache(*, cache_dir: str = "", config_file: str = "") -> CacheVerified:
    """Read everything that has a digest, and remove what does not fit; builds make it again."""
    seen = see_cache(cache_dir=cache_dir, config_file=config_file)
    damaged = tuple(entry for entry in seen.entries if cache_store.is_damaged(entry))
    if damaged:
        _remove(seen, damaged)
    return CacheVerified(checked=len(seen.entries), damaged=damaged)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with files.taken(folder / cache_store.IN_USE) as alone:
        if not alone:
            raise LimpetError(
                f"A build is using the cache {folder}.",
                why="Or its file system has no locks, so that nobody can know.",
                now="Try again when it has ended; nothing was removed.",
            )
        yield


@contextlib.contextmanager
def using_cache(request: BuildRequest, notify: Notify) -> Iterator[None]:
    """For the time of a build: nothing is removed by others. Afterwards it is brought to its bound.

    Where another build is still at work, that one will see to it.
    """
    config = read_config(request.config_file)
    folder = files.cache_folder(request.cache_dir or config.cache_dir)
    with files.shared(folder / cache_store.IN_USE):
        yield
    if not config.cache_max or request.dry_run:
        return
    most_bytes = parse_size(config.cache_max, "cache_max")
    with files.taken(folder / cache_store.IN_USE) as alone:
        if not alone:
            return
        going = plan_eviction(cache_store.list_entries(folder), most_bytes)
        gone = [entry for entry in going if cache_store.remove_entry(entry)]
    if gone:
        freed_mb = sum(entry.size_bytes for entry in gone) / 1e6
        message = f"Removed {len(gone)} unused things from the cache ({freed_mb:.0f} MB)"
        notify(Event(stage="cache", kind="note", message=message))
