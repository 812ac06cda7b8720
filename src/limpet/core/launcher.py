"""The launcher: one POSIX shell script, rendered from the very plan that `limpet run` carries out.

What a start's plan says for every session is written into it; what depends on the session (home,
working folder, variables, GPUs) is found out by the shell's built-ins. The tests hold its command
line and environment against `plan_launch`'s, session by session.
"""

from __future__ import annotations

import itertools
import operator
import posixpath
import re
import shlex
import string
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import msgspec

from limpet.core.caches import CACHES, FOLDER, LOCAL
from limpet.core.gpu import Driver
from limpet.core.handover import parse_env
from limpet.core.homes import INSIDE, PERSONAL, START_FILES
from limpet.core.launch import Launch, plan_launch
from limpet.core.launcher_command import COMMAND
from limpet.core.launcher_job import job_parts
from limpet.core.launcher_text import SESSION
from limpet.core.mounts import Mount
from limpet.core.personal import CERTIFICATES, CONFIG, KIT, PACKAGES, VARIABLE, PipSeen
from limpet.core.places import wished_binds
from limpet.core.recipe import Run, VariablePolicy
from limpet.core.seeing import ALWAYS, OWN_FOLDERS, OWN_TREES
from limpet.core.seen import HostSeen, ImageSeen, Request
from limpet.core.variables import FOREIGN, INDEX, RUNTIME, TEMPORARY, WANTED
from limpet.core.wrap import OWN, Wrap

# Stand for what only the session knows, in a plan that is made for no session.
_HOME, _STATE, _ROOT, _PROGRAM = "/\ue000", "/\ue001", "/\ue002", "/\ue003"
_EXPANSIONS = {
    _HOME: "$_limpet_home",
    _STATE: "$_limpet_state",
    _ROOT: "$_limpet_root",
    _PROGRAM: "$_limpet_program",
}

_LETTERS = string.ascii_uppercase + string.ascii_lowercase + "_"


def render_launcher(wrap: Wrap, image: ImageSeen, host: HostSeen, root: str) -> str:
    """The text of every launcher of `wrap` in the folder `root`."""
    job = job_parts(host, image.identity, image.facts.prefix if image.facts else "")
    text = SESSION
    for name in ("JOB", "SIBLINGS"):
        text = text.replace(f"@{name}@", job[name])
    text += COMMAND.replace("@SHARE@", job["SHARE"])
    parts = {
        **_CONSTANTS,
        **_names(host),
        **job,
        **_of_folder(wrap, image, host, root),
        **_of_image(image, host),
        **_of_plan(wrap.request.launch, image, host),
    }
    return re.sub(r"@([A-Z_]+)@", lambda found: parts[found[1]], text)


def _names(host: HostSeen) -> dict[str, str]:
    """How the runtime calls its variables, and how its sibling does."""
    ours, others = _siblings(host)
    return {
        "RUNTIME": quoted(host.runtime),
        "OURS": f"{ours}ENV_",
        "OTHERS": f"{others}ENV_",
        "OUR_NAME": ours,
        "OTHER_NAME": others,
        "KIT_BAKED": quoted(host.pip.kit.removeprefix(host.state)),
    }


def _siblings(host: HostSeen) -> tuple[str, str]:
    pair = ("APPTAINER", "SINGULARITY")
    return pair if host.runtime_kind == "apptainer" else (pair[1], pair[0])


def _of_folder(wrap: Wrap, image: ImageSeen, host: HostSeen, root: str) -> dict[str, str]:
    image_path = wrap.image if wrap.image.startswith("/") else f"{_ROOT}/{wrap.image}"
    return {
        "LIMPET": wrap.limpet,
        "ROOT_BAKED": quoted(root),
        "VERSION_FOLDER": f"{OWN}/versions/{wrap.number}",
        "IMAGE": quoted(image_path),
        "IDENTITY": quoted(image.identity),
        "PROGRAMS": _render_programs(wrap.programs),
        "STATE_DIR": quoted(wrap.request.state_dir),
        "HOST": "1" if wrap.request.host else "",
        "HOST_OWN": _patterns([f"/{name}" for name in wrap.root_names]) or "/",
    }


def _of_image(image: ImageSeen, host: HostSeen) -> dict[str, str]:
    ours, others = (f"{name}ENV_" for name in _siblings(host))
    prefix = image.facts.prefix if image.facts else ""
    return {
        "PREFIX": quoted(prefix),
        "BIN_OF_PREFIX": f"{prefix}/bin:" if prefix else "",
        "TREES": _patterns((*OWN_TREES, prefix) if prefix else OWN_TREES, below=True),
        "CACHES": _render_caches(image, ours, others),
        "CACHE_HOME": _render_cache("XDG_CACHE_HOME", FOLDER, "", ours, others),
        "MOVED": _render_moved(image, ours),
        "SET_JUPYTER": _render_set("JUPYTER_PATH", f"{PACKAGES}/share/jupyter", ours),
    }


def _of_plan(request: Request, image: ImageSeen, host: HostSeen) -> dict[str, str]:
    """What `plan_launch` says whatever the session is."""
    plan = _plan(image, host, msgspec.structs.replace(request, command=(_PROGRAM,)))
    # A home that is the account's needs no options, so that these are what stands before them.
    homely = msgspec.structs.replace(request, home="host", gpu="none", command=(_PROGRAM,))
    whole, inside = _split(_plan(image, host, homely))
    bare = msgspec.structs.replace(homely, overlays=(), writable_tmpfs=False)
    head, _ = _split(_plan(image, host, bare))
    run = image.facts.run if image.facts else Run()
    return {
        "HOME_POLICY": plan.home,
        "GPU": request.gpu or run.gpu,
        "PWD": quoted(request.pwd),
        "BOUND": _render_bound(image, request),
        "BINDS": _render_binds(image, request),
        "VALUES": _render_values(request),
        "JUDGES": _render_judges(plan.variables, _named(run, request), _siblings(host)),
        "TEMPORARY": " ".join(TEMPORARY) if plan.variables != "strict" else "",
        "TEMPORARY_SET": "".join(f":${{{n}-}}/" for n in TEMPORARY if plan.variables != "strict"),
        "HEAD": " ".join(quoted(word) for word in head[1:]),
        "REST": " ".join(quoted(word) for word in whole[len(head) :]),
        "INSIDE": " ".join(quoted(word) for word in inside),
    }


def _plan(image: ImageSeen, host: HostSeen, request: Request) -> Launch:
    """The plan for no session; its variables and binds are the launcher's own business."""
    nowhere = msgspec.structs.replace(
        host,
        environment={},
        home=_HOME,
        real_home=_HOME,
        account_home=_HOME,
        state=_STATE,
        cwd="/tmp",
        personal={},
        links={},
        temporaries=(),
        local="",
        pip=PipSeen(),
        driver=Driver(),
    )
    return plan_launch(image, nowhere, msgspec.structs.replace(request, binds=(), site_binds=()))


def _split(plan: Launch) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The runtime and its options before any mount, and what comes after the image."""
    at = plan.argv.index("--pwd")
    mounts = sum(2 for mount in plan.mounts)
    return plan.argv[: at - mounts], plan.argv[at + 3 :]


def quoted(word: str) -> str:
    """The word for a shell; what stands for a session's value becomes that value."""
    text = shlex.quote(word)
    for mark, expansion in _EXPANSIONS.items():
        text = text.replace(mark, f"'\"{expansion}\"'")
    return text


def _patterns(paths: Iterable[str], *, below: bool = False) -> str:
    """Alternatives of a `case`: the paths, and what is below them."""
    words = [shlex.quote(path) for path in paths]
    return "|".join(f"{word}|{word}/*" if below else word for word in words)


def _render_programs(programs: dict[str, str]) -> str:
    """A `case` that knows the folder of each program; the commonest one is the default."""
    folders: dict[str, list[str]] = {}
    for name, path in programs.items():
        folder, file = posixpath.split(path)
        folders.setdefault(path if file != name else folder, []).append(name)
    common = max(folders, key=lambda folder: len(folders[folder]))
    lines = ["case $_limpet_name in"]
    for place, names in folders.items():
        if place != common:
            is_folder = posixpath.basename(place) != names[0] or len(names) > 1
            whole = quoted(place) + ('/"$_limpet_name"' if is_folder else "")
            lines.append(f"    {'|'.join(map(shlex.quote, names))}) _limpet_program={whole} ;;")
    lines += [f'    *) _limpet_program={quoted(common)}/"$_limpet_name" ;;', "esac"]
    return "\n".join(lines)


def _render_set(name: str, value: str, ours: str) -> str:
    """Gathers a value without spaces; the runtime's own form of it decides inside."""
    return f'_limpet_sets="$_limpet_sets {name}={value} {ours}{name}={value}"'


def _render_moved(image: ImageSeen, ours: str) -> str:
    """For each personal folder that the home lacks: the variables that lead to the image's own."""
    fixed = image.facts.env if image.facts else {}
    lines = []
    for personal in PERSONAL:
        puts = [
            _render_set(name, str(PurePosixPath(INSIDE, place)), ours)
            for name, place in personal.variables.items()
            if name not in fixed
        ]
        if puts:
            lines.append(f"{personal.folder}) {'; '.join(puts)} ;;")
    return "\n".join(lines)


def _render_caches(image: ImageSeen, ours: str, others: str) -> str:
    """Where packages write: `core.caches`, for what neither the user nor the image has set."""
    fixed = image.facts.env if image.facts else {}
    lines = []
    for cache in CACHES:
        if cache.place and (cache.flag or not fixed.get(cache.variable)):
            place = f"{LOCAL}/{cache.place}" if cache.local else cache.place
            where = f"{FOLDER}/{place}"
            lines.append(_render_cache(cache.variable, where, cache.flag, ours, others))
    return "\n".join(lines)


def _render_cache(variable: str, place: str, flag: str, ours: str, others: str) -> str:
    given = f'"${{{variable}:-${{{ours}{variable}:-${{{others}{variable}-}}}}}}"'
    if flag:
        return f"_limpet_flags {variable} {given} {flag}={INSIDE}/{place}"
    return f"[ -n {given} ] || {_render_set(variable, f'{INSIDE}/{place}', ours)}"


def _cache_folders() -> list[str]:
    """Folders below the image's own home that packages do not make themselves."""
    made = [f"{LOCAL}/{c.place}" if c.local else c.place for c in CACHES if c.place and c.make]
    return [f"{FOLDER}/{place}" for place in (LOCAL, *made)]


def _wished(image: ImageSeen, request: Request) -> list[tuple[Mount, bool]]:
    """The binds, as in `plan_binds`, and whether the user asked for each."""
    offered, asked = wished_binds(image, request, "/")
    targets = {mount.target for mount in asked}
    kept = {m.target: m for m in offered if m.target not in targets}
    return [*((mount, False) for mount in kept.values()), *((mount, True) for mount in asked)]


def _render_binds(image: ImageSeen, request: Request) -> str:
    """The last one first, because each goes before what is already there."""
    lines = []
    for mount, asked in reversed(_wished(image, request)):
        words = [quoted(mount.source), quoted(mount.target), *(() if mount.writable else ("ro",))]
        missing = quoted(f"{mount.source} does not exist here.")
        lines += [
            f"if [ -e {words[0]} ]; then",
            f"    _limpet_mount {' '.join(words)}",
            f"else {'_limpet_fail' if asked else '_limpet_say'} {missing}; fi",
        ]
    return "\n".join(lines)


def _render_bound(image: ImageSeen, request: Request) -> str:
    """Where the binds keep a path at its own place."""
    same = [m.source for m, _ in _wished(image, request) if m.source == m.target]
    return "\n".join(
        f"    case $1 in {_patterns([path], below=True)})\n"
        f"        if [ -e {quoted(path)} ]; then return 0; fi ;;\n"
        "    esac"
        for path in same
    )


def _render_values(request: Request) -> str:
    """`--env NAME=VALUE` as it was said, `--env NAME` as it is at the start."""
    _, values, _ = parse_env(request.env, {})
    lines = []
    for word in request.env:
        name, given, _ = word.partition("=")
        if given:
            lines.append(f"_limpet_put {name} {quoted(values[name])}")
        else:
            lines.append(f'if [ -n "${{{name}+set}}" ]; then _limpet_put {name} "${name}"; fi')
    return "\n".join(lines)


def _named(run: Run, request: Request) -> tuple[str, ...]:
    return (*run.pass_variables, *(word.partition("=")[0] for word in request.env))


def _render_judges(policy: VariablePolicy, named: Sequence[str], siblings: tuple[str, str]) -> str:
    """`judge_variable` as a `case` with one in it for each first letter; what passes, continues.

    By letters and without what changes nothing, because a shell takes milliseconds to read all
    patterns and to try all of them on all variables.
    """
    rules = dict.fromkeys(TEMPORARY, True) if policy != "strict" else {}
    rules |= dict.fromkeys((*RUNTIME.patterns, *named), True)
    if policy != "strict":
        groups = (INDEX, *FOREIGN, *(() if policy == "host" else WANTED))
        for group in groups:
            for pattern in group.patterns:
                rules.setdefault(pattern, group.passes)
    special = _special_judges(*siblings)
    cases: dict[str, list[str]] = {}
    for letter in _LETTERS:
        fitting = [r for r in rules.items() if r[0].startswith((letter, *"*?["))]
        inner = special.get(letter, "") + _render_judge(fitting, policy == "host")
        if inner:
            cases.setdefault(inner, []).append(f"{letter}*")
    return "\n".join(f"{'|'.join(letters)}) {inner} ;;" for inner, letters in cases.items())


def _special_judges(ours: str, others: str) -> dict[str, str]:
    """Of two forms of one setting the runtime heeds its own; a Jupyter kernel looks whether its
    server is still alive."""
    twin = f'"[ -n \\"\\${{{ours}ENV_${{_limpet_to#*_}}+set}}\\" ]"'
    kernel = "case $_limpet_connection:$_limpet_to in /*:JPY_*) continue ;; esac\n"
    heeded = f"{others}ENV_*) _limpet_others=1; eval {twin} || continue ;;"
    return {others[0]: f"case $_limpet_to in {heeded} esac\n"} | {"J": kernel}


def _render_judge(rules: Sequence[tuple[str, bool]], default: bool) -> str:
    """The first pattern that fits decides; only those that differ from what comes anyway."""
    kept: list[tuple[str, bool]] = []
    for pattern, passes in reversed(rules):
        if passes != default or any(p != passes and _overlap(pattern, q) for q, p in kept):
            kept.insert(0, (pattern, passes))
    lines = [
        f"{'|'.join(pattern for pattern, _ in same)}) {'continue' if passes else ''} ;;"
        for passes, same in itertools.groupby(kept, key=operator.itemgetter(1))
    ]
    if default:
        lines.append("*) continue ;;")
    return "\n".join(["case $_limpet_to in", *lines, "esac"]) if lines else ""


def _overlap(one: str, other: str) -> bool:
    """Whether some name may fit both."""
    if any(set(pattern[:-1]) & set("*?[") or pattern[-1] in "?[" for pattern in (one, other)):
        return True
    one_start, other_start = one.removesuffix("*"), other.removesuffix("*")
    if one_start == one and other_start == other:
        return one == other
    if one_start == one:
        return one.startswith(other_start)
    if other_start == other:
        return other.startswith(one_start)
    return one_start.startswith(other_start) or other_start.startswith(one_start)


_CONSTANTS = {
    "FOLDERS": _patterns(OWN_FOLDERS),
    "ALWAYS": _patterns(ALWAYS, below=True),
    "INSIDE_HOME": INSIDE,
    # Each goes before what is there already, so the last one comes first.
    "PERSONAL": " ".join(reversed([personal.folder for personal in PERSONAL])),
    "START_FILES": " ".join(reversed(START_FILES)),
    "CACHE_FOLDERS": " ".join(_cache_folders()),
    "CACHES_MADE": " && ".join(f'[ -d "$_limpet_own/{folder}" ]' for folder in _cache_folders()),
    "PACKAGES": PACKAGES,
    "PACKAGES_VARIABLE": VARIABLE,
    "KIT": KIT,
    "PIP_CONFIG": CONFIG,
    "PIP_CERTIFICATES": CERTIFICATES,
}
