"""`python -X importtime` as a tree of spans.

Each line says a module's own and its cumulative time; those that it imports stand before it, two
columns further in (https://docs.python.org/3/using/cmdline.html#cmdoption-X).
"""

from __future__ import annotations

import re

import msgspec

MOST_LINES = 50_000
MOST_LEVELS = 200
_LINE = re.compile(r"import time: +(\d{1,12}) \| +(\d{1,12}) \| ( *)(\S.{0,400})$")


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One import: when it began, counted from the first, how long, and how deep it stands."""

    module: str
    start_us: int
    total_us: int
    self_us: int
    level: int


class ImportTime(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement's imports took; parents before what they import.

    `wall_s` is the time of the whole start, runtime included; `first_wall_s` that of the start
    before it, when nothing was in the node's memory yet, or was.
    """

    statement: str
    spans: tuple[Span, ...] = ()
    wall_s: float = 0
    first_wall_s: float = 0
    failure: str = ""

    @property
    def total_us(self) -> int:
        """Of all imports."""
        return sum(span.total_us for span in self.spans if span.level == 0)


class _Node:
    def __init__(self, module: str, self_us: int, total_us: int) -> None:
        self.module, self.self_us, self.total_us = module, self_us, total_us
        self.children: list[_Node] = []


def parse_importtime(text: str) -> tuple[Span, ...]:
    """The spans of what Python wrote to its error stream; other lines are passed over.

    What Python imports at its own start (before `site` is done) is left out.
    """
    waiting: list[tuple[int, _Node]] = []
    for line in text.splitlines()[-MOST_LINES:]:
        found = _LINE.match(line)
        if not found:
            continue
        level = min(len(found[3]) // 2, MOST_LEVELS)
        node = _Node(found[4].strip(), int(found[1]), int(found[2]))
        at = len(waiting)
        while at and waiting[at - 1][0] > level:
            at -= 1
        node.children = [below for _, below in waiting[at:]]
        del waiting[at:]
        waiting.append((level, node))
    tops = [node for _, node in waiting]
    starts = [at for at, node in enumerate(tops) if node.module == "site"]
    return _lay_out(tops[starts[-1] + 1 :] if starts else tops)


def _lay_out(tops: list[_Node]) -> tuple[Span, ...]:
    spans: list[Span] = []
    stack = [(node, 0, start) for node, start in reversed(_starts(tops, 0))]
    while stack:
        node, level, start = stack.pop()
        spans.append(
            Span(
                module=node.module,
                start_us=start,
                total_us=max(node.total_us, 0),
                self_us=node.self_us,
                level=level,
            )
        )
        below = _starts(node.children, start)
        stack += [(child, level + 1, at) for child, at in reversed(below)]
    return tuple(spans)


def _starts(nodes: list[_Node], at: int) -> list[tuple[_Node, int]]:
    starts = []
    for node in nodes:
        starts.append((node, at))
        at += node.total_us
    return starts
