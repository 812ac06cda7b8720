"""The lock on the disk: where it lies, whether it still fits, and what is never written over."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
from packaging.utils import canonicalize_name

from limpet.core.errors import ExistsError, LockError, UsageError
from limpet.core.facts import Interpreter
from limpet.core.lock import Lock, LockedBase, find_differences
from limpet.core.provided import plan_stubs
from limpet.core.pylock import is_own_lock, parse_lock, render_lock
from limpet.core.request import BuildRequest
from limpet.tools.files import written_beside
from limpet.tools.recipes import LoadedRecipe, kind_of


def choose_lock_path(paths: Sequence[Path]) -> Path:
    """Where the lock of these descriptions lies, by PEP 751's names: beside the first.

    The usual names of a project's one description share `pylock.toml`; others, of which a folder
    may have several, have their own: `gpu.in` → `pylock.gpu.toml`.
    """
    first = paths[0].absolute() if paths else Path.cwd() / "limpet.toml"
    stem = re.sub(r"\.(toml|in|txt|py|lock|ya?ml)$", "", first.name)
    if first.name.startswith("pylock."):
        own = stem.removeprefix("pylock").strip(".")
        name = f"{own}-limpet" if own else "limpet"
    elif stem in ("limpet", "requirements", "pyproject", "uv", "environment", "pixi"):
        return first.parent / "pylock.toml"
    else:
        name = stem.removeprefix("limpet.")
    return first.parent / f"pylock.{re.sub(r'[.]+', '-', name).strip('-') or 'limpet'}.toml"


def read_lock(path: Path) -> Lock | None:
    """The lock that lies there, or None; LockError where it is damaged or another tool's."""
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{path} cannot be read.", why=f"{error}.") from error
    return parse_lock(text, str(path))


def write_lock(lock: Lock, path: Path) -> None:
    """Write a lock file; ExistsError rather than losing one that another tool wrote."""
    text = render_lock(lock).encode()
    if path.exists():
        there = path.read_bytes()
        if there == text:
            return
        if not is_own_lock(there.decode("utf-8", "replace")):
            raise ExistsError(
                f"{path} was not written by limpet, and is left alone.",
                now="Name another place for the lock, or move that file.",
            )
    with written_beside(path) as file:
        file.write(text)


def find_remarks(loaded: LoadedRecipe, lock: Lock, upgraded: Sequence[str]) -> tuple[str, ...]:
    """What of a request changed nothing, and so may not be what was meant."""
    names = {one.name for one in lock.packages} | {one.name for one in lock.conda}
    names |= set(lock.provided)
    remarks = [
        f"--upgrade-package {name}: the recipe brings no such package"
        for name in upgraded
        if canonicalize_name(name) not in names
    ]
    image = loaded.recipe.image
    if not (loaded.requested or names or image.apt or image.post or loaded.recipe.files):
        remarks.append("The recipe asks for no packages")
    return tuple(remarks)


def check_lock(
    lock: Lock,
    loaded: LoadedRecipe,
    *,
    base: LockedBase | None = None,
    interpreter: Interpreter | None = None,
) -> None:
    """LockError that says what of the recipe, base, Python or processor the lock does not fit."""
    if differences := _differences(lock, loaded, base, interpreter):
        raise LockError(
            "The lock does not fit.",
            why="\n".join(f"- {one}" for one in differences),
            now="Run limpet lock, or build without --frozen.",
        )


def fits(
    lock: Lock,
    loaded: LoadedRecipe,
    *,
    base: LockedBase | None = None,
    interpreter: Interpreter | None = None,
) -> bool:
    """Whether the lock can be used as it is, with nothing resolved again."""
    return not _differences(lock, loaded, base, interpreter)


def _differences(
    lock: Lock, loaded: LoadedRecipe, base: LockedBase | None, interpreter: Interpreter | None
) -> tuple[str, ...]:
    return find_differences(
        lock,
        recipe_sha256=loaded.recipe_sha256,
        base=base,
        python=interpreter.version if interpreter else loaded.recipe.image.python,
        provided=_provided(lock, interpreter),
    )


def _provided(lock: Lock, interpreter: Interpreter | None) -> dict[str, str] | None:
    """What a Python of the host has now; an image has what it had."""
    if (
        interpreter is None
        or lock.isolated_from_base
        or not lock.base.reference.startswith("host:")
    ):
        return None
    return {stub.name: stub.version for stub in plan_stubs(interpreter.distributions, {})}


def own_lock(paths: list[Path]) -> Lock | None:
    """The lock of limpet's own that was given in a recipe's place: its base is meant as well."""
    if len(paths) != 1 or kind_of(paths[0]) != "pylock":
        return None
    text = paths[0].read_text("utf-8")
    return parse_lock(text, str(paths[0])) if is_own_lock(text) else None


def frozen_lock(known: Lock | None, loaded: LoadedRecipe, lock_file: Path | None) -> Lock:
    """The lock that --frozen holds to; LockError where it is missing or does not fit."""
    if known is None:
        raise LockError(
            "There is no lock to be held to.",
            why=f"--frozen was given, and {lock_file or 'a lock file'} is not there.",
            now="Make one with `limpet lock`.",
        )
    check_lock(known, loaded)
    return known


def as_locked(
    request: BuildRequest, loaded: LoadedRecipe, lock: Lock
) -> tuple[BuildRequest, LoadedRecipe]:
    """A lock that is named without any recipe: it is what is meant, and stays as it is."""
    packages = loaded.recipe.packages
    if packages.pip or packages.conda:
        return request, loaded
    if request.upgrade or request.upgrade_packages:
        raise UsageError("There is nothing to lock anew: only a lock is named, and no recipe.")
    request = msgspec.structs.replace(request, frozen=True)
    return request, dataclasses.replace(loaded, recipe_sha256=lock.recipe_sha256)
