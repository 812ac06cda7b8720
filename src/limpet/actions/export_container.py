"""`limpet export --to dockerfile|def`: the same environment for those who build elsewhere."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import msgspec

from limpet.actions.export import find_lock
from limpet.core.blueprint import Mpi, Site, plan_blueprint, shown
from limpet.core.container_file import render_definition, render_dockerfile
from limpet.core.facts import BaseFacts, Interpreter
from limpet.core.image import RECIPE_OBJECT
from limpet.core.lock import Lock
from limpet.core.pylock import is_own_lock
from limpet.core.recipe import Recipe
from limpet.core.recipe_text import parse_recipe
from limpet.core.reference import Reference, parse_reference
from limpet.tools import base_store, files, images
from limpet.tools.config import read_config
from limpet.tools.recipes import read_recipe

ContainerForm = Literal["dockerfile", "def"]


def export_container(
    source: str,
    form: ContainerForm,
    *,
    output: Path | None = None,
    base: str = "",
    mpi: Mpi = "",
    cache_dir: str = "",
    config_file: str = "",
) -> str:
    """The text of a Dockerfile or a definition file; paths in it start at the output's folder.

    `source` is a recipe, a lock or an image. `base` takes the place of the lock's.
    """
    path = Path(source).absolute()
    lock, lock_folder = find_lock(path)
    recipe, recipe_folder, sha256 = _find_recipe(path)
    folder = output.parent if output else lock_folder
    cache = files.cache_folder(cache_dir or read_config(config_file).cache_dir)
    facts = None if base else _known_facts(cache, lock)
    site = Site(
        folder=folder,
        lock_folder=lock_folder,
        recipe_folder=recipe_folder,
        has_pip=_has_pip(facts, lock),
        has_apt="apt-get" in facts.programs if facts else None,
        musl=bool(facts and facts.libc and facts.libc.family == "musl"),
        is_stale=bool(sha256 and lock.recipe_sha256 != sha256),
        base_variables=facts.variables if facts else {},
    )
    origin = _origin(lock, base, lock_folder, folder)
    plan = plan_blueprint(lock, recipe, origin, site, mpi=mpi)
    return render_dockerfile(plan) if form == "dockerfile" else render_definition(plan)


def _find_recipe(path: Path) -> tuple[Recipe, Path | None, str]:
    """The recipe, where its files lie, and its hash; nothing of that is in a lock alone."""
    if images.is_sif(path):
        text = images.read_named(path, RECIPE_OBJECT)
        return (parse_recipe(text.decode(), str(path)) if text else Recipe()), None, ""
    if is_own_lock(path.read_text("utf-8", errors="replace")):
        return Recipe(), None, ""
    loaded = read_recipe([path])
    return loaded.recipe, loaded.folder, loaded.recipe_sha256


def _known_facts(cache: Path, lock: Lock) -> BaseFacts | None:
    """What an earlier lock or build learned of the base; exporting starts nothing to find out."""
    place = base_store.place_of(cache, lock.base.digest).with_suffix(".facts.json")
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(place.read_bytes(), type=BaseFacts)
    return None


def _has_pip(facts: BaseFacts | None, lock: Lock) -> bool:
    found: tuple[Interpreter, ...] = facts.interpreters if facts else ()
    own = next((one for one in found if one.path == lock.interpreter), None)
    return bool(own and any(one.name.lower() == "pip" for one in own.distributions))


def _origin(lock: Lock, base: str, lock_folder: Path, folder: Path) -> Reference:
    """Where the file starts from: `base`, or what the lock names, by its digest."""
    parsed = parse_reference(base or lock.base.reference)
    if base:
        return parsed
    if parsed.scheme == "debian":
        return parse_reference(f"docker://debian:{parsed.name}-slim")
    if parsed.scheme in ("docker", "oras"):
        return msgspec.structs.replace(parsed, digest=lock.base.digest)
    if parsed.scheme == "library":
        return parsed
    place = lock_folder / Path(parsed.path).expanduser()
    return msgspec.structs.replace(parsed, path=shown(place, folder))
