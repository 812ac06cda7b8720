"""What an action tells while it works; `report` draws it, a script reads it as JSON lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One step of progress.

    `stage` is a fixed word (`base`, `lock`, `fetch`, `wheels`, `image` …). `done`/`total` count in
    `unit` (`bytes`, `packages`, …); `total` 0 means unknown. `kind` `end` closes a stage.
    """

    stage: str
    kind: Literal["start", "progress", "note", "end"] = "progress"
    message: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    elapsed_s: float = 0.0


Notify = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of those who want to hear nothing."""
