"""What images keep, as a table, in full, and as JSON."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import msgspec

from limpet.core.state import Cleaned, Kept
from limpet.report.text import format_size, safe

_PLACES = {
    "there": "there",
    "replaced": "replaced by another",
    "gone": "gone",
    "unknown": "not known",
}


def render_list(kept: Sequence[Kept]) -> str:
    """One line for each image, and the sum."""
    if not kept:
        return "No image keeps anything.\n"
    rows = [("IMAGE", "SIZE", "FILES", "LAST USED", "IMAGE FILE", "PERSONAL PACKAGES")]
    rows += [_row(one) for one in sorted(kept, key=lambda one: -one.size_bytes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    size, files = sum(one.size_bytes for one in kept), sum(one.files for one in kept)
    return "\n".join(lines) + f"\n{format_size(size)} in {files} files\n"


def _row(one: Kept) -> tuple[str, str, str, str, str, str]:
    place = "rebuilt since" if one.record.superseded else _PLACES[one.whereabouts]
    return (
        safe(one.title),
        format_size(one.size_bytes),
        str(one.files),
        _day(one.used_s),
        place,
        str(len(one.packages)),
    )


def render_kept(one: Kept) -> str:
    """Everything about one image's folder."""
    rows = [
        ("image", one.title),
        *(("path", path) for path in one.record.paths),
        ("is", _PLACES[one.whereabouts]),
        ("folder", one.folder),
        ("size", f"{format_size(one.size_bytes)} in {one.files} files"),
        ("last used", _day(one.used_s)),
        ("python", one.record.python),
        ("rebuilt", one.record.superseded),
        *(("package", f"{package.name} {package.version}") for package in one.packages),
    ]
    return "".join(f"{name:<10}{safe(value)}\n" for name, value in rows if value)


def render_cleaned(cleaned: Cleaned) -> str:
    """What was removed, or would be."""
    word = "Would remove" if cleaned.dry_run else "Removed"
    lines = [
        f"{word} {safe(one.folder)} ({safe(one.title)}, {format_size(one.size_bytes)})\n"
        for one in cleaned.kept
    ]
    return "".join(lines) or "There is nothing to remove.\n"


def render_json(kept: Sequence[Kept]) -> str:
    """One JSON object on one line."""
    return msgspec.json.encode({"kind": "state", "images": kept}).decode() + "\n"


def _day(time_s: float) -> str:
    return dt.datetime.fromtimestamp(time_s).strftime("%Y-%m-%d")
