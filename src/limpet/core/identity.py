"""What makes a recipe the same recipe: the parts of each description that decide what is installed.

Formatting, comments, absolute places and credentials are no part of it; `sha256_of` turns what is
left into the recipe's hash.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from limpet.core.recipe import Recipe
from limpet.core.requirements import Line
from limpet.core.secrets import scrub_text

_SCRIPT = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


def sha256_of(value: Any) -> str:
    """The hash of a plain value, whatever order its tables are in."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def recipe_identity(recipe: Recipe) -> Any:
    """What a limpet.toml says about what is installed; base and Python are compared by name."""
    packages = msgspec.to_builtins(recipe.packages)
    del packages["files"]  # their contents count, not their names
    if not recipe.packages.environment:
        del packages["environment"]
    cuda = {"cuda": recipe.image.cuda} if recipe.image.cuda else {}
    return _scrubbed(
        {
            **cuda,
            "packages": packages,
            "apt": recipe.image.apt,
            "post": recipe.image.post,
            "isolated_from_base": recipe.image.isolated_from_base,
        }
    )


def line_identity(line: Line, local: str, content: str) -> Any:
    """A requirement line; a local path in it gives way to the hash of what lies there."""
    kind = "requirement" if line.kind == "editable" else line.kind
    text = line.text
    if local:
        for form in (f"file://{quote(local)}", f"file:{quote(local)}", f"file:{local}", local):
            text = text.replace(form, "")
    return [kind, scrub_text(text), content]


def pyproject_identity(raw: dict[str, Any]) -> Any:
    """What of a pyproject.toml decides the packages."""
    project = raw.get("project", {})
    tool = raw.get("tool", {})
    return _scrubbed(
        {
            "project": {
                key: project.get(key)
                for key in ("name", "requires-python", "dependencies", "optional-dependencies")
            },
            "groups": raw.get("dependency-groups"),
            "uv": tool.get("uv") if isinstance(tool, dict) else None,
            "build": raw.get("build-system"),
        }
    )


def script_identity(text: str) -> dict[str, Any] | None:
    """The PEP 723 table of a script, or None where it has none; TOMLDecodeError if it is bad."""
    found = _SCRIPT.search(text)
    if not found:
        return None
    lines = found["content"].splitlines()
    return tomllib.loads("\n".join(line[2:] if line[:2] == "# " else line[1:] for line in lines))


def table_identity(raw: dict[str, Any]) -> Any:
    """All of a lock file that another tool wrote."""
    return _scrubbed(raw)


def lock_paths(raw: dict[str, Any]) -> Iterator[str]:
    """The local folders and files that a uv.lock or a pylock file installs from."""
    for package in raw.get("package", []) + raw.get("packages", []):
        source = package.get("source", {})
        for kind in ("editable", "directory", "path"):
            if kind in source:
                yield source[kind]
        for kind in ("directory", "archive"):
            if "path" in package.get(kind, {}):
                yield package[kind]["path"]


def source_paths(raw: dict[str, Any]) -> Iterator[str]:
    """The local folders that a pyproject.toml's `[tool.uv.sources]` names."""
    sources = raw.get("tool", {}).get("uv", {}).get("sources", {})
    for source in sources.values():
        for one in source if isinstance(source, list) else [source]:
            if "path" in one:
                yield one["path"]


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, dict):
        return {key: _scrubbed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrubbed(item) for item in value]
    return value
