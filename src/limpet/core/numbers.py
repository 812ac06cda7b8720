"""Versions of libraries and drivers, as far as they are numbers: `2.17`, `550.54.14`."""

from __future__ import annotations

import re


def numbers(version: str) -> tuple[int, ...]:
    """(550, 54, 14) of `550.54.14`."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def is_newer(one: str, other: str) -> bool:
    """Whether version `one` is above `other`; an empty one is below all."""
    return numbers(one) > numbers(other)
