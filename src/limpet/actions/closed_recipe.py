"""The recipe as it goes into an image: with what its description files say in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from limpet.core.closing import close_lines, close_project
from limpet.core.recipe import Packages, Recipe
from limpet.core.recipe_text import merge_recipes, parse_toml
from limpet.core.requirements import Line, expand, parse_requirements
from limpet.tools.recipes import Input, LoadedRecipe


def close_recipe(loaded: LoadedRecipe) -> Recipe:
    """The recipe without the files that can be said in its own words; the others stay named."""
    packages = loaded.recipe.packages
    kept: list[str] = []
    parts: list[Packages] = []
    open_inputs: list[Input] = []
    for name, one in zip(packages.files, loaded.inputs, strict=True):
        part = _close(one, packages)
        if part is None:
            kept.append(name)
            open_inputs.append(one)
        else:
            parts.append(part)
    if not parts:
        return loaded.recipe
    own = msgspec.structs.replace(
        packages,
        files=tuple(kept),
        extras=_known(packages.extras, [one.extras for one in open_inputs]),
        groups=_known(packages.groups, [one.groups for one in open_inputs]),
    )
    recipe = msgspec.structs.replace(loaded.recipe, packages=own)
    for part in parts:
        # uv lets the last index stand, and the recipe's own is asked for last.
        recipe = merge_recipes(Recipe(packages=part), recipe, override=True)
    return recipe


def _known(chosen: tuple[str, ...], known: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for name in chosen if any(name in names for names in known))


def _close(one: Input, packages: Packages) -> Packages | None:
    if one.kind == "requirements":
        return close_lines(tuple(_lines(one.path)))
    if one.kind == "pyproject":
        raw = parse_toml(one.path.read_text("utf-8"), str(one.path))
        extras = [name for name in packages.extras if name in one.extras]
        return close_project(raw, extras, [name for name in packages.groups if name in one.groups])
    return None


def _lines(path: Path, *, limits: bool = False) -> Iterator[Line]:
    """All lines of a requirements file and of those that it names; of `-c` files as constraints."""
    for line in parse_requirements(path.read_text("utf-8")):
        if line.kind in ("nested", "constraints"):
            beside = path.parent / expand(line.text, os.environ)
            if "://" in line.text:
                yield msgspec.structs.replace(line, kind="option")
            else:
                yield from _lines(beside, limits=limits or line.kind == "constraints")
        elif limits and line.kind == "requirement":
            yield msgspec.structs.replace(line, kind="constraints")
        elif not limits:
            yield line
