"""The launcher: one POSIX shell script, rendered from the very plan that `limpet run` carries out.

What a start's plan says for every session is written into it; what depends on the session (home,
working folder, variables, GPUs) is found out by the shell's built-ins. The tests hold its command
line and environment against `plan_launch`'s, session by session.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Sequence

import msgspec

from limpet.core.gpu import Driver
from limpet.core.homes import INSIDE, LOADED, PERSONAL, START_FILES
from limpet.core.host_python import share_host
from limpet.core.launch import Launch, plan_launch
from limpet.core.launcher_command import COMMAND, render_assembly
from limpet.core.launcher_environment import (
    cache_folders,
    modules_parts,
    render_caches,
    render_moved,
    render_values,
    settings,
)
from limpet.core.launcher_job import job_parts
from limpet.core.launcher_keep import keep_parts
from limpet.core.launcher_links import link_parts
from limpet.core.launcher_mpi import mpi_parts
from limpet.core.launcher_places import place_parts
from limpet.core.launcher_seldom import BESIDE
from limpet.core.launcher_text import SESSION
from limpet.core.launcher_variables import render_judges
from limpet.core.launcher_words import HOME, PROGRAM, ROOT, STATE, below, patterns, quoted
from limpet.core.mounts import Mount
from limpet.core.personal import CERTIFICATES, CONFIG, KIT, PACKAGES, VARIABLE, PipSeen
from limpet.core.places import wished_binds
from limpet.core.recipe import GpuPolicy, Run
from limpet.core.seeing import ALWAYS, OWN_FOLDERS, OWN_TREES
from limpet.core.seen import HostSeen, ImageSeen, Request
from limpet.core.variable_groups import (
    RUNTIME,
    TEMPORARY,
)
from limpet.core.wrap import OWN, Wrap


def render_launcher(wrap: Wrap, image: ImageSeen, host: HostSeen, root: str) -> str:
    """The text of every launcher of `wrap` in the folder `root`."""
    parts, holds = _describe(wrap, image, host, root)
    return _fill_in(_bare(SESSION + COMMAND), parts, holds)


def render_beside(wrap: Wrap, image: ImageSeen, host: HostSeen, root: str) -> dict[str, str]:
    """The files beside the launchers' folder that few of their starts read, by name."""
    parts, holds = _describe(wrap, image, host, root)
    filled = {name: _fill_in(text, parts, holds) for name, text in BESIDE.items()}
    files = {name: text for name, text in filled.items() if text}
    if "none" not in holds:
        launch = msgspec.structs.replace(wrap.request.launch, home="none")
        request = msgspec.structs.replace(wrap.request, launch=launch)
        homeless = msgspec.structs.replace(wrap, request=request)
        files["homeless.sh"] = render_launcher(homeless, image, host, root)
    return files


def _describe(
    wrap: Wrap, image: ImageSeen, host: HostSeen, root: str
) -> tuple[dict[str, str], set[str]]:
    """What is filled in, and the words of `#if` that hold."""
    plan, request = _parts_of_plan(wrap.request.launch, image, host)
    variables = {"host": "host_variables"}.get(plan.variables, plan.variables)
    own = "own" if image.facts else "foreign"
    holds = {plan.home, variables, own}
    user = host.environment.get("USER") or host.environment.get("LOGNAME", "")
    run = image.facts.run if image.facts else Run()
    named = _named(run, wrap.request.launch)
    holds |= {"mixed"} if wrap.request.host else set()
    holds |= {"gpu_auto"} if _gpu_policy(wrap.request.launch, image) == "auto" else set()
    if plan.home in ("isolated", "private") or (plan.home == "host" and image.facts):
        holds.add("packages")
    seldom: dict[str, str] = {}
    binds = [mount for mount, _ in _wished(image, wrap.request.launch)]
    for more, words in (
        modules_parts(image, wrap.request.launch, binds, f"{_siblings(host)[0]}ENV_"),
        job_parts(host, image.identity, image.facts.prefix if image.facts else "", image.ahead),
        mpi_parts(image, host, wrap.request.launch, plan.mpi),
        place_parts(image),
        link_parts(host, binds),
        keep_parts(plan, request, image.identity, root),
    ):
        seldom |= more
        holds |= words
    if "packages" in holds:
        holds |= {f"{own}_packages", f"{own}_{plan.home}"}
    holds.add("state" if wrap.request.state_dir else "nostate")
    if not wrap.request.launch.pwd:
        holds.add("no_pwd")
    if not holds.isdisjoint({"mixed", "private", "linked"}) or request["BINDS"]:
        holds.add("mounted")
    if request["BOUND"] or not holds.isdisjoint({"mixed", "linked"}):
        holds.add("bound")
    if request["VALUES"]:
        holds.add("values")
    if made := _render_made(plan, holds):
        holds.add("made")
    parts = {
        **_CONSTANTS,
        **render_assembly(holds),
        "MADE": made,
        **_names(host),
        **_of_folder(wrap, image, host, root),
        **_of_image(image, wrap.request.launch, host, plan, named),
        **request,
        **seldom,
        "ACCOUNT": shlex.quote(f"{user}:{host.account_home}"),
    }
    return parts, holds


def _render_made(plan: Launch, holds: set[str]) -> str:
    """Whether the image's own folders are all there: one condition, for each alone costs more."""
    conditions = [f'-d "$_limpet_own/{folder}"' for folder in cache_folders()[1:]]
    conditions = ['-O "$_limpet_own"', '-w "$_limpet_own"', *conditions]
    if plan.home == "host":
        conditions = []
    if "own_packages" in holds:
        conditions.append('-d "${_limpet_own%/home}/packages"')
    return " -a ".join(conditions)


def _bare(text: str) -> str:
    """Without comments (but those at the top) and indentation, which take bash a third of its time.

    No word of the text goes over the end of a line, but for line breaks alone.
    """
    lines = text.splitlines()
    top = next(at for at, line in enumerate(lines) if not line.startswith("#"))
    kept = [re.sub(r"(then|\)) # .*", r"\1", line.strip()) for line in lines[top:]]
    kept = [line for line in kept if line and not re.match(r"#(?!if |end)", line)]
    heading = (line for line in lines[:top] if not line.startswith("# shellcheck"))
    return "\n".join((*heading, *kept, ""))


def _fill_in(text: str, parts: dict[str, str], holds: set[str]) -> str:
    kept: list[str] = []
    open_sections: list[bool] = []
    for line in text.splitlines(keepends=True):
        word, *conditions = line.split() or [""]
        if word == "#if":
            open_sections.append(not holds.isdisjoint(conditions))
        elif word == "#end":
            open_sections.pop()
        elif all(open_sections):
            kept.append(line)
    return re.sub(r"@([A-Z_]+)@", lambda found: parts[found[1]], "".join(kept))


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
    image_path = wrap.image if wrap.image.startswith("/") else f"{ROOT}/{wrap.image}"
    return {
        "LIMPET": wrap.limpet,
        "ROOT_BAKED": quoted(root),
        "VERSION_FOLDER": f"{OWN}/versions/{wrap.number}",
        "IMAGE": quoted(image_path),
        "IDENTITY": quoted(image.identity),
        "PROGRAMS": _render_programs(wrap.programs),
        "STATE_DIR": quoted(wrap.request.state_dir),
        "HOST_OWN": patterns([f"/{name}" for name in wrap.root_names]) or "/",
    }


def _of_image(
    image: ImageSeen, request: Request, host: HostSeen, plan: Launch, named: Sequence[str]
) -> dict[str, str]:
    ours, others = (f"{name}ENV_" for name in _siblings(host))
    prefix = image.facts.prefix if image.facts else ""
    return {
        # It stands between double quotes.
        "BIN_OF_PREFIX": re.sub(r'([\\"$`])', r"\\\1", f"{prefix}/bin:") if prefix else "",
        "TREES": below((*OWN_TREES, prefix) if prefix else OWN_TREES),
        **render_caches(image, request, plan, named, ours, others),
        "SET_CERTIFICATES": settings({"PIP_CERT": CERTIFICATES}, ours),
        "SET_CONFIG": settings({"PIP_CONFIG_FILE": CONFIG}, ours),
        "SET_PACKAGES": settings(
            {VARIABLE: PACKAGES, "JUPYTER_PATH": f"{PACKAGES}/share/jupyter"}
            if prefix
            else {"PIP_BREAK_SYSTEM_PACKAGES": "1"},
            ours,
        ),
        "MOVED": render_moved(image, ours),
    }


def _gpu_policy(request: Request, image: ImageSeen) -> GpuPolicy:
    return request.gpu or (image.facts.run if image.facts else Run()).gpu


# The runtime knows the account's home by itself.
_UNLIKE_ACCOUNT = '${_limpet_word:+--home} ${_limpet_word:+"$_limpet_word"}'
_HOME_FLAGS = {
    "isolated": _UNLIKE_ACCOUNT,
    "host": _UNLIKE_ACCOUNT,
    "private": '--home "$_limpet_own:$_limpet_home"',
    "none": "--no-home --no-mount home",
}


def _parts_of_plan(
    request: Request, image: ImageSeen, host: HostSeen
) -> tuple[Launch, dict[str, str]]:
    """What `plan_launch` says whatever the session is."""
    plan = _plan(image, host, msgspec.structs.replace(request, command=(PROGRAM,)))
    # A home that is the account's needs no options, so that these are what stands before them.
    homely = msgspec.structs.replace(request, home="host", gpu="none", command=(PROGRAM,))
    whole, inside = _split(_plan(image, host, homely))
    bare = msgspec.structs.replace(homely, overlays=(), writable_tmpfs=False)
    head, _ = _split(_plan(image, host, bare))
    run = image.facts.run if image.facts else Run()
    named = _named(run, request)
    kept, values = render_values(request, plan.home)
    return plan, {
        "HOME_FLAG": _HOME_FLAGS[plan.home],
        "START": "/" if plan.home == "none" else "$_limpet_home",
        "GPU": {"nvidia": "--nv", "amd": "--rocm"}.get(_gpu_policy(request, image), "''"),
        "PWD": quoted(request.pwd),
        "BOUND": _render_bound(image, request),
        "BINDS": _render_binds(image, request),
        "KEPT": kept,
        "VALUES": values,
        "JUDGES": render_judges(plan.variables, named, _siblings(host)),
        "FIRST": "|".join((*RUNTIME.patterns, *named)),
        "HEAD": " ".join(quoted(word) for word in head[1:]),
        "OPTIONS": " ".join(quoted(word) for word in head[head.index("exec") + 1 :]),
        "REST": " ".join(quoted(word) for word in whole[len(head) :]),
        "INSIDE": " ".join(quoted(word) for word in inside),
    }


def _plan(image: ImageSeen, host: HostSeen, request: Request) -> Launch:
    """The plan for no session; its variables and binds are the launcher's own business."""
    nowhere = msgspec.structs.replace(
        host,
        environment={},
        home=HOME,
        real_home=HOME,
        account_home=HOME,
        state=STATE,
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


def _render_programs(programs: dict[str, str]) -> str:
    """The folder of each program: a `case` where there are several, with the commonest one last."""
    folders: dict[str, list[str]] = {}
    for name, path in programs.items():
        folder, file = posixpath.split(path)
        folders.setdefault(path if file != name else folder, []).append(name)
    common = max(folders, key=lambda folder: len(folders[folder]))
    default = f'_limpet_program={quoted(common)}/"$_limpet_name"'
    if len(folders) == 1:
        return default
    lines = ["case $_limpet_name in"]
    for place, names in folders.items():
        if place != common:
            is_folder = posixpath.basename(place) != names[0] or len(names) > 1
            whole = quoted(place) + ('/"$_limpet_name"' if is_folder else "")
            lines.append(f"    {'|'.join(map(shlex.quote, names))}) _limpet_program={whole} ;;")
    lines += [f"    *) {default} ;;", "esac"]
    return "\n".join(lines)


def _wished(image: ImageSeen, request: Request) -> list[tuple[Mount, bool]]:
    """The binds, as in `plan_binds`, and whether the user asked for each."""
    offered, asked = wished_binds(image, request, "/")
    targets = {mount.target for mount in asked}
    kept = {m.target: m for m in offered if m.target not in targets}
    return [*((mount, False) for mount in kept.values()), *((mount, True) for mount in asked)]


def _render_binds(image: ImageSeen, request: Request) -> str:
    """The last one first, because each goes before what is already there."""
    lines = []
    shared = share_host(image.facts.host if image.facts else None)
    for mount, asked in reversed(_wished(image, request)):
        words = [quoted(mount.source), quoted(mount.target), *(() if mount.writable else ("ro",))]
        missing = quoted(f"{mount.source} does not exist here.")
        say = f"_limpet_seldom {'_limpet_fail' if asked else '_limpet_say'} {missing}"
        lines += [
            f"if [ -e {words[0]} ]; then",
            f"    _limpet_mount {' '.join(words)}",
            "fi" if mount in shared and not asked else f"else {say}; fi",
        ]
    return "\n".join(lines)


def _render_bound(image: ImageSeen, request: Request) -> str:
    """Where the binds keep a path at its own place."""
    same = [m.source for m, _ in _wished(image, request) if m.source == m.target]
    return "\n".join(
        f"    case $1 in {patterns([path], below=True)})\n"
        f"        if [ -e {quoted(path)} ]; then return 0; fi ;;\n"
        "    esac"
        for path in same
    )


def _named(run: Run, request: Request) -> tuple[str, ...]:
    return (*run.pass_variables, *(word.partition("=")[0] for word in request.env))


_CONSTANTS = {
    "FOLDERS": "|".join(shlex.quote(f"{folder.rstrip('/')}/") for folder in OWN_FOLDERS).replace(
        "/|", "//|", 1
    ),
    "ALWAYS": below(ALWAYS),
    "INSIDE_HOME": INSIDE,
    # Each goes before what is there already, so the last one comes first.
    "PERSONAL": " ".join(reversed([personal.folder for personal in PERSONAL])),
    "START_FILES": " ".join(reversed(START_FILES[:5])),
    "RARE_FILES": "\n".join(reversed(START_FILES[5:])),
    "SOME_RARE": " -o ".join(f'-f "$_limpet_home/{name}"' for name in START_FILES[5:]),
    "CACHE_FOLDERS": " ".join(cache_folders()),
    "LOADED": "|".join(f"*:{folder}/*" for folder in LOADED),
    "STANDS": "|".join(
        f'"${{_limpet_real:-//}}"/{place}'
        for place in (
            *(f"{personal.folder}/" for personal in PERSONAL),
            *(f"{folder}/*" for folder in LOADED),
        )
    ),
    "TEMPORARY": " ".join(TEMPORARY),
    "PACKAGES": PACKAGES,
    "PACKAGES_VARIABLE": VARIABLE,
    "KIT": KIT,
}
