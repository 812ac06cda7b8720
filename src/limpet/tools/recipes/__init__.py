"""Descriptions on the disk: read whole, with everything that they name, into one LoadedRecipe."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from limpet.core import conda_text, identity, other_tools
from limpet.core.conda import SUBDIRS, hide_login
from limpet.core.dependencies import plan_requested
from limpet.core.errors import RecipeError
from limpet.core.recipe import Packages, Recipe
from limpet.core.recipe_text import (
    check_recipe,
    merge_recipes,
    parse_recipe,
    parse_toml,
    rebase_recipe,
)
from limpet.core.requirements import Line
from limpet.core.secrets import scrub_text
from limpet.tools.recipes.inputs import (
    CONDA_LOCKS,
    Input,
    Reader,
    Source,
    kind_of,
    normalised,
    peek,
    read_text,
)
from limpet.tools.yaml_text import parse_yaml

__all__ = [
    "CONDA_LOCKS",
    "Input",
    "LoadedRecipe",
    "find_taken_for_conda",
    "kind_of",
    "read_recipe",
    "render_recipe",
]

# Descriptions that are recipes of their own, and may still be named in [packages] files.
_RECIPES = ("environment", "conda_requirements", "pixi")
# What a folder's recipe is usually called.
_USUAL = ("limpet.toml", "pyproject.toml", "requirements.in", "requirements.txt", "environment.yml")


@dataclass(frozen=True, kw_only=True)
class LoadedRecipe:
    """A recipe with all that it names read.

    `folder` is where relative paths of the recipe start. `allowed_hashes` are those that the
    requirements themselves demand; `names_index`: they say the default index. `named_indexes` and
    `secret_urls` are for finding credentials, and may carry them: never to show. `requested` are
    the requirements that it names, as far as they have names.
    """

    recipe: Recipe = field(repr=False)  # its URLs may carry credentials, too
    folder: Path
    inputs: tuple[Input, ...]
    sources: tuple[Source, ...]
    recipe_sha256: str
    allowed_hashes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    names_index: bool = False
    named_indexes: dict[str, str] = field(default_factory=dict, repr=False)
    secret_urls: tuple[str, ...] = field(default=(), repr=False)
    requested: tuple[str, ...] = ()


def read_recipe(
    paths: Sequence[Path],
    *,
    flags: Recipe | None = None,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedRecipe:
    """Read descriptions of any kind, one or several, merged; `flags` win over what they say.

    Relative paths start at `folder`: that of the first description unless it is given.
    """
    folder = folder or _folder(paths)
    recipe = _merge(paths, folder, flags or Recipe())
    packages = recipe.packages
    reader = Reader(folder, os.environ if environ is None else environ)
    inputs = tuple(reader.read_input(folder / name) for name in packages.files)
    _check_chosen(packages, inputs)
    lines = [Line(number=0, kind="requirement", text=text) for text in packages.pip]
    reader.read_lines(lines, "packages.pip")
    urls = (packages.index_url, *packages.extra_index_urls, *packages.find_links)
    urls += packages.channels
    for text in (*packages.pip, *packages.conda, *urls):
        reader.note_secrets(text)
    return LoadedRecipe(
        recipe=recipe,
        folder=folder,
        inputs=inputs,
        sources=tuple(reader.sources.values()),
        recipe_sha256=identity.sha256_of([identity.recipe_identity(recipe), reader.contents]),
        allowed_hashes=reader.hashes,
        names_index=reader.names_index,
        named_indexes=reader.named_indexes,
        secret_urls=tuple(dict.fromkeys(reader.secret_urls)),
        requested=plan_requested(reader.requested, packages.conda),
    )


def _merge(paths: Sequence[Path], folder: Path, flags: Recipe) -> Recipe:
    recipe = Recipe()
    for path in paths:
        place = path.absolute()
        _check_typed(path, place)
        if kind_of(place) == "limpet":
            told = parse_recipe(read_text(place), str(path), arguments=flags.image.args)
            recipe = merge_recipes(recipe, rebase_recipe(told, place.parent, folder))
        else:
            named = Recipe(packages=Packages(files=(os.path.relpath(place, folder),)))
            recipe = merge_recipes(recipe, named)
    environment = flags.packages.environment or recipe.packages.environment
    recipe = merge_recipes(_unfolded(recipe, folder, environment), flags, override=True)
    check_recipe(recipe, "The recipe")
    packages = msgspec.structs.replace(
        recipe.packages,
        extras=normalised(recipe.packages.extras),
        groups=normalised(recipe.packages.groups),
    )
    return msgspec.structs.replace(recipe, packages=packages)


def _check_typed(typed: Path, place: Path) -> None:
    """RecipeError that knows what people type in place of a recipe's name."""
    if place.suffix == ".sif" and place.exists():
        raise RecipeError(
            f"{place} is an image, not a recipe.",
            now="limpet update changes what is in it; --base builds on it.",
        )
    if place.is_dir():
        usual = [name for name in _USUAL if (place / name).exists()]
        now = f"Name the file: {typed / usual[0]}" if usual else "Name a file."
        raise RecipeError(f"{place} is a folder, not a recipe.", now=now)
    if not os.path.lexists(place):
        import difflib

        names = [path.name for path in place.parent.glob("*")]
        near = difflib.get_close_matches(place.name, names, n=1, cutoff=0.7)
        is_name = str(typed) == typed.stem  # without folder and suffix
        now = f"A package is named with --pip {typed}." if is_name else "Check the path."
        now = f"Did you mean {near[0]}?" if near else now
        raise RecipeError(f"There is no recipe {place}.", now=now)


def find_taken_for_conda(paths: Sequence[Path]) -> tuple[str, ...]:
    """A line for each file of requirements that is conda's by its form: it may be a slip."""
    return tuple(
        f"{path.name} is read as conda's: it has name=1.0, where pip has name==1.0"
        for path in paths
        if kind_of(path) == "conda_requirements"
    )


def _unfolded(recipe: Recipe, folder: Path, environment: str) -> Recipe:
    """The recipe with those of its files that are recipes of their own taken in.

    A pyproject.toml with a pixi workspace is both.
    """
    named = recipe.packages.files
    for place in (folder / name for name in named):
        if advice := other_tools.advise(place.name):
            raise RecipeError(f"{place} is another tool's, and no recipe for limpet.", now=advice)
    kinds = {name: kind_of(folder / name) for name in named}
    kept = tuple(name for name in named if kinds[name] not in _RECIPES)
    foreign = [
        folder / name
        for name in named
        if name not in kept or (kinds[name] == "pyproject" and _has_pixi(folder / name))
    ]
    packages = msgspec.structs.replace(recipe.packages, files=kept)
    recipe = msgspec.structs.replace(recipe, packages=packages)
    for path in foreign:
        told = _read_foreign(path, environment)
        recipe = merge_recipes(recipe, rebase_recipe(told, path.parent, folder))
    return recipe


def _has_pixi(path: Path) -> bool:
    return bool(re.search(r"(?m)^\s*\[tool\.pixi[.\]]", peek(path)))


def _read_foreign(path: Path, environment: str) -> Recipe:
    """A conda description as a recipe; its paths start at its own folder."""
    text, source, kind = read_text(path), str(path), kind_of(path)
    subdir = SUBDIRS.get(os.uname().machine, "linux-64")
    if kind in ("pixi", "pyproject"):
        try:
            raw = parse_toml(text, source)
            raw = raw["tool"]["pixi"] if kind == "pyproject" else raw
            return conda_text.pixi_recipe(raw, subdir, environment)
        except (AttributeError, TypeError, LookupError) as error:
            raise RecipeError(f"{path} is not shaped as its name says.", why=f"{error}.") from error
    text = conda_text.select_lines(text, subdir, source)
    if kind == "conda_requirements":
        return conda_text.requirements_recipe(text, source)
    return conda_text.environment_recipe(parse_yaml(text, source), source)


def render_recipe(recipe: Recipe) -> str:
    """The recipe as a limpet.toml: what it says beyond the defaults, without credentials."""
    import tomlkit

    packages = recipe.packages
    recipe = msgspec.structs.replace(
        recipe,
        packages=msgspec.structs.replace(
            packages,
            channels=tuple(map(hide_login, packages.channels)),
            conda=tuple(map(hide_login, packages.conda)),
        ),
    )
    return scrub_text(tomlkit.dumps(_said(msgspec.to_builtins(recipe))))


def _said(table: dict[str, Any]) -> dict[str, Any]:
    """A table without what says nothing; a recipe's defaults are all empty or a policy's name."""
    default = msgspec.to_builtins(Recipe())
    return {
        section: kept
        for section, values in table.items()
        if (kept := {k: v for k, v in values.items() if v != default[section].get(k)})
    }


def _check_chosen(packages: Packages, inputs: Sequence[Input]) -> None:
    """RecipeError for an extra or group that no description has."""
    for what, chosen, known in (
        ("extra", packages.extras, [name for one in inputs for name in one.extras]),
        ("group", packages.groups, [name for one in inputs for name in one.groups]),
    ):
        for name in chosen:
            if name not in known:
                raise RecipeError(
                    f"No description has the {what} {name!r}.",
                    why=f"There are: {', '.join(sorted(known)) or 'none'}.",
                )


def _folder(paths: Sequence[Path]) -> Path:
    """The folder of the first limpet.toml, else of the first description; else the current one."""
    absolute = [path.absolute() for path in paths]
    first = next((path for path in absolute if kind_of(path) == "limpet"), None)
    return (first or absolute[0]).parent if absolute else Path.cwd()
