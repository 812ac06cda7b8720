"""A message of a failed program, and the answer to it; the tables are in `failure_tables`."""

from __future__ import annotations

import msgspec


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A message, and what to do about it. `example` is one as it was printed, `answer` one line.

    `codes`: exit codes that the row is for where nothing is said (128 + the signal).
    """

    name: str
    pattern: str = ""
    codes: tuple[int, ...] = ()
    answer: str
    example: str = ""
    source: str
