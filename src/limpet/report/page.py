"""The report as one page: no network, no script but its own, nothing of an image as HTML.

What comes from images stands in the page as JSON whose `<`, `>` and `&` are written as escapes, and
the page's script shows it as text only. The Content Security Policy allows one script and one style
sheet, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from limpet.core.contents import MANAGERS, Contents, Software
from limpet.core.importtime import ImportTime
from limpet.core.page import ImageReport, Report
from limpet.report.inspect import fact_rows
from limpet.report.text import safe

MOST_SPANS = 4000
MOST_SOFTWARE = 5000
MOST_TEXT = 4000
MOST_VERSION = 100


def render_page(report: Report) -> str:
    """The whole HTML text."""
    style, script = _part("page.css"), _part("page.js")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    page = _part("page.html")
    for name, text in (
        ("policy", policy),
        ("style", style),
        ("script", script),
        ("data", _json(_report(report))),
    ):
        page = page.replace(f"<!--{name}-->", text, 1)
    return page


@cache
def _part(name: str) -> str:
    return (files("limpet.report") / "page_parts" / name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in, and has no character that misleads."""
    text = json.dumps(_plain(value), ensure_ascii=True, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return safe(value[:MOST_TEXT], lines=True)
    if isinstance(value, dict):
        return {safe(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _report(report: Report) -> dict[str, Any]:
    return {
        "limpet": report.limpet,
        "managers": MANAGERS,
        "images": [_image(one) for one in report.images],
        "difference": msgspec.to_builtins(report.difference),
    }


def _image(one: ImageReport) -> dict[str, Any]:
    seen = one.seen
    contents = seen.contents or Contents()
    return {
        "path": seen.path,
        "title": (seen.facts.name if seen.facts else "") or seen.path.rpartition("/")[2],
        "size": seen.size_bytes,
        "python": contents.markers.get("python_full_version", ""),
        "base": seen.facts.base.reference if seen.facts else "",
        "facts": fact_rows(seen),
        "parts": [[part.name, part.kind, part.size_bytes] for part in seen.parts],
        "layers": [msgspec.to_builtins(layer) for layer in contents.layers],
        "software": [_software(item) for item in contents.software[:MOST_SOFTWARE]],
        "edges": [[edge.source, edge.target, edge.wish] for edge in one.graph.edges],
        "asked": one.graph.asked,
        "loose": one.graph.loose,
        "imports": _imports(one.imports) if one.imports else None,
        "findings": msgspec.to_builtins(one.findings),
        "notes": one.notes,
    }


def _software(item: Software) -> dict[str, Any]:
    return {
        "name": item.name,
        "version": item.version[:MOST_VERSION],
        "manager": item.manager,
        "size": item.size_bytes,
        "files": item.files,
        "license": item.license,
        "summary": item.summary,
    }


def _imports(told: ImportTime) -> dict[str, Any]:
    spans = sorted(told.spans, key=lambda span: -span.total_us)[:MOST_SPANS]
    spans.sort(key=lambda span: (span.start_us, span.level))
    return {
        "statement": told.statement,
        "failure": told.failure,
        "wall": told.wall_s,
        "first": told.first_wall_s,
        "total": told.total_us,
        "count": len(told.spans),
        "spans": [[s.module, s.start_us, s.total_us, s.self_us, s.level] for s in spans],
    }
