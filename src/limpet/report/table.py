"""Tables on a terminal: with colours and cut to its width there, plain elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from limpet.report.text import safe

Align = Literal["left", "right"]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Text, and one of rich's styles for it."""

    text: str
    style: str = ""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Columns with their heads, and rows of as many cells."""

    columns: tuple[tuple[str, Align], ...]
    rows: tuple[tuple[Cell, ...], ...]


def render_table(table: Table, *, width: int = 0) -> Iterator[str]:
    """Lines without ends. `width` in columns; 0: plain text of any length, for files and pipes."""
    if width:
        yield from _rich(table, width)
        return
    rows = [[head for head, _ in table.columns]]
    rows += [[safe(cell.text) for cell in row] for row in table.rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(table.columns))]
    for row in rows:
        cells = [
            text.rjust(widths[at]) if table.columns[at][1] == "right" else text.ljust(widths[at])
            for at, text in enumerate(row)
        ]
        yield "  " + "  ".join(cells).rstrip()


def _rich(table: Table, width: int) -> Iterator[str]:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head, align in table.columns:
        numeric = align == "right"
        made.add_column(
            head, justify=align, no_wrap=True, overflow="fold" if numeric else "ellipsis"
        )
    for row in table.rows:
        made.add_row(*(Text(safe(cell.text), style=cell.style) for cell in row))
    console = Console(width=width, force_terminal=True, highlight=False)
    with console.capture() as captured:
        console.print(made)
    yield from captured.get().rstrip("\n").split("\n")
