"""The launcher's text that sets variables: where packages write, where the home's folders went,
and what the user has said."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from limpet.core.caches import CACHES, FOLDER, LOCAL, Cache, is_decided
from limpet.core.handover import parse_env
from limpet.core.homes import INSIDE, PERSONAL
from limpet.core.image_env import image_caches, leave_to_image
from limpet.core.launch import Launch, plan_archive
from limpet.core.launcher_words import quoted
from limpet.core.module_archive import LAYER_VARIABLES, MOUNT_VARIABLES
from limpet.core.mounts import Mount
from limpet.core.recipe import HomePolicy
from limpet.core.seen import ImageSeen, Request
from limpet.core.variables import judge_variable


def _render_set(values: dict[str, str], ours: str) -> str:
    return f"export {settings(values, ours)}"


def settings(values: dict[str, str], ours: str) -> str:
    """Variables of this name and of the runtime's own form of it, which decides inside."""
    words = (f"{name}={shlex.quote(value)}" for name, value in values.items())
    return " ".join(f"{word} {ours}{word}" for word in words)


def render_moved(image: ImageSeen, ours: str) -> str:
    """For each personal folder that the home lacks: the variables that lead to the image's own."""
    lines = []
    for personal in PERSONAL:
        moved = {n: str(PurePosixPath(INSIDE, place)) for n, place in personal.variables.items()}
        values = leave_to_image(moved, image)
        if values:
            lines.append(f"{personal.folder}) {_render_set(values, ours)} ;;")
    return "\n".join(lines)


def modules_parts(
    image: ImageSeen, request: Request, binds: Sequence[Mount], ours: str
) -> tuple[dict[str, str], set[str]]:
    """What is filled in for `plan_archive`, and the word of `#if` that holds."""
    values = plan_archive(image, request, binds, {})
    if not values or not image.facts or not image.facts.modules:
        return {}, set()
    parts = {
        "LAYERS": "".join(f"${{{name}-}}" for name in LAYER_VARIABLES),
        "MOUNTS_NAMED": "".join(f"${{{name}-}}" for name in MOUNT_VARIABLES),
        "MODULE_FOLDERS": "|".join(f"*{quoted(one)}*" for one in image.facts.modules.folders),
        "SET_MODULES": settings(values, ours),
    }
    return parts, {"modules"}


def render_caches(
    image: ImageSeen, request: Request, plan: Launch, named: Sequence[str], ours: str, others: str
) -> dict[str, str]:
    """Where packages write: `core.caches`, for what neither the user nor the image has set.

    Seldom has a session set any of them, so that is asked of all at once.
    """
    fixed = image_caches(image, request, plan.home)
    sets: dict[str, str] = {}
    lines = []
    given = ""
    rows = [Cache(package="", variable="XDG_CACHE_HOME", writes="", source="", place=".")]
    for cache in (*(rows if plan.home == "none" else ()), *CACHES):
        there = fixed.get(cache.variable, "")
        if not cache.place or (there and (not cache.flag or is_decided(there))):
            continue
        value = _cache_value(cache, there)
        sets[cache.variable] = value
        session = f"${{{ours}{cache.variable}:-${{{others}{cache.variable}-}}}}"
        session = f"${{{cache.variable}:-{session}}}"
        one = _render_set({cache.variable: value}, ours)
        if there:
            lines.append(one)
            continue
        if judge_variable(cache.variable, plan.variables, named=named).passes:
            given += f"${{{cache.variable}-}}"
        if cache.flag:
            lines.append(f'_limpet_flags {cache.variable} "{session}" {value}')
        else:
            lines.append(f'[ -n "{session}" ] || {one}')
    return {
        "CACHES_GIVEN": given,
        "CACHES_SET": settings(sets, ours),
        "CACHES": "\n".join(lines),
    }


def _cache_value(cache: Cache, given: str = "") -> str:
    """What its variable is set to."""
    place = f"{LOCAL}/{cache.place}" if cache.local else cache.place
    path = str(PurePosixPath(INSIDE, FOLDER, place))
    if not cache.flag:
        return path
    return ",".join(word for word in (given, f"{cache.flag}={path}") if word)


def cache_folders() -> list[str]:
    """Folders below the image's own home that packages do not make themselves."""
    made = [f"{LOCAL}/{c.place}" if c.local else c.place for c in CACHES if c.place and c.make]
    return [f"{FOLDER}/{place}" for place in (LOCAL, *made)]


def render_values(request: Request, policy: HomePolicy) -> tuple[str, str]:
    """`--env NAME=VALUE` as it was said, `--env NAME` as it is at the start.

    The latter is kept before limpet sets anything of that name itself.
    """
    _, values, _ = parse_env(request.env, {})
    flags = {cache.variable: cache for cache in CACHES if cache.flag and policy != "host"}
    kept, lines = [], []
    for word in request.env:
        name, given, _ = word.partition("=")
        cache = flags.get(name)
        if given:
            value = values[name]
            if cache and not is_decided(value):
                value = _cache_value(cache, value)
            lines.append(f"_limpet_put {name} {quoted(value)}")
        else:
            kept.append(f"_limpet_kept_{name}=${{{name}+:${name}}}")
            put = "_limpet_put"
            if cache:
                put = f"_limpet_seldom _limpet_flags {name}"
            text = f'"${{_limpet_kept_{name}#:}}"'
            if cache:
                lines.append(f"{put} {text} {_cache_value(cache)}")
            else:
                lines.append(f'if [ -n "$_limpet_kept_{name}" ]; then {put} {name} {text}; fi')
    return "\n".join(kept), "\n".join(lines)
