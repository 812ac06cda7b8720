"""What starts cost: as a table, as JSON, as a picture."""

from __future__ import annotations

from html import escape

import msgspec

from limpet.core.bench import BenchReport, Counted, Saving, Start, Target, compare
from limpet.report.text import format_size, quote, safe

_MEANS = {
    "strace": "counted by strace",
    "python": "counted by Python",
    "kernel": "counted by the kernel",
}
_COLOURS = {"cold": "#3b6ea5", "warm": "#c98a2b"}
_INK = "#222222"
_ROW = 22
_LEFT = 330
_WIDE = 360


def render_bench(report: BenchReport) -> str:
    """For people."""
    lines = [f"import {safe(', '.join(report.imports))}, {_where(report)}"]
    if report.chosen_from:
        lines.append(
            f"  These are what {safe(report.chosen_from)} was made for; --import names others."
        )
    lines.append("")
    rows: list[tuple[str, ...]] = [("", "files", "metadata", "reads", "bytes", "on")]
    rows += [(safe(one.path), *_counts(one.counted), one.file_system) for one in report.targets]
    lines += _table(rows)
    for one in report.targets:
        lines += [f"  {safe(one.path)}: {safe(note)}" for note in _notes(one)]
    lines.append("")
    rows = [("", "at once", "", "median s", "least–most", "× quickest")]
    rows += [
        (
            f"{safe(one.target)} ({one.way})",
            str(one.processes),
            one.state,
            f"{one.taken.median_s:.2f}",
            f"{one.taken.least_s:.2f}–{one.taken.most_s:.2f}",
            f"{ratio:.2f}",
        )
        for one, ratio in compare(report.starts)
    ]
    lines += _table(rows)
    lines += ["", *_remarks(report)]
    for saving in report.savings:
        lines += ["", *render_saving(saving)]
    return "\n".join(lines) + "\n"


def render_json(report: BenchReport) -> str:
    """One JSON object."""
    slim = [
        msgspec.structs.replace(one, counted=msgspec.structs.replace(one.counted, paths=()))
        for one in report.targets
    ]
    told = msgspec.structs.replace(report, targets=tuple(slim))
    return msgspec.json.format(msgspec.json.encode(told)).decode() + "\n"


def render_saving(saving: Saving) -> list[str]:
    """What one file instead of a folder would save."""
    many = f"{saving.processes} starts" if saving.processes > 1 else "one start"
    return [
        f"{safe(saving.path)} as one file: {saving.files} files opened per start become 1;"
        f" for {many}, {saving.folder_operations:,} metadata operations become about"
        f" {saving.image_operations:,}.",
        f"  {' '.join(quote(word) for word in saving.command)}",
    ]


def render_svg(report: BenchReport) -> str:
    """A picture: a bar for each median, a line from the least to the most."""
    most = max((one.taken.most_s for one in report.starts), default=1.0) or 1.0
    parts, y = [], 46
    for one in report.starts:
        parts.append(_bar(one, y, _WIDE / most))
        y += _ROW
    y += 16
    operations = max((one.counted.metadata for one in report.targets), default=1)
    parts.append(_text(12, y, "Metadata operations of one start", weight="bold"))
    y += 12
    for target in report.targets:
        parts.append(_operations(target, y, _WIDE / operations))
        y += _ROW
    wide = _LEFT + _WIDE + 140
    title = f"Starts: import {', '.join(report.imports)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {y + 28}" '
        f'width="{wide}" height="{y + 28}" font-family="sans-serif" font-size="12" role="img">\n'
        f"<title>{_plain(title)}</title>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n'
        + _text(12, 22, title, weight="bold")
        + "".join(parts)
        + _text(12, y + 14, _where(report), colour="#666666")
        + "</svg>\n"
    )


def render_html(report: BenchReport) -> str:
    """A page that needs nothing from elsewhere: the picture and the table."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        "<title>Starts</title><style>body{font-family:sans-serif;margin:2em}"
        "svg{max-width:100%;height:auto}pre{overflow-x:auto}</style></head><body>\n"
        f"{render_svg(report)}<pre>{escape(render_bench(report))}</pre>\n</body></html>\n"
    )


def _where(report: BenchReport) -> str:
    return f"{safe(report.machine)}: {report.cores} cores, load {report.load:g}"


def _counts(counted: Counted) -> tuple[str, str, str, str]:
    about = "about " if counted.means != "strace" else ""
    operations = f"{counted.metadata:,}"
    reads = "?" if counted.reads is None else f"{about}{counted.reads:,}"
    size = "?" if counted.read_bytes is None else f"{about}{format_size(counted.read_bytes)}"
    if counted.means == "python":
        operations = about + operations
    return f"{counted.files:,}", operations, reads, size


def _notes(target: Target) -> list[str]:
    dropped = target.dropped
    found = [f"Files and operations of one start, {_MEANS[target.counted.means]}.", *target.notes]
    if dropped.left_bytes:
        found.append(
            f"Not quite cold: {format_size(dropped.left_bytes)} of"
            f" {format_size(dropped.size_bytes)} stayed in the page cache, in use elsewhere."
        )
    if dropped.unknown_files:
        found.append(
            f"Cold as far as known: of {dropped.unknown_files} files that are not yours"
            " the kernel does not tell."
        )
    return found


def _remarks(report: BenchReport) -> list[str]:
    found = ["cold: the files' contents are dropped from this node's page cache before each start."]
    if any(one.way == "kept" for one in report.starts):
        found.append(
            "kept: through limpet run --keep, in the image as an earlier start left it mounted."
        )
    if any(one.kind == "folder" for one in report.targets):
        found.append(
            "Names and attributes of a folder's files stay cached: only root can drop these, so the"
        )
        found.append("first start of a folder on a node takes longer than its cold start here.")
    return found


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _bar(one: Start, y: int, scale: float) -> str:
    taken = one.taken
    label = f"{one.target} ({one.way}), {one.state}, {one.processes} at once"
    middle = y + 7
    first, last = (_LEFT + value * scale for value in (taken.least_s, taken.most_s))
    return (
        _text(_LEFT - 8, y + 11, label, anchor="end")
        + f'<rect x="{_LEFT}" y="{y}" width="{taken.median_s * scale:.1f}" height="14" '
        f'fill="{_COLOURS[one.state]}"/>\n'
        f'<line x1="{first:.1f}" x2="{last:.1f}" y1="{middle}" y2="{middle}" stroke="#222222"/>\n'
        + _text(last + 6, y + 11, f"{taken.median_s:.2f} s ({taken.rounds} rounds)")
    )


def _operations(one: Target, y: int, scale: float) -> str:
    width = one.counted.metadata * scale
    return (
        _text(_LEFT - 8, y + 11, one.path, anchor="end")
        + f'<rect x="{_LEFT}" y="{y}" width="{max(width, 1):.1f}" height="14" fill="#5b8c5a"/>\n'
        + _text(_LEFT + width + 6, y + 11, f"{one.counted.metadata:,}")
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    weight: str = "",
    colour: str = "#222222",
) -> str:
    bold = f' font-weight="{weight}"' if weight else ""
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="{colour}"{bold}>'
        f"{_plain(_short(text) if anchor == 'end' else text)}</text>\n"
    )


def _short(text: str, most: int = 52) -> str:
    """The end of a path is what tells."""
    return text if len(text) <= most else f"…{text[-most + 1 :]}"


def _plain(text: str) -> str:
    return escape(safe(text))


PICTURES = {".svg": render_svg, ".html": render_html}
