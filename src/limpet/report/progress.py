"""Progress in three forms: bars on a terminal, timed lines in a log, JSON lines for a script."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Literal

import msgspec

from limpet.core.events import Event, Notify, ignore
from limpet.report.text import format_size, safe

if TYPE_CHECKING:
    from rich.progress import TaskID

Form = Literal["bars", "lines", "json", "none"]
LINE_INTERVAL_S = 10.0


@contextlib.contextmanager
def shown(form: Form, stream: IO[str]) -> Iterator[Notify]:
    """A listener for events that shows them on `stream` until the end of the block."""
    if form == "none":
        yield ignore
    elif form == "json":
        yield json_listener(stream)
    elif form == "lines":
        yield line_listener(stream)
    else:
        with _bars(stream) as notify:
            yield notify


def json_listener(stream: IO[str]) -> Notify:
    """One JSON object a line, written out at once."""

    def notify(event: Event) -> None:
        stream.write(msgspec.json.encode(event).decode() + "\n")
        stream.flush()

    return notify


def line_listener(stream: IO[str], *, interval_s: float = LINE_INTERVAL_S) -> Notify:
    """Plain lines with the time since the start; amounts at most every `interval_s`."""
    began = last = time.monotonic()

    def notify(event: Event) -> None:
        nonlocal last
        now = time.monotonic()
        if event.kind == "progress" and now - last < interval_s:
            return
        last = now
        stream.write(f"[{now - began:7.1f} s] {render_event(event)}\n")
        stream.flush()

    return notify


def render_event(event: Event) -> str:
    """One line of text, without the time."""
    words = [f"{event.stage}:"]
    if event.message:
        words.append(safe(event.message))
    elif event.kind in ("start", "end"):
        words.append("started" if event.kind == "start" else "done")
    amount = render_amount(event)
    if amount:
        words.append(f"({amount})" if len(words) > 1 else amount)
    return " ".join(words)


def render_amount(event: Event) -> str:
    """`3/12 packages`, `1.2 MB of 3.4 MB`, or nothing."""
    if not (event.done or event.total):
        return ""
    if event.unit == "bytes":
        done = format_size(event.done)
        return f"{done} of {format_size(event.total)}" if event.total else done
    done = f"{event.done}/{event.total}" if event.total else str(event.done)
    return f"{done} {event.unit}".rstrip()


@contextlib.contextmanager
def _bars(stream: IO[str]) -> Iterator[Notify]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=stream)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as progress:

        def notify(event: Event) -> None:
            if event.kind == "note":
                console.print(f"[dim]{escape(render_event(event))}[/dim]", highlight=False)
                return
            if event.stage not in tasks:
                tasks[event.stage] = progress.add_task(event.stage, total=None, amount="")
            task = tasks[event.stage]
            said = render_amount(event) or (safe(event.message) if event.message else None)
            if said is not None:
                progress.update(task, amount=escape(said))
            if event.total:
                progress.update(task, total=event.total, completed=event.done)
            if event.kind == "end":
                progress.update(task, total=event.total or 1, completed=event.total or 1)
                progress.stop_task(task)

        yield notify
