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
from limpet.core.launch import (
    HostSeen,
    ImageSeen,
    Launch,
    Request,
    plan_launch,
    wished_binds,
)
from limpet.core.launcher_command import COMMAND
from limpet.core.launcher_text import SESSION
from limpet.core.mounts import Mount
from limpet.core.personal import CERTIFICATES, CONFIG, KIT, PACKAGES, VARIABLE, PipSeen
from limpet.core.recipe import Run, VariablePolicy
from limpet.core.seeing import ALWAYS, OWN_FOLDERS, OWN_TREES
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
    parts = {
        **_CONSTANTS,
        **_names(host),
        **_of_folder(wrap, image, host, root),
        **_of_image(image),
        **_of_plan(wrap.request.launch, image, host),
    }
    return re.sub(r"@([A-Z_]+)@", lambda found: parts[found[1]], SESSION + COMMAND)


def _names(host: HostSeen) -> dict[str, str]:
    """How the runtime calls its variables, and how its sibling does."""
    pair = ("APPTAINER", "SINGULARITY")
    ours, others = pair if host.runtime_kind == "apptainer" else pair[::-1]
    return {
        "RUNTIME": quoted(host.runtime),
        "OURS": f"{ours}ENV_",
        "OTHERS": f"{others}ENV_",
        "OUR_NAME": ours,
        "OTHER_NAME": others,
        "KIT_BAKED": quoted(host.pip.kit.removeprefix(host.state)),
    }


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


def _of_image(image: ImageSeen) -> dict[str, str]:
    prefix = image.facts.prefix if image.facts else ""
    return {
        "PREFIX": quoted(prefix),
        "BIN_OF_PREFIX": f"{prefix}/bin:" if prefix else "",
        "TREES": _patterns((*OWN_TREES, prefix) if prefix else OWN_TREES, below=True),
        "CACHES": _render_caches(image),
        "MOVED": _render_moved(image),
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
        "JUDGES": _render_judges(plan.variables, _named(run, request)),
        "TEMPORARY": " ".join(TEMPORARY) if plan.variables != "strict" else "",
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


def _render_moved(image: ImageSeen) -> str:
    """For each personal folder that the home lacks: the variables that lead to the image's own."""
    fixed = image.facts.env if image.facts else {}
    lines = []
    for personal in PERSONAL:
        puts = [
            f"_limpet_put {name} {shlex.quote(str(PurePosixPath(INSIDE, place)))}"
            for name, place in personal.variables.items()
            if name not in fixed
        ]
        if puts:
            lines.append(f"        {personal.folder}) {'; '.join(puts)} ;;")
    return "\n".join(lines)


def _render_caches(image: ImageSeen) -> str:
    """Where packages write: `core.caches`, for what neither the user nor the image has set."""
    fixed = image.facts.env if image.facts else {}
    lines = []
    for cache in CACHES:
        if cache.place and (cache.flag or not fixed.get(cache.variable)):
            place = f"{LOCAL}/{cache.place}" if cache.local else cache.place
            words = [cache.variable, f"{FOLDER}/{place}", *([cache.flag] if cache.flag else [])]
            lines.append(f"    _limpet_cache {' '.join(words)}")
    return "\n".join(lines)


def _render_cache_folders() -> str:
    """Folders below the image's own home that packages do not make themselves."""
    made = [f"{LOCAL}/{c.place}" if c.local else c.place for c in CACHES if c.place and c.make]
    return " ".join(f"{FOLDER}/{place}" for place in (LOCAL, *made))


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
            '    set -- "$_limpet_flag" "$_limpet_word" "$@"',
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


def _render_judges(policy: VariablePolicy, named: Sequence[str]) -> str:
    """`judge_variable` as a function for each first letter; the first pattern that fits decides.

    By letters, because a shell takes milliseconds to try all patterns on all variables.
    """
    rules: list[tuple[str, bool]] = []
    if policy != "strict":
        rules += [(name, True) for name in TEMPORARY]
    rules += [(pattern, True) for pattern in (*RUNTIME.patterns, *named)]
    if policy != "strict":
        groups = (INDEX, *FOREIGN, *(() if policy == "host" else WANTED))
        rules += [(pattern, group.passes) for group in groups for pattern in group.patterns]
    by_letter = {
        letter: [rule for rule in rules if rule[0].startswith((letter, *"*?["))]
        for letter in _LETTERS
    }
    common = [rule for rule in rules if rule[0].startswith(tuple("*?["))]
    functions = [_render_judge("other", common, policy)]
    calls, loops = [], []
    others = [letter for letter, fitting in by_letter.items() if fitting == common]
    for letter, fitting in by_letter.items():
        if fitting != common:
            functions.append(_render_judge(letter, fitting, policy))
            calls.append(f'    {letter}*) _limpet_judge_{letter} "$1" ;;')
            loops.append(_render_bash_loop(f"${{!{letter}@}}", letter))
    loops.append(_render_bash_loop(" ".join(f"${{!{letter}@}}" for letter in others), "other"))
    return _JUDGES.format(
        functions="\n".join(functions), calls="\n".join(calls), loops="\n".join(loops)
    )


_JUDGES = """\
{functions}
_limpet_judge() {{ case $1 in
{calls}
    *) _limpet_judge_other "$1" ;;
esac; }}
_limpet_loops='
{loops}'"""


def _render_judge(name: str, rules: list[tuple[str, bool]], policy: VariablePolicy) -> str:
    lines = [
        f"    {'|'.join(pattern for pattern, _ in same)}) {'return' if passes else ''} ;;"
        for passes, same in itertools.groupby(rules, key=operator.itemgetter(1))
    ]
    if policy == "host":
        lines.append("    *) return ;;")
    if name == "S":
        # Of two forms of one setting the runtime heeds its own.
        lines.insert(0, '    SINGULARITYENV_*) ! _limpet_twin "${1#*_}" || unset "$1"; return ;;')
    inner = "\n".join(["case $1 in", *lines, "esac; "]) if lines else ""
    return f'_limpet_judge_{name}() {{ {inner}unset "$1"; }}'


def _render_bash_loop(names: str, judge: str) -> str:
    """bash lists variables by how they start, and says which ones are exported."""
    call = f"case ${{!_limpet_to@a}} in *x*) _limpet_judge_{judge} $_limpet_to ;; esac"
    return f"for _limpet_to in {names}; do {call}; done"


_CONSTANTS = {
    "FOLDERS": _patterns(OWN_FOLDERS),
    "ALWAYS": _patterns(ALWAYS, below=True),
    "INSIDE_HOME": INSIDE,
    # Each goes before what is there already, so the last one comes first.
    "PERSONAL": " ".join(reversed([personal.folder for personal in PERSONAL])),
    "START_FILES": " ".join(reversed(START_FILES)),
    "PERSONAL_PATTERN": "|".join(personal.folder for personal in PERSONAL),
    "CACHE_FOLDERS": _render_cache_folders(),
    "PACKAGES": PACKAGES,
    "PACKAGES_VARIABLE": VARIABLE,
    "KIT": KIT,
    "PIP_CONFIG": CONFIG,
    "PIP_CERTIFICATES": CERTIFICATES,
}
