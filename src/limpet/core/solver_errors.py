"""What uv says when it finds no solution, as an error that a user can act on."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from limpet.core.errors import BuildError, FetchError, LimpetError, LockError, RecipeError
from limpet.core.provided import find_mentioned
from limpet.core.secrets import scrub_text
from limpet.core.tags import Target

_MOST_LINES = 4
_LONGEST_LINE = 320

_DENIED = re.compile(r"\b401 Unauthorized|\b403 Forbidden|valid authentication credentials")
_OFFLINE = re.compile(
    r"network was disabled|[Nn]etwork connectivity is disabled|not found in the cache"
)
_NETWORK = re.compile(
    r"error sending request|Request failed after|Failed to fetch|dns error|tcp connect|timed out"
    r"|Git operation failed"
)
_BAD_RECIPE = re.compile(
    r"Couldn't parse|Distribution not found at|File not found|Failed to parse|Unsupported "
    r"|[Ee]xpected |Error while accessing|conflicting indexes|Multiple index"
)
_BAD_DATE = re.compile(r"invalid value ('.*?') for '--exclude-newer")
_NOTHING_NEW = re.compile(r"No solution found when resolving dependencies:?$")
_DAMAGED = re.compile(r"Invalid zip file structure|unexpected end of file|Failed to extract ")
_BUILD = re.compile(r"Failed to (?:download and )?build|[Bb]uild backend")


def explain_failure(
    text: str,
    target: Target,
    *,
    provided: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
    by_conda: bool = False,
) -> LimpetError:
    """The error for what uv printed; `provided` is what the base has, `name` → version.

    With `by_conda` it is what the conda packages bring.
    """
    why = shorten(scrub_text(text, secrets))
    if _DENIED.search(text):
        return FetchError(
            "A package index refuses access.",
            why=why,
            now="Give credentials: in netrc, with `uv auth login`, or in the index's URL.",
        )
    if _OFFLINE.search(text):
        return FetchError(
            "Offline, and something needed is not in the cache.",
            why=why,
            now="Lock once with the network.",
        )
    if "No solution found" in text:
        return _unsolved(text, why, target, provided or {}, by_conda=by_conda)
    if _NETWORK.search(text):
        return FetchError(
            "The package index, or a package, cannot be reached.",
            why=why,
            now="Check the network, the proxy and the index's URL.",
        )
    if _DAMAGED.search(text):
        return FetchError(
            "A package's file is damaged.", why=why, now="Fetch it again, or ask for another one."
        )
    if date := _BAD_DATE.search(text):
        return RecipeError(
            f"exclude_newer: {date[1]} is no date.", now="Write 2026-01-31, or a time in full."
        )
    if _BAD_RECIPE.search(text):
        return RecipeError("The resolver cannot read the recipe.", why=why)
    if _BUILD.search(text):
        return BuildError(
            "A package must be built to learn what it needs, and that failed.",
            why=why,
            now="Ask for a version that has wheels, or repair the package.",
        )
    return LockError("The packages could not be resolved.", why=why)


def _unsolved(
    text: str, why: str, target: Target, provided: Mapping[str, str], *, by_conda: bool
) -> LockError:
    words = r"was not found in the (?:package registry|provided package locations)"
    unknown = re.search(rf"([\w.-]+) {words}", " ".join(text.split()))
    if unknown:
        return LockError(
            f"No package index has {unknown[1]}.",
            why=why,
            now="Check its name, or name the index that has it.",
        )
    if names := find_mentioned(text, provided):
        return base_conflict({name: provided[name] for name in names}, why, by_conda=by_conda)
    return LockError(
        f"No set of packages fits the recipe for {target.described}.",
        why=why,
        now="Loosen one of these requirements.",
    )


def base_conflict(provided: Mapping[str, str], why: str, *, by_conda: bool = False) -> LockError:
    """The recipe wants something else than what the base already has, or conda brings."""
    has = ", ".join(f"{name} {version}" for name, version in provided.items())
    if by_conda:
        return LockError(
            f"The pip packages do not fit what conda brings: {has}.",
            why=why,
            now="Loosen one of the two, or take both from conda.",
        )
    return LockError(
        f"The recipe does not fit what the base already has: {has}.",
        why=why,
        now="Loosen the requirement, choose another base, or use --isolated-from-base.",
    )


def shorten(text: str) -> str:
    """The first lines, which say what conflicts; uv breaks them for a terminal and indents."""
    lines: list[str] = []
    for line in text.strip().splitlines():
        if not line.strip() or line.startswith("warning:") or _NOTHING_NEW.search(line):
            continue
        plain = re.sub(r"^[\s×╰─▶├│]*(?:error: |cause: |help: )?", "", line).rstrip()
        if lines and line.startswith("  ") and not re.match(r"\s*(?:[×╰├]|cause: )", line):
            lines[-1] += f" {plain}"
        else:
            lines.append(plain)
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], f"(and {len(lines) - _MOST_LINES + 1} more lines)"]
    return "\n".join(textwrap.shorten(line, _LONGEST_LINE, placeholder=" …") for line in lines)
