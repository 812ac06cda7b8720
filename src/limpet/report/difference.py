"""The difference between two images as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from limpet.core.difference import Change, Difference
from limpet.report.table import Align, Cell, Table, render_table
from limpet.report.text import format_size, safe

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "resized": "="}
_STYLES = {"added": "green", "removed": "red", "changed": "yellow", "resized": "dim"}
_COLUMNS: tuple[tuple[str, Align], ...] = (
    ("", "left"),
    ("package", "left"),
    ("before", "left"),
    ("after", "left"),
    ("size", "right"),
    ("files", "right"),
)


def render_difference(told: Difference, *, width: int = 0) -> str:
    """What is other: in sum, in what they are made from, in packages, in licences."""
    lines = [f"--- {safe(told.before)}", f"+++ {safe(told.after)}"]
    if not (told.changes or told.settings):
        return "\n".join([*lines, "the same packages, files and settings"]) + "\n"
    lines += [
        f"the file {format_change(told.image_bytes)}, unpacked {format_change(told.size_bytes)}, "
        f"{told.files:+d} files"
    ]
    if told.settings:
        lines.append("")
        lines += [
            f"{safe(one.name):<20}{safe(one.before) or '-'} → {safe(one.after) or '-'}"
            for one in told.settings
        ]
    for title, kind in (("packages", "package"), ("system packages and other files", "system")):
        changes = [one for one in told.changes if (one.manager in _SYSTEM) == (kind == "system")]
        if changes:
            lines += ["", title, *_table(changes, width)]
    if licenses := [*_licenses(told)]:
        lines += ["", "licences", *licenses]
    return "\n".join(lines) + "\n"


_SYSTEM = ("system", "other")


def _table(changes: Sequence[Change], width: int) -> Iterator[str]:
    rows = tuple(
        (
            Cell(text=_SIGNS[one.kind], style=_STYLES[one.kind]),
            Cell(text=one.name + (" (conda)" if one.manager == "conda" else ""), style="bold"),
            Cell(text=one.before or "-"),
            Cell(text=one.after or "-"),
            Cell(text=format_change(one.size_bytes)),
            Cell(text=f"{one.files:+d}"),
        )
        for one in changes
    )
    return render_table(Table(columns=_COLUMNS, rows=rows), width=width)


def _licenses(told: Difference) -> Iterator[str]:
    for one in told.relicensed:
        before, after = (safe(text) or "-" for text in (one.license_before, one.license_after))
        yield f"  ~  {safe(one.name)}: {before} → {after}"
    yield from (f"  +  {safe(name)}" for name in told.new_licenses)
    yield from (f"  -  {safe(name)}" for name in told.gone_licenses)


def format_change(size_bytes: int) -> str:
    """`+12.3 MB`, `-1.0 kB`."""
    return ("-" if size_bytes < 0 else "+") + format_size(abs(size_bytes))
