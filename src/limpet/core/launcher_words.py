"""Words for the launcher's shell: quoted, patterns, and what stands for a session's values."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

# Stand for what only the session knows, in a plan that is made for no session.
HOME, STATE, ROOT, PROGRAM = "/\ue000", "/\ue001", "/\ue002", "/\ue003"
_EXPANSIONS = {
    HOME: "$_limpet_home",
    STATE: "$_limpet_state",
    ROOT: "$_limpet_root",
    PROGRAM: "$_limpet_program",
}


def quoted(word: str) -> str:
    """The word for a shell; what stands for a session's value becomes that value."""
    text = shlex.quote(word)
    for mark, expansion in _EXPANSIONS.items():
        text = text.replace(mark, f"'\"{expansion}\"'")
    return text


def patterns(paths: Iterable[str], *, below: bool = False) -> str:
    """Alternatives of a `case`: the paths, and what is below them."""
    words = [shlex.quote(path) for path in paths]
    return "|".join(f"{word}|{word}/*" if below else word for word in words)


def below(paths: Iterable[str]) -> str:
    """Alternatives for a path that has a `/` put after it: the paths, and what is below them."""
    return "|".join(f"{shlex.quote(path)}/*" for path in paths)
