"""Which of the things that leak are set in which start: few starts, and every two meet in each."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.isolation.expected import PASSES, SEEN
from tests.isolation.poison import POISONS

WAYS = ("own image, run", "own image, launcher", "foreign image, run", "foreign image, launcher")
POLICIES = list(itertools.product(PASSES, SEEN, WAYS))
_CANDIDATES = 100


@dataclass(frozen=True)
class Row:
    """One start: its policies, and what is set against it."""

    variables: str
    home: str
    way: str
    poisons: frozenset[str]

    @property
    def levels(self) -> tuple[str, ...]:
        """What every two of the things must meet in."""
        return (f"--variables {self.variables}", f"--home {self.home}", self.way)

    def __str__(self) -> str:
        marks = "".join("x" if name in self.poisons else "." for name in POISONS)
        return f"{self.variables}-{self.home}-{self.way}-{marks}"


def pairs_of(row: Row) -> Iterator[tuple[str, str, bool, str, bool]]:
    """Each two things, there or not, with each of the row's policies."""
    for one, other in itertools.combinations(POISONS, 2):
        for level in row.levels:
            yield level, one, one in row.poisons, other, other in row.poisons


def choose_rows() -> tuple[Row, ...]:
    """A start for each pair of policies in each way; the same ones at every call."""
    dice = random.Random(6)
    covered: set[tuple[str, str, bool, str, bool]] = set()
    rows: list[Row] = []
    for variables, home, way in POLICIES:
        best, most = _draw(dice, variables, home, way), -1
        for _ in range(_CANDIDATES):
            row = _draw(dice, variables, home, way)
            new = len(set(pairs_of(row)) - covered)
            if new > most:
                best, most = row, new
        rows.append(best)
        covered |= set(pairs_of(best))
    return tuple(rows)


def _draw(dice: random.Random, variables: str, home: str, way: str) -> Row:
    poisons = frozenset(name for name in POISONS if dice.random() < 0.5)
    return Row(variables=variables, home=home, way=way, poisons=poisons)


def missing_pairs(rows: Sequence[Row]) -> set[tuple[str, str, bool, str, bool]]:
    """What no row has."""
    levels = {level for row in rows for level in row.levels}
    wanted = {
        (level, one, is_one, other, is_other)
        for level in levels
        for one, other in itertools.combinations(POISONS, 2)
        for is_one, is_other in itertools.product((False, True), repeat=2)
    }
    return wanted - {pair for row in rows for pair in pairs_of(row)}
