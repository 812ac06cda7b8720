"""What an update changed."""

from __future__ import annotations

from limpet.core.update import Change, UpdateReport
from limpet.report.result import render_result
from limpet.report.text import safe
from limpet.report.wrap import render_wrap


def render_update(report: UpdateReport) -> str:
    """The packages that changed, then the image, and the launchers where there are some."""
    lines = [_line(change) for change in report.changes] or ["No package changed."]
    lines += [f"Note: {note}" for note in report.notes]
    text = "".join(f"{safe(line)}\n" for line in lines) + render_result(report.build)
    return text + (render_wrap(report.wrap) if report.wrap else "")


def _line(change: Change) -> str:
    if not change.before:
        return f"+ {change.name} {change.after}"
    if not change.after:
        return f"- {change.name} {change.before}"
    return f"  {change.name} {change.before} -> {change.after}"
