"""Which of the host's environment variables reach the program inside, and why.

Apptainer passes what it is given, so limpet filters what it gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

import msgspec

from limpet.core.mounts import is_below
from limpet.core.recipe import VariablePolicy
from limpet.core.variable_groups import FOREIGN, INDEX, MANNER, RUNTIME, TEMPORARY, WANTED


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one variable."""

    name: str
    passes: bool
    reason: str


def judge_variable(name: str, policy: VariablePolicy, *, named: Sequence[str] = ()) -> Verdict:
    """Whether the variable passes under `policy`; `named` are patterns that someone asked for."""
    if _fits(name, RUNTIME.patterns):
        return Verdict(name=name, passes=True, reason=RUNTIME.reason)
    if _fits(name, named):
        return Verdict(name=name, passes=True, reason="asked for by name")
    if policy == "strict":
        return Verdict(name=name, passes=False, reason="--variables strict passes nothing")
    # An exported shell function arrives as BASH_FUNC_name%%, which no other program can use.
    groups = (INDEX, MANNER, *FOREIGN, *(() if policy == "host" else WANTED))
    for group in groups:
        if _fits(name, group.patterns):
            return Verdict(name=name, passes=group.passes, reason=group.reason)
    if policy == "host":
        return Verdict(name=name, passes=True, reason="--variables host passes it")
    return Verdict(name=name, passes=False, reason="not among what a job needs")


def select_variables(
    environment: Mapping[str, str],
    policy: VariablePolicy,
    *,
    named: Sequence[str] = (),
    visible: Sequence[str] = (),
    hidden: Sequence[str] = (),
) -> tuple[dict[str, str], tuple[Verdict, ...]]:
    """The variables that pass, and the verdict on each one.

    `visible` are host folders that are seen inside at the same path: a TMPDIR passes only below
    one of them, since a temporary folder that does not exist is worse than none. `hidden` are
    places that something else lies over inside.
    """
    verdicts = []
    for name in sorted(environment):
        verdict = judge_variable(name, policy, named=named)
        if name in TEMPORARY and policy != "strict":
            verdict = _judge_temporary(name, environment[name], visible, hidden)
        verdicts.append(verdict)
    passed = {v.name: environment[v.name] for v in verdicts if v.passes}
    return passed, tuple(verdicts)


def _judge_temporary(
    name: str, value: str, visible: Sequence[str], hidden: Sequence[str]
) -> Verdict:
    seen = any(is_below(value, folder) for folder in visible)
    seen = seen and not any(is_below(value, folder) for folder in hidden)
    reason = "its folder is seen inside" if seen else f"{value} is not seen inside (--bind it)"
    return Verdict(name=name, passes=seen, reason=reason)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    """As fnmatch, which would compile hundreds of expressions at each start."""
    names, starts, others = _by_form(tuple(patterns))
    return (
        name in names
        or name.startswith(starts)
        or any(fnmatchcase(name, pattern) for pattern in others)
    )


@lru_cache
def _by_form(
    patterns: tuple[str, ...],
) -> tuple[frozenset[str], tuple[str, ...], tuple[str, ...]]:
    """Those that are a name, those that are the start of one (nearly all), and the others."""
    names, starts, others = [], [], []
    for pattern in patterns:
        start = pattern.removesuffix("*")
        if "*" in start or "?" in start or "[" in start:
            others.append(pattern)
        elif start == pattern:
            names.append(pattern)
        else:
            starts.append(start)
    return frozenset(names), tuple(starts), tuple(others)
