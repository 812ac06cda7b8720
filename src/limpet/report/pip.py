"""What `promote` did."""

from __future__ import annotations

from limpet.core.promotion import Promoted
from limpet.report.result import render_result
from limpet.report.text import quote, safe


def render_promoted(done: Promoted) -> str:
    """The recipe, what went into it, and how to go on."""
    if done.lock.lock_file is None:
        head, end = f"{done.recipe} would have:\n", ""
    else:
        head = f"{done.recipe} has:\n"
        build = f"limpet build {quote(str(done.recipe))} -o {quote(done.image)} --force"
        end = f"Next: {build}\n"
    lines = "".join(f"  {safe(line)}\n" for line in done.requirements)
    return safe(head.rstrip()) + "\n" + lines + render_result(done.lock) + end
