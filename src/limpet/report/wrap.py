"""What `wrap` and `update` did."""

from __future__ import annotations

import msgspec

from limpet.core.wrap import WrapReport
from limpet.report.text import safe


def render_wrap(report: WrapReport) -> str:
    """A few lines for a person."""
    rows = [
        ("launchers", f"{report.folder}/bin ({len(report.programs)}, version {report.version})"),
        ("image", report.image),
        ("programs", ", ".join(report.programs)),
        ("new", ", ".join(report.added)),
        ("gone", ", ".join(report.removed)),
        ("kernel", report.kernel),
        ("module", report.module),
        ("sources", f"{report.sources} ({report.source_files} files)" if report.sources else ""),
        *(("note", note) for note in report.notes),
    ]
    return "".join(f"{name:<10}{safe(value)}\n" for name, value in rows if value)


def render_wrap_json(report: WrapReport) -> str:
    """One JSON object on one line."""
    return msgspec.json.encode(report).decode() + "\n"
