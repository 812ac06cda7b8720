"""The cache as tables and as JSON."""

from __future__ import annotations

import datetime as dt

import msgspec

from limpet.core.cache import KINDS, CacheCleaned, CacheSeen, CacheVerified
from limpet.report.text import format_size, safe


def render_info(seen: CacheSeen) -> str:
    """How much of each kind."""
    lines = [f"folder    {safe(seen.folder)}"]
    for kind in KINDS:
        found = [entry for entry in seen.entries if entry.kind == kind]
        if found:
            size = format_size(sum(entry.size_bytes for entry in found))
            lines.append(f"{kind:<9} {size:>9} in {len(found)}")
    bound = f" of {format_size(seen.most_bytes)}" if seen.most_bytes else ", without a bound"
    lines.append(f"all       {format_size(seen.size_bytes):>9}{bound}")
    return "\n".join(lines) + "\n"


def render_list(seen: CacheSeen) -> str:
    """One line for each entry."""
    if not seen.entries:
        return "The cache is empty.\n"
    lines = [
        f"{entry.kind:<9} {format_size(entry.size_bytes):>9}  {_day(entry.used_s)}  {entry.name}"
        for entry in seen.entries
    ]
    return "\n".join(map(safe, lines)) + "\n"


def render_cleaned(cleaned: CacheCleaned) -> str:
    """What went, and what is left."""
    freed = format_size(sum(entry.size_bytes for entry in cleaned.removed))
    word = "Would remove" if cleaned.dry_run else "Removed"
    left = format_size(cleaned.left_bytes)
    return f"{word} {len(cleaned.removed)} entries, {freed}; {left} are left.\n"


def render_verified(verified: CacheVerified) -> str:
    """What was damaged."""
    lines = [f"damaged   {entry.kind} {entry.name}: removed" for entry in verified.damaged]
    lines.append(f"{verified.checked} entries, {len(verified.damaged)} damaged")
    return "\n".join(map(safe, lines)) + "\n"


def render_json(value: CacheSeen | CacheCleaned | CacheVerified) -> str:
    """As one JSON object."""
    return msgspec.json.encode(value).decode() + "\n"


def _day(time_s: float) -> str:
    return dt.datetime.fromtimestamp(time_s).strftime("%Y-%m-%d")
