"""How variables are handed to the runtime, and what of a session's settings it heeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from limpet.core.errors import UsageError

_PREFIXES = ("APPTAINERENV_", "SINGULARITYENV_")
_MEDDLING = ("CLEANENV", "CONTAIN", "CONTAINALL", "COMPAT", "NO_HOME", "HOME", "PWD", "UNDERLAY")


def parse_env(
    words: Sequence[str], environment: dict[str, str]
) -> tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]:
    """`--env NAME[=VALUE]`: the names, the values as they are to be inside, and notes."""
    values: dict[str, str] = {}
    notes = []
    for word in words:
        name, given, value = word.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"--env {word}: {name!r} is no variable's name.")
        if name == "HOME":
            raise UsageError("--env HOME: the runtime sets it.", now="Use --home.")
        if given:
            values[name] = value
        elif name in environment:
            values[name] = environment[name]
        else:
            notes.append(f"--env {name}: it is not set here.")
    return tuple(values), values, tuple(notes)


def hand_over(passed: dict[str, str], added: dict[str, str], kind: str) -> dict[str, str]:
    """The runtime's whole environment, from what passes and what limpet adds.

    What limpet adds goes by prefix, which alone wins over what the image itself sets.

    It goes plainly as well: the runtime reads the prefix after the image's 99-base.sh, and not at
    all where an image has other environment scripts but not that one (seen in Apptainer 1.4.5).
    """
    stale = {prefix + name for prefix in _PREFIXES for name in added}
    kept = {name: value for name, value in passed.items() if name not in stale}
    kept = join_settings(kept, kind)
    return kept | added | {prefixed(name, kind): value for name, value in added.items()}


def prefixed(name: str, kind: str) -> str:
    """The variable that sets `name` inside."""
    return ("APPTAINERENV_" if kind == "apptainer" else "SINGULARITYENV_") + name


def join_settings(passed: dict[str, str], kind: str) -> dict[str, str]:
    """The session's settings of the runtime, where a user has one form of a name, a site the other.

    Of APPTAINER_BIND and SINGULARITY_BIND the runtime heeds only one (1.4.5, observed): both count.
    """
    names = ("APPTAINER", "SINGULARITY")
    heeded, other = names if kind == "apptainer" else names[::-1]
    joined = dict(passed)
    for name in passed:
        twin = heeded + name.removeprefix(other)
        if name.startswith(f"{other}ENV_") and twin in passed:
            del joined[name]
        elif name in (f"{other}_BIND", f"{other}_BINDPATH") and twin in passed:
            binds = dict.fromkeys([*passed[twin].split(","), *joined.pop(name).split(",")])
            joined[twin] = ",".join(bind for bind in binds if bind)
    return joined


def set_by_prefix(passed: dict[str, str]) -> dict[str, str]:
    """What the user hands in the runtime's own way."""
    return {
        name.removeprefix(prefix): value
        for prefix in _PREFIXES
        for name, value in passed.items()
        if name.startswith(prefix)
    }


def find_meddling(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The session's settings of the runtime that undo what limpet does, a line each."""
    names = (f"{runtime}_{word}" for runtime in ("APPTAINER", "SINGULARITY") for word in _MEDDLING)
    return tuple(f"{n} is set, and the runtime obeys it." for n in names if environment.get(n))
