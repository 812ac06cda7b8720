"""`limpet pip IMAGE promote`: from personal packages to a recipe and a lock that have them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from limpet.actions.build import lock
from limpet.actions.lock_files import choose_lock_path
from limpet.actions.state import list_state
from limpet.core.errors import UsageError
from limpet.core.events import Notify, ignore
from limpet.core.promotion import Promoted
from limpet.core.request import BuildRequest
from limpet.core.state import PersonalPackage
from limpet.tools import images
from limpet.tools.recipe_edit import change_recipe_text, replace_text

_USUAL = ("limpet.toml", "pyproject.toml", "*.toml", "*.in", "*.txt")


def promote(image: str, request: BuildRequest, notify: Notify = ignore) -> Promoted:
    """Write the image's personal packages into its recipe and lock it anew.

    `request` says how to lock; where it names no recipe, the one in the working folder is taken
    whose lock is the image's. The recipe is as it was where no lock can be made.
    """
    seen = images.read_image(image)
    if seen.facts is None:
        raise UsageError(
            f"{image} was not made by limpet: it has no recipe.",
            now=f"Build one on it: limpet build --base {image} --pip NAME -o FILE.",
        )
    packages = _personal(seen.identity, request.config_file)
    if not packages:
        raise UsageError(f"{image} has no personal packages.")
    recipe = _only(request.recipes) or _find_recipe(seen.facts.lock_sha256)
    wanted = {one.name: render_requirement(one) for one in packages}
    before, after = recipe.read_text("utf-8"), change_recipe_text(recipe, pip=wanted)
    request = msgspec.structs.replace(request, recipes=(str(recipe),))
    if not (request.base or choose_lock_path([recipe]).exists()):
        request = msgspec.structs.replace(request, base=seen.facts.base.reference)
    replace_text(recipe, after)
    try:
        report = lock(request, notify)
    except BaseException:
        replace_text(recipe, before)
        raise
    if request.dry_run:
        replace_text(recipe, before)
    return Promoted(image=image, recipe=recipe, requirements=tuple(wanted.values()), lock=report)


def render_requirement(package: PersonalPackage) -> str:
    """The line that brings exactly what was tried out."""
    if package.origin:
        return f"{package.name} @ {package.origin}"
    return f"{package.name}=={package.version}"


def _personal(identity: str, config_file: str) -> tuple[PersonalPackage, ...]:
    kept = [one for one in list_state(config_file=config_file) if one.identity == identity]
    packages = kept[0].packages if kept else ()
    # What was installed for the sake of another comes with it again.
    return tuple(one for one in packages if one.asked)


def _only(recipes: tuple[str, ...]) -> Path | None:
    if len(recipes) > 1:
        raise UsageError("Name one recipe that the packages are to be written into.")
    path = Path(recipes[0]) if recipes else None
    if path and not path.is_file():
        raise UsageError(f"There is no recipe {path}.")
    return path


def _find_recipe(lock_sha256: str) -> Path:
    """The recipe in the working folder that the image was built from: its lock is the image's."""
    for pattern in _USUAL:
        for path in sorted(Path.cwd().glob(pattern)):
            if path.name.startswith("pylock."):
                continue
            place = choose_lock_path([path])
            if place.is_file() and hashlib.sha256(place.read_bytes()).hexdigest() == lock_sha256:
                return path
    raise UsageError(
        "No recipe in this folder has the image's lock.",
        now="Name the one to write into: limpet pip IMAGE promote requirements.in.",
    )
