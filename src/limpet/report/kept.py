"""Which images are kept mounted."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from limpet.core.keep import Kept
from limpet.report.text import safe


def render_kept(found: Sequence[Kept]) -> str:
    """A line each."""
    if not found:
        return "No image is kept mounted on this node.\n"
    return "".join(
        f"{safe(one.image)}  for {one.lifetime_s} s after its last program  ({one.name})\n"
        for one in found
    )


def render_ended(found: Sequence[Kept]) -> str:
    """What was ended."""
    if not found:
        return "There was nothing to end.\n"
    return "".join(f"Ended: {safe(one.image)}\n" for one in found)


def render_json(found: Sequence[Kept]) -> str:
    """One JSON object on one line."""
    return msgspec.json.encode({"kept": list(found)}).decode() + "\n"
