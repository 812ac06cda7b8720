"""Answers that cost a reading: kept as small files in the cache, found anew where they are gone.

What a full or read-only cache means is decided here once: nothing is kept, and nobody is troubled.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from limpet.core.errors import SpaceError
from limpet.tools import files

Answer = TypeVar("Answer")


def kept_answer(path: Path, kind: type[Answer], find: Callable[[], Answer]) -> Answer:
    """What is kept at `path`; else what `find` gives, which is kept from now on."""
    answer = recall(path, kind)
    if answer is None:
        answer = find()
        keep(path, answer)
    return answer


def recall(path: Path, kind: type[Answer]) -> Answer | None:
    """What is kept at `path`; None where there is nothing, or nothing that can be read as that."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=kind)
    return None


def keep(path: Path, answer: object) -> None:
    """Write it to `path` where that is possible."""
    with suppress(OSError, SpaceError):
        files.make_folder(path.parent)
        with files.written_beside(path) as out:
            out.write(msgspec.json.encode(answer, order="sorted"))
