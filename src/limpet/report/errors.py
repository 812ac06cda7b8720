"""An error as the user sees it: what, why, what to do now."""

from __future__ import annotations

from limpet.core.errors import LimpetError
from limpet.report.text import safe


def render_error(error: LimpetError, *, colour: bool = False) -> str:
    """Lines of plain text; the first one begins with `limpet:`."""
    head = "\033[1;31mlimpet:\033[0m" if colour else "limpet:"
    lines = [f"{head} {_lines(error.what)}"]
    lines += [_lines(text) for text in (error.why, error.now) if text]
    return "\n".join(lines) + "\n"


def _lines(text: str) -> str:
    return "\n".join(safe(line) for line in text.splitlines())
