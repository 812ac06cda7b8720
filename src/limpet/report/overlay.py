"""Overlays as text."""

from __future__ import annotations

from collections.abc import Sequence

from limpet.core.overlay import Overlay
from limpet.report.text import format_size, quote, safe

_USES = {"free": "not in use", "read": "being read", "written": "being written"}


def render_overlays(overlays: Sequence[Overlay]) -> str:
    """A few lines for each."""
    if not overlays:
        return "No overlays.\n"
    return "".join(_render(overlay) for overlay in overlays)


def _render(overlay: Overlay) -> str:
    rows = [
        ("file" if overlay.kind == "file" else "folder", overlay.path),
        ("image", overlay.label),
        ("holds", format_size(overlay.size_bytes) if overlay.size_bytes else ""),
        ("free", format_size(overlay.free_bytes)),
        ("on disk", format_size(overlay.disk_bytes)),
        ("now", _USES[overlay.use]),
        ("damage", overlay.damage),
    ]
    lines = [overlay.name, *(f"  {name:<10}{value}" for name, value in rows if value)]
    return "\n".join(safe(line) for line in lines) + "\n"


def render_created(overlay: Overlay, image: str) -> str:
    """What was made, and how it is used."""
    inside = overlay.path.split("/")[-2:-1] == ["overlays"]
    word = overlay.name if inside else overlay.path
    return (
        f"Made {safe(overlay.path)}.\nUse it: limpet run --overlay {quote(word)} {quote(image)} …\n"
    )


def render_checked(overlay: Overlay, said: str) -> str:
    """Whether it is sound, and what was mended."""
    state = "was mended" if said else "is sound"
    lines = [*said.splitlines(), f"{overlay.path} {state}."]
    return "\n".join(safe(line) for line in lines) + "\n"
