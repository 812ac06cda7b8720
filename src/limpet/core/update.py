"""What an update changes: in a recipe, and between two locks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from packaging.utils import canonicalize_name

from limpet.core.errors import UsageError
from limpet.core.lock import Lock
from limpet.core.plan import BuildReport
from limpet.core.recipe import Recipe
from limpet.core.request import BuildRequest
from limpet.core.wrap import WrapReport

Source = Literal["pip", "conda"]
_PIP_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_CONDA_NAME = re.compile(r"(?:.*::)?([A-Za-z0-9_][\w.-]*)")


class UpdateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to change: `add` and `remove` name packages, `build` is how to lock and build.

    `add` goes where the image's packages come from: conda's if it has any, else pip's. `build.pip`
    and `build.conda` say it themselves. `build.recipes` holds a recipe to change.
    """

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    build: BuildRequest = msgspec.field(default_factory=BuildRequest)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One package: an empty version is none."""

    name: str
    source: Source
    before: str = ""
    after: str = ""


class UpdateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an update did to an image; for a folder of launchers, to these as well."""

    image: str
    changes: tuple[Change, ...]
    build: BuildReport
    wrap: WrapReport | None = None
    notes: tuple[str, ...] = ()


def name_of(requirement: str, source: Source) -> str:
    """The package's normalised name in a requirement or a match spec; empty where it names none."""
    if source == "pip":
        found = _PIP_NAME.match(requirement.strip())
        return canonicalize_name(found[0]) if found else ""
    spec = _CONDA_NAME.match(requirement.strip())
    return spec[1].lower() if spec else ""


def change_recipe(
    recipe: Recipe, *, pip: Sequence[str], conda: Sequence[str], remove: Sequence[str]
) -> Recipe:
    """The recipe with packages added (in place of what it said of them) and others taken out."""
    packages = recipe.packages
    gone = {canonicalize_name(name) for name in remove}
    known = {name_of(text, "pip") for text in packages.pip}
    known |= {canonicalize_name(name_of(text, "conda")) for text in packages.conda}
    check_known(gone, known)
    packages = msgspec.structs.replace(
        packages,
        pip=_changed(packages.pip, pip, gone, "pip"),
        conda=_changed(packages.conda, conda, gone, "conda"),
    )
    return msgspec.structs.replace(recipe, packages=packages)


def check_known(gone: Iterable[str], known: Iterable[str]) -> None:
    """UsageError for a package that the recipe does not ask for."""
    known = sorted(filter(None, known))
    for name in gone:
        if name not in known:
            raise UsageError(
                f"--remove {name}: the recipe does not ask for it.",
                why=f"It asks for: {', '.join(known) or 'nothing'}.",
                now="What came with another package goes when nothing needs it any more.",
            )


def _changed(
    lines: Sequence[str], added: Sequence[str], gone: Iterable[str], source: Source
) -> tuple[str, ...]:
    replaced = {*gone, *(canonicalize_name(name_of(line, source)) for line in added)}
    kept = (line for line in lines if canonicalize_name(name_of(line, source)) not in replaced)
    return (*kept, *added)


def find_changes(before: Lock, after: Lock) -> tuple[Change, ...]:
    """The packages that one lock has in another version than the other, or alone."""
    old, new = _versions(before), _versions(after)
    return tuple(
        Change(name=name, source=source, before=was, after=now)
        for source, name in sorted(old.keys() | new.keys(), key=lambda key: key[1])
        if (was := old.get((source, name), "")) != (now := new.get((source, name), ""))
    )


def _versions(lock: Lock) -> dict[tuple[Source, str], str]:
    versions: dict[tuple[Source, str], str] = {
        ("pip", one.name): one.version for one in lock.packages
    }
    return versions | {("conda", one.name): f"{one.version} {one.build}" for one in lock.conda}
