"""A transfer in a few lines."""

from __future__ import annotations

from limpet.core.transfer import Transfer
from limpet.report.text import format_size, safe


def render_transfer(done: Transfer) -> str:
    """Where it is, its digest, how much was moved."""
    size = format_size(done.size_bytes)
    moved = "nothing" if not done.moved_bytes else format_size(done.moved_bytes)
    layers = f"{done.layers} as they are, and the environment in {format_size(done.layer_bytes)}"
    rows = [
        ("image", done.place),
        ("digest", done.digest),
        ("size", f"{size}, {moved} of it moved"),
        ("layers", layers if done.layer_bytes else ""),
        ("signature", done.signature),
        ("time", f"{done.elapsed_s:.1f} s"),
    ]
    return "".join(f"{name:<10}{safe(value)}\n" for name, value in rows if value)
