"""limpet.toml: text → Recipe, with errors that name the place and the nearest right word."""

from __future__ import annotations

import datetime as dt
import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from limpet.core.errors import RecipeError
from limpet.core.recipe import Recipe
from limpet.core.requirements import check_requirement, local_path

_ARGUMENT = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_APT = re.compile(r"[a-z0-9][a-z0-9+.-]*(:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]+)?\Z")
# Shell text and values for programs may span lines; everything else is one line.
_MANY_LINES = ("image.post", "warm.commands", "env.", "image.labels.", "image.args.")


def parse_recipe(text: str, source: str, *, arguments: Mapping[str, str] | None = None) -> Recipe:
    """The recipe in a limpet.toml; `arguments` win over its `[image] args`.

    `${NAME}` in any string is an argument; `$${NAME}` stands for a plain `${NAME}`.
    """
    raw = parse_toml(text, source)
    image = raw.get("image")
    own = image.get("args") if isinstance(image, dict) else None
    known = {**(own if isinstance(own, dict) else {}), **(arguments or {})}
    raw = _filled(raw, known, source, "")
    try:
        recipe = msgspec.convert(raw, Recipe)
    except msgspec.ValidationError as error:
        raise _explained(error, source) from error
    recipe = _with_base(recipe, source)
    check_recipe(recipe, source)
    return recipe


def _with_base(recipe: Recipe, source: str) -> Recipe:
    """`[image] on` as the base that it means."""
    image = recipe.image
    if image.base and image.on:
        raise RecipeError(f"{source}: image.base and image.on exclude each other.")
    if not image.on:
        return recipe
    image = msgspec.structs.replace(image, base=f"host:{image.on}", on="")
    return msgspec.structs.replace(recipe, image=image)


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """A TOML table, or a RecipeError with line and column."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source} is not valid TOML.", why=f"{error}.") from error


def _filled(value: Any, known: Mapping[str, Any], source: str, where: str) -> Any:
    """Arguments put in, TOML dates made text; `[image] args` itself stays as it is."""
    if isinstance(value, dict):
        if where == "image.args":
            return value
        dot = "." if where else ""
        return {
            key: _filled(item, known, source, f"{where}{dot}{key}") for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _filled(item, known, source, f"{where}[{index}]") for index, item in enumerate(value)
        ]
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if not isinstance(value, str):
        return value

    def argument(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        if match[2] not in known:
            raise RecipeError(
                f"{source} uses ${{{match[2]}}} in {where}, and no argument has that name.",
                why=_nearest(match[2], known) or f"Known arguments: {_listed(known)}.",
                now=f"Set it in [image] args or with --build-arg {match[2]}=VALUE; "
                f"write $${{{match[2]}}} for the text itself.",
            )
        return str(known[match[2]])

    return _ARGUMENT.sub(argument, value)


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"


def _nearest(word: str, words: Mapping[str, Any] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else ""


def _explained(error: msgspec.ValidationError, source: str) -> RecipeError:
    message, _, place = str(error).partition(" - at `")
    path = place.rstrip("`").removeprefix("$").removeprefix(".").replace("[...]", "[]")
    unknown = re.search(r"unknown field `(.*)`", message, re.DOTALL)
    if not unknown:
        wanted = message.replace("`", "").replace("object", "table")
        return RecipeError(f"{source}: {path or 'the file'} is wrong.", why=f"{wanted}.")
    fields = _fields_at(path)
    return RecipeError(
        f"{source}: unknown key {unknown[1]!r} in {f'[{path}]' if path else 'the file'}.",
        why=_nearest(unknown[1], fields),
        now=f"Known there: {', '.join(fields)}.",
    )


def _fields_at(path: str) -> tuple[str, ...]:
    if not path:
        return Recipe.__struct_fields__
    table = getattr(Recipe(), path.split(".")[0])
    return tuple(table.__struct_fields__)


def check_recipe(recipe: Recipe, source: str) -> None:
    """What the types alone do not say: names and places that would break a build or a shell."""
    for where, text in _strings(msgspec.to_builtins(recipe), ""):
        control = any(ord(letter) < 32 or ord(letter) == 127 for letter in text)
        if "\0" in text or (control and not where.startswith(_MANY_LINES)):
            raise RecipeError(f"{source}: {where} has a control character or line break: {text!r}.")
    for index, text in enumerate(recipe.packages.pip):
        check_requirement(text, f"{source}: packages.pip[{index}]")
    for index, text in enumerate(recipe.packages.constraints):
        check_requirement(text, f"{source}: packages.constraints[{index}]")
    for name in recipe.image.apt:
        if not _APT.match(name):
            raise RecipeError(f"{source}: image.apt has {name!r}, which is no package's name.")
    for name in (*recipe.env, *recipe.image.args, *recipe.run.pass_variables):
        if not _VARIABLE_NAME.match(name.removesuffix("*")):
            raise RecipeError(f"{source}: {name!r} cannot be the name of a variable.")
    if not re.fullmatch(r"(\d+(\.\d+)*)?", recipe.image.rocm):
        raise RecipeError(
            f"{source}: {recipe.image.rocm!r} is no version of ROCm.", now="Write it as 6.2."
        )
    if not re.fullmatch(r"(\d+(\.\d+)*)?", recipe.image.cuda):
        raise RecipeError(
            f"{source}: {recipe.image.cuda!r} is no version of CUDA.", now="Write it as 12.4."
        )
    for origin, place in recipe.files.items():
        if not place.startswith("/") or ".." in place.split("/"):
            raise RecipeError(
                f"{source}: files has {origin!r} → {place!r}, which is no place in the image.",
                now="Give an absolute path without `..`.",
            )


def _strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{where} (a key)".strip(), key
            yield from _strings(item, f"{where}.{key}" if where else key)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item, where)


def merge_recipes(first: Recipe, second: Recipe, *, override: bool = False) -> Recipe:
    """Both together: lists joined, tables united, single values from whichever says one.

    With `override` the second wins a contradiction (flags over files); else it is an error.
    """
    merged: Recipe = _merged(first, second, Recipe(), "", override)
    return merged


def _merged(first: Any, second: Any, default: Any, where: str, override: bool) -> Any:
    if isinstance(default, msgspec.Struct):
        fields = {
            name: _merged(
                getattr(first, name),
                getattr(second, name),
                getattr(default, name),
                f"{where}.{name}".lstrip("."),
                override,
            )
            for name in default.__struct_fields__
        }
        return type(default)(**fields)
    if isinstance(default, tuple):
        return tuple(dict.fromkeys((*first, *second)))
    if isinstance(default, dict):
        for key in first.keys() & second.keys():
            _one_of(first[key], second[key], f"{where}.{key}", override)
        return {**first, **second}
    if second == default:
        return first
    return second if first == default else _one_of(first, second, where, override)


def _one_of(first: Any, second: Any, where: str, override: bool) -> Any:
    if first != second and not override:
        raise RecipeError(
            f"The descriptions contradict each other: {where} is {first!r} and {second!r}.",
            now="Say it in one of them, or with a flag.",
        )
    return second


def rebase_recipe(recipe: Recipe, here: Path, folder: Path) -> Recipe:
    """Paths relative to `here` made relative to the recipe's folder."""
    if here == folder:
        return recipe
    packages = recipe.packages
    return msgspec.structs.replace(
        recipe,
        packages=msgspec.structs.replace(
            packages,
            files=tuple(os.path.relpath(here / name, folder) for name in packages.files),
            pip=tuple(_moved(text, here, folder) for text in packages.pip),
            channels=tuple(
                _near(here / name, folder) if name.startswith(".") else name
                for name in packages.channels
            ),
            find_links=tuple(
                link if "://" in link else os.path.relpath(here / link, folder)
                for link in packages.find_links
            ),
        ),
        files={os.path.relpath(here / name, folder): place for name, place in recipe.files.items()},
    )


def _moved(requirement: str, here: Path, folder: Path) -> str:
    """A requirement with the relative path in it, if any, counted from another folder."""
    local = local_path(requirement.removeprefix("-e "))
    if not local or local.startswith("/") or "file:" in requirement:
        return requirement
    return requirement.replace(local, _near(here / local, folder))


def _near(place: Path, folder: Path) -> str:
    """A relative path that cannot be taken for a name."""
    relative = os.path.relpath(place, folder)
    return relative if relative.startswith(".") else f"./{relative}"
