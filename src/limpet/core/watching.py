"""Whether limpet stays beside a program that it starts, to answer a failure that it knows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal

# What standard error is: nobody reads `none`, and limpet can read a `file` again.
Stream = Literal["none", "file", "pipe", "terminal"]

RANKS = ("SLURM_PROCID", "PMIX_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "PALS_RANKID")
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*")
_SHELLS = re.compile(r"(?:ba|da|z|k|tc|c|fi)?sh|ipython3?|[rR]|julia|node|lua|irb")
# Options of Python that take the next word along, and those that end its own.
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def is_worth_watching(
    command: Sequence[str], environment: Mapping[str, str], *, stdin_terminal: bool, stderr: Stream
) -> bool:
    """False for interactive programs, all ranks of a step but the first, and where nobody reads.

    On a terminal only Python's scripts are watched: a program that draws on the whole terminal
    wants to have it for itself.
    """
    if not command or stderr == "none":
        return False
    if any(environment.get(name, "0") not in ("", "0") for name in RANKS):
        return False
    name = PurePosixPath(command[0]).name
    if _PYTHON.fullmatch(name):
        return _has_script(command[1:]) or not (stdin_terminal or stderr == "terminal")
    if stderr == "terminal":
        return False
    return not (stdin_terminal and _SHELLS.fullmatch(name) and not _has_script(command[1:]))


def _has_script(words: Sequence[str]) -> bool:
    """Whether an interpreter is given something to run, and does not turn interactive behind it."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in _WITH_VALUE:
            rest = rest[1:]
        elif word == "-":
            return False
        elif not word.startswith("-") or word.startswith(("-c", "-m")):
            return True
        elif not word.startswith("--") and "i" in word[1:]:
            return False
        elif re.fullmatch(r"-[A-Za-z]*[cm]", word):
            return True
    return False
