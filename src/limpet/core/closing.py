"""A recipe that stands alone: what its description files say, said in the recipe itself.

It travels in the image, where those files are not, so that the image can be changed without them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from limpet.core.recipe import Packages
from limpet.core.requirements import Line, local_path

_INDEX = ("-i", "--index-url", "--pypi-url")
_EXTRA_INDEX = ("--extra-index-url",)
_HASH = re.compile(r"\s+--hash[= ]\s*\S+")


def close_lines(lines: Sequence[Line]) -> Packages | None:
    """A requirements file (nested ones read) as `[packages]`; None where a line has no word there.

    Hashes are left out: the lock has them.
    """
    pip: list[str] = []
    limits: list[str] = []
    links: list[str] = []
    indexes: list[str] = []
    default = ""
    for line in lines:
        if line.kind == "requirement":
            text = _HASH.sub("", line.text).strip()
            if local_path(text) or "--" in text:
                return None
            pip.append(text)
        elif line.kind == "constraints":
            limits.append(_HASH.sub("", line.text).strip())
        elif line.kind == "find_links" and "://" in line.text:
            links.append(line.text)
        elif line.kind == "option" and (value := _value(line.text, _INDEX)):
            default = value
        elif line.kind == "option" and (value := _value(line.text, _EXTRA_INDEX)):
            indexes.append(value)
        else:
            return None
    return Packages(
        pip=tuple(pip),
        constraints=tuple(limits),
        find_links=tuple(links),
        index_url=default,
        extra_index_urls=tuple(indexes),
    )


def close_project(
    raw: Mapping[str, Any], extras: Sequence[str], groups: Sequence[str]
) -> Packages | None:
    """The dependencies of a pyproject.toml, with the chosen extras and groups.

    None where it is installed itself, or says more about where packages come from.
    """
    project = raw.get("project", {})
    if "build-system" in raw or "uv" in raw.get("tool", {}):
        return None
    lines = list(project.get("dependencies", ()))
    optional = project.get("optional-dependencies", {})
    for name in extras:
        lines += optional.get(name, ())
    for name in groups:
        lines += raw.get("dependency-groups", {}).get(name, ())
    if not all(isinstance(line, str) and not local_path(line) for line in lines):
        return None  # a group may include another one
    return Packages(pip=tuple(lines))


def _value(text: str, flags: Sequence[str]) -> str:
    flag, _, value = text.replace("=", " ", 1).partition(" ")
    return value.strip() if flag in flags else ""
