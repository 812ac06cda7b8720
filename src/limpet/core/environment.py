"""The runtime process's own environment: how variables reach the program inside."""

from __future__ import annotations

import re
from collections.abc import Sequence

from limpet.core.errors import UsageError


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


def runtime_environment(passed: dict[str, str], added: dict[str, str], kind: str) -> dict[str, str]:
    """What limpet adds goes by prefix, which alone wins over what the image itself sets.

    It goes plainly as well: the runtime reads the prefix after the image's 99-base.sh, and not at
    all where an image has other environment scripts but not that one (seen in Apptainer 1.4.5).
    """
    both = ("APPTAINERENV_", "SINGULARITYENV_")
    stale = {prefix + name for prefix in both for name in added}
    kept = {name: value for name, value in passed.items() if name not in stale}
    kept = join_settings(kept, kind)
    return kept | added | {prefixed(name, kind): value for name, value in added.items()}


def prefixed(name: str, kind: str) -> str:
    """The variable that becomes `name` inside, whatever the image says."""
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


def by_prefix(passed: dict[str, str]) -> dict[str, str]:
    """What the user hands in the runtime's own way."""
    return {
        name.removeprefix(prefix): value
        for prefix in ("APPTAINERENV_", "SINGULARITYENV_")
        for name, value in passed.items()
        if name.startswith(prefix)
    }
