"""`limpet update`: an image with other packages in it, put in the place of the one before."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from packaging.utils import canonicalize_name

from limpet.actions.build import check_output, make_image
from limpet.actions.cache import using_cache
from limpet.actions.prepare import Given, prepare
from limpet.actions.wrap import follow_kept
from limpet.core.errors import RecipeError, UsageError
from limpet.core.events import Notify, ignore
from limpet.core.image import LOCK_OBJECT, RECIPE_OBJECT
from limpet.core.lock import Lock
from limpet.core.plan import BuildReport
from limpet.core.pylock import parse_lock
from limpet.core.recipe import Recipe
from limpet.core.recipe_text import parse_recipe
from limpet.core.seen import ImageSeen
from limpet.core.update import (
    UpdateReport,
    UpdateRequest,
    change_recipe,
    find_changes,
    name_of,
)
from limpet.tools import images, launchers
from limpet.tools.files import PARTIAL_MARK
from limpet.tools.recipe_edit import change_recipe_text, replace_text


def update_image(image: str, request: UpdateRequest, notify: Notify = ignore) -> UpdateReport:
    """Build the image anew with the changes, beside the old one, and let it take its name.

    Programs that run keep the file that they started from.
    """
    seen = images.read_image(image)
    output = Path(seen.path)
    check_output(output, force=True)
    return _rebuild(seen, output, request, notify)


def update_launchers(folder: Path, request: UpdateRequest, notify: Notify = ignore) -> UpdateReport:
    """The image behind a folder of launchers with the changes: a new one, kept in the folder.

    The image that the folder was made for stays as it is, and so does the version before.
    """
    folder = Path(os.path.realpath(folder))
    wrap = launchers.read_wrap(folder, launchers.current_version(folder))
    seen = images.read_image(str(folder / wrap.image))
    kept = launchers.images_folder(folder)
    launchers.check_free(folder, force=False)
    kept.mkdir(exist_ok=True)
    passing = kept / f".{secrets.token_hex(4)}{PARTIAL_MARK}.sif"
    try:
        report = _rebuild(seen, passing, request, notify)
        if request.build.dry_run:
            return report
        place = launchers.settle_image(passing, images.read_image(str(passing)).identity)
    finally:
        passing.unlink(missing_ok=True)
    plan = msgspec.structs.replace(report.build.plan, output=place)
    return msgspec.structs.replace(
        report,
        image=str(place),
        build=msgspec.structs.replace(report.build, plan=plan),
        wrap=follow_kept(folder, wrap, place),
    )


def _rebuild(seen: ImageSeen, output: Path, request: UpdateRequest, notify: Notify) -> UpdateReport:
    if seen.facts is None:
        raise UsageError(
            f"{seen.path} was not made by limpet: it has no recipe.",
            now=f"Build one on it: limpet build --base {seen.path} --pip NAME -o FILE.",
        )
    recipe, before = read_own(seen)
    request = _sorted_in(request, before)
    done = msgspec.structs.replace(
        request.build, output=str(output), force=True, name=request.build.name or seen.facts.name
    )
    request = msgspec.structs.replace(request, build=done)
    if len(request.build.recipes) > 1:
        raise UsageError("Name one recipe that the image is made from.")
    with using_cache(request.build, notify):
        if request.build.recipes:
            report, after = _from_file(Path(request.build.recipes[0]), request, notify)
        else:
            report, after = _from_image(Path(seen.path), recipe, before, request, notify)
    there = {one.name for one in after.packages} | {one.name for one in after.conda}
    notes = tuple(
        f"{name} stays in the image: another package needs it."
        for name in request.remove
        if name in there
    )
    changes = find_changes(before, after)
    return UpdateReport(image=str(output), changes=changes, build=report, notes=notes)


def read_own(seen: ImageSeen) -> tuple[Recipe, Lock]:
    """The recipe and the lock in an image of limpet's own."""
    path = Path(seen.path)
    recipe = images.read_named(path, RECIPE_OBJECT)
    lock = images.read_named(path, LOCK_OBJECT)
    if recipe is None or lock is None:
        raise UsageError(
            f"{seen.path} has no recipe or no lock in it.", now="Build it again from its recipe."
        )
    where = f"the recipe in {seen.path}"
    return parse_recipe(recipe.decode(), where), parse_lock(lock.decode(), seen.path)


def _sorted_in(request: UpdateRequest, before: Lock) -> UpdateRequest:
    """What is to be added as pip's or conda's."""
    build = request.build
    if before.conda:
        build = msgspec.structs.replace(build, conda=(*build.conda, *request.add))
    else:
        build = msgspec.structs.replace(build, pip=(*build.pip, *request.add))
    remove = tuple(canonicalize_name(name) for name in request.remove)
    for name in {canonicalize_name(name_of(line, "pip")) for line in request.add} & {*remove}:
        raise UsageError(f"{name} is to be added and to be removed.", now="Say one of the two.")
    return msgspec.structs.replace(request, add=(), remove=remove, build=build)


def _from_image(
    image: Path, recipe: Recipe, lock: Lock, request: UpdateRequest, notify: Notify
) -> tuple[BuildReport, Lock]:
    changed = change_recipe(
        recipe, pip=request.build.pip, conda=request.build.conda, remove=request.remove
    )
    folder = image.parent
    missing = [
        name for name in (*changed.packages.files, *changed.files) if not (folder / name).exists()
    ]
    if missing:
        raise RecipeError(
            f"The recipe in {image} names {', '.join(missing)}, which is not in {folder}.",
            now="Name the recipe that it was built from: limpet update IMAGE RECIPE.",
        )
    build = msgspec.structs.replace(request.build, pip=(), conda=())
    given = Given(recipe=changed, folder=folder, lock=lock)
    prepared = prepare(build, notify, given)
    return make_image(prepared, build, notify), prepared.lock


def _from_file(recipe: Path, request: UpdateRequest, notify: Notify) -> tuple[BuildReport, Lock]:
    """The recipe is changed with the image; as it was where no image can be built."""
    asked = request.build
    if not recipe.is_file():
        now = "Give each package an --add of its own." if asked.pip or asked.conda else ""
        raise RecipeError(f"There is no recipe {recipe}.", now=now)
    bare = msgspec.structs.replace(asked, pip=(), conda=())
    before = recipe.read_text("utf-8")
    after = before
    if asked.pip or asked.conda or request.remove:
        after = change_recipe_text(
            recipe,
            pip={name_of(line, "pip"): line for line in asked.pip},
            conda={name_of(line, "conda"): line for line in asked.conda},
            remove=request.remove,
        )
    with _changed_text(recipe, before, after, keep=not asked.dry_run):
        prepared = prepare(bare, notify)
        return make_image(prepared, bare, notify), prepared.lock


@contextmanager
def _changed_text(recipe: Path, before: str, after: str, *, keep: bool) -> Iterator[None]:
    if after == before:
        yield
        return
    replace_text(recipe, after)
    try:
        yield
    except BaseException:
        replace_text(recipe, before)
        raise
    if not keep:
        replace_text(recipe, before)
