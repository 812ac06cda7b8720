"""The result of an action, field by field."""

from __future__ import annotations

from typing import Any

import msgspec

from limpet.report.text import format_size, safe


def render_result(result: msgspec.Struct) -> str:
    """`name  value` lines of what is set; units in field names become units of values."""
    fields: dict[str, Any] = msgspec.to_builtins(result)
    empty: tuple[Any, ...] = ("", None, (), [], {})
    rows = [_row(name, value) for name, value in fields.items() if value not in empty]
    return "".join(f"{name:<14}{safe(text)}\n" for name, text in rows)


def _row(name: str, value: Any) -> tuple[str, str]:
    if name.endswith("_bytes"):
        return name.removesuffix("_bytes"), format_size(value)
    if name.endswith("_s"):
        return name.removesuffix("_s"), f"{value:.1f} s"
    if isinstance(value, (list, tuple)):
        return name, ", ".join(map(str, value))
    return name, str(value)
