"""The launcher's text: `core.variable_groups` as what a shell does fastest."""

from __future__ import annotations

import itertools
import operator
import string
from collections.abc import Sequence

from limpet.core.recipe import VariablePolicy
from limpet.core.variable_groups import (
    FOREIGN,
    INCLUDE_PATHS,
    INDEX,
    MANNER,
    RUNTIME,
    TEMPORARY,
    WANTED,
)

# The letters of most variables of jobs and modules come first; each group has some ten patterns.
_LETTER_GROUPS = ("S", "EDBVQ_XWY", "LK", "PO", "CA", "MN", "HJIF", "GRTUZ", string.ascii_lowercase)


def render_judges(policy: VariablePolicy, named: Sequence[str], siblings: tuple[str, str]) -> str:
    """`judge_variable` as a `case` with one in it for each group of first letters; what passes,
    continues.

    In groups and without what changes nothing, because a shell takes milliseconds to read all
    patterns and to try all of them on all variables.
    """
    rules = dict.fromkeys(TEMPORARY, True) if policy != "strict" else {}
    rules |= dict.fromkeys((*RUNTIME.patterns, *named), True)
    if policy != "strict":
        groups = (INDEX, MANNER, *FOREIGN, *(() if policy == "host" else WANTED))
        for group in groups:
            for pattern in group.patterns:
                if pattern != INCLUDE_PATHS:  # once for all, because it concerns each letter
                    rules.setdefault(pattern, group.passes)
    special = _special_judges(*siblings)
    lines = ["case $_limpet_to in"]
    for letters in _LETTER_GROUPS:
        fitting = [r for r in rules.items() if r[0].startswith((*letters, *"*?["))]
        before = "".join(special.get(letter, "") for letter in letters)
        lines.append(f"[{letters}]*) {before}{_render_judge(fitting, policy == 'host')} ;;")
    return "\n".join([*lines, "esac"])


def _special_judges(ours: str, others: str) -> dict[str, str]:
    """Of two forms of one setting the runtime heeds its own; a Jupyter kernel looks whether its
    server is still alive."""
    kernel = "case $_limpet_connection:$_limpet_to in /*:JPY_*) continue ;; esac\n"
    heeded = f"{others}ENV_*) _limpet_others=$_limpet_others$IFS${{_limpet_to#*_}} ;;"
    return {
        others[0]: f"case $_limpet_to in {heeded} esac\n",
        ours[0]: f"case $_limpet_to in {ours}ENV_*) _limpet_ours=1 ;; esac\n",
        "J": kernel,
    }


def _render_judge(rules: Sequence[tuple[str, bool]], default: bool) -> str:
    """The first pattern that fits decides; only those that differ from what comes anyway."""
    kept: list[tuple[str, bool]] = []
    for pattern, passes in reversed(rules):
        if passes != default or any(p != passes and _overlap(pattern, q) for q, p in kept):
            kept.insert(0, (pattern, passes))
    lines = [
        f"{'|'.join(pattern for pattern, _ in same)}) {'continue' if passes else ''} ;;"
        for passes, same in itertools.groupby(kept, key=operator.itemgetter(1))
    ]
    if default:
        lines.append("*) continue ;;")
    return "\n".join(["case $_limpet_to in", *lines, "esac"]) if lines else ""


def _overlap(one: str, other: str) -> bool:
    """Whether some name may fit both."""
    if any(set(pattern[:-1]) & set("*?[") or pattern[-1] in "?[" for pattern in (one, other)):
        return True
    one_start, other_start = one.removesuffix("*"), other.removesuffix("*")
    if one_start == one and other_start == other:
        return one == other
    if one_start == one:
        return one.startswith(other_start)
    if other_start == other:
        return other.startswith(one_start)
    return one_start.startswith(other_start) or other_start.startswith(one_start)
