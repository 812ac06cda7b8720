"""What the conda solver and its channels say when they fail, as errors that a user can act on."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from limpet.core.conda import hide_login
from limpet.core.errors import FetchError, LimpetError, LockError, RecipeError
from limpet.core.secrets import scrub_text

_LONGEST = 16
_FEW = 4  # versions that are named
_URL = re.compile(r"[a-z]+://[^\s'\"()`]+")


def explain_channel(text: str, secrets: Sequence[str] = ()) -> LimpetError:
    """The error for what the engine said of a channel."""
    why = shown(text, secrets)
    found = re.search(r"could not find subdir '\S+' in channel '([^']+)'", why)
    if found:
        return FetchError(
            f"There is no channel {found[1].rstrip('/')}.",
            why=why.partition("\n")[2] or "It has no noarch/repodata.json.",
            now="Check the channel's name, and `channel_alias` in .condarc.",
        )
    if "invalid channel name" in text or "is not a supported scheme" in text:
        return RecipeError("A conda channel's name cannot be read.", why=why)
    if "failed to parse" in text:
        return FetchError(
            "A conda channel's list of packages is damaged.",
            why=why,
            now="Look whether its address shows a login page, or index the channel again.",
        )
    if re.search(r"\b401\b|\b403\b|\b407\b", text):
        return FetchError(
            "A conda channel refuses access.",
            why=why,
            now="Give a login: in netrc, in the engine's own store (RATTLER_AUTH_FILE), with "
            "`anaconda login`, or in the channel's URL in .condarc.",
        )
    if "no usable repodata cache" in text:
        return FetchError(
            "Offline, and a channel's list of packages is not in the cache.",
            why=why,
            now="Lock once with the network.",
        )
    if re.search(r"HTTP status client error|HTTP status server error", text):
        return FetchError("A conda channel answers with an error.", why=why, now="Try again later.")
    return FetchError(
        "A conda channel cannot be reached.",
        why=_first_and_last(why),
        now="Check the network, the proxy and the channel's URL.",
    )


def _first_and_last(why: str) -> str:
    """Of a chain of causes what was asked for, and what really went wrong."""
    causes = [line for line in why.splitlines() if line.startswith("Caused by: ")]
    if len(causes) < 3:
        return why
    asked = next((line for line in causes if "://" in line), causes[0])
    return "\n".join(
        line.removeprefix("Caused by: ") for line in dict.fromkeys((asked, causes[-1]))
    )


def explain_unsolved(
    text: str,
    target: str,
    *,
    virtual: Mapping[str, str],
    elsewhere: Mapping[str, Collection[str]],
    near: Mapping[str, Sequence[str]],
    there: Mapping[str, Sequence[str]] = MappingProxyType({}),
    secrets: Sequence[str] = (),
) -> LimpetError:
    """The error for a set that has no solution.

    `elsewhere` says for which platforms the channels do have a package, `near` which names are
    nearest to one that they do not have at all, `there` which versions of one they have, where it
    is another one that is asked for.
    """
    why = _shorten(shown(text, secrets).removeprefix("Cannot solve the request because of: "))
    for name, subdirs in elsewhere.items():
        return LockError(
            f"The channels have {name} for {', '.join(sorted(subdirs))}, not for {target}.",
            why=why,
            now="Leave it out, or mark its line with a selector (`# [osx]`).",
        )
    for name, names in near.items():
        return LockError(
            f"No channel has {name}.",
            why=why,
            now=f"Did you mean {names[0]}?" if names else "Check its name, and the channels.",
        )
    lacking = dict.fromkeys(
        first or second
        for first, second in re.findall(
            r"(__\w+)[^,\n]*, for which no candidates|No candidates were found for (__\w+)", text
        )
    )
    if "__cuda" in lacking and "__cuda" not in virtual:
        now = "Say which CUDA the cluster's driver allows: --cuda 12.4, or cuda in [image]."
    elif lacking:
        now = f"The base has {_has(lacking, virtual)}: choose another base or older packages."
    elif asked := [name for name, versions in there.items() if versions]:
        now = "; ".join(f"The channels have {name} {_first(there[name])}." for name in asked)
    else:
        now = "Loosen one of these."
    return LockError(f"No set of conda packages fits the recipe for {target}.", why=why, now=now)


def _first(versions: Sequence[str]) -> str:
    more = f" … {versions[-1]}" if len(versions) > _FEW else ""
    return ", ".join(versions[:_FEW]) + more


def _has(names: Collection[str], virtual: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {virtual.get(name, '(none)')}" for name in names)


def shown(text: str, secrets: Sequence[str] = ()) -> str:
    """The engine's text without logins."""
    return scrub_text(_URL.sub(lambda match: hide_login(match[0]), text), secrets).strip()


def _shorten(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if len(lines) > _LONGEST:
        lines = [*lines[: _LONGEST - 1], f"(and {len(lines) - _LONGEST + 1} more lines)"]
    return "\n".join(lines)
