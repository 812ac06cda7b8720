"""limpet's answer to the message of a failed program."""

from __future__ import annotations

import re

import msgspec

from limpet.core.failure_tables import FAILURES

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The row that fits, with its words filled in."""

    name: str
    answer: str


def find_answer(said: str, code: int) -> Answer | None:
    """The answer to the end of what a failed program said; None where nothing is known.

    The last message counts: what came before is often only a warning. Where two rows fit the same
    words, the table's first does, so the special stand before the general.
    """
    said = _COLOURS.sub("", said)
    best, place, words = None, -1, {}
    for row in FAILURES:
        for found in re.finditer(row.pattern, said) if row.pattern else ():
            if found.start() > place:
                best, place, words = row, found.start(), found.groupdict()
    if best is None:
        best = next((row for row in FAILURES if code in row.codes), None)
    if best is None:
        return None
    clean = {name: _clean(word or "") for name, word in words.items()}
    return Answer(name=best.name, answer=_fill(best.answer, clean))


def _fill(answer: str, words: dict[str, str]) -> str:
    for name, word in words.items():
        answer = answer.replace(f"{{{name}}}", word)
    return answer


def _clean(word: str) -> str:
    """A program's word, short and without control characters: it goes to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in word)[:80]
