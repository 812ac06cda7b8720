"""Image + host + request → the launch: the exact command line and environment of a start."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from limpet.core.caches import plan_caches
from limpet.core.fit import check_fit, check_rights, fuse_notes
from limpet.core.gpu import Gpu, plan_gpu
from limpet.core.handover import find_meddling, hand_over, parse_env, prefixed, set_by_prefix
from limpet.core.homes import Home, plan_home
from limpet.core.image import ImageFacts
from limpet.core.image_env import image_caches, leave_to_image
from limpet.core.module_archive import plan_modules
from limpet.core.mounts import Mount, render_mount
from limpet.core.mpi_plan import MpiPlan, plan_mpi
from limpet.core.personal import Personal, plan_personal
from limpet.core.places import (
    home_mounts,
    plan_points,
    plan_sight,
    same_inside,
    seen_at,
    serve_places,
)
from limpet.core.prefetch import Prefetch
from limpet.core.recipe import GpuPolicy, HomePolicy, Run, VariablePolicy
from limpet.core.seeing import ALWAYS
from limpet.core.seen import HostSeen, ImageSeen, Request
from limpet.core.share import Shared, check_shareable, plan_share
from limpet.core.variables import Verdict, select_variables


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A start, ready to be done: make `folders` and `files` (all below `state` or `local`), hold
    `overlays` (folders that are written to), then become `argv` with `env`. `points` are folders
    of the host's that parts of the image are mounted on, and are made where they are missing.

    `before` are the words of `argv` before the runtime's, `options` those that say what is mounted
    and how, `inside` the words that the image is given to run.

    `answers` says whether image and site want limpet to explain failures.

    The rest explains it: the policies in force, the verdict on every variable, and notes.
    """

    argv: tuple[str, ...]
    before: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    env: dict[str, str]
    image: ImageSeen
    runtime: str
    state: str
    local: str = ""
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    variables: VariablePolicy
    home: HomePolicy
    gpu: Gpu | None = None
    mpi: MpiPlan = MpiPlan()
    mounts: tuple[Mount, ...] = ()
    points: tuple[str, ...] = ()
    pwd: str = ""
    added: dict[str, str] = msgspec.field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    prefetch: Prefetch = Prefetch(reason="no")
    answers: bool = True
    notes: tuple[str, ...] = ()


def plan_launch(image: ImageSeen, host: HostSeen, request: Request) -> Launch:
    """The launch; ImageError, HostError or UsageError where it cannot work."""
    check_fit(image, host)
    check_rights(image, host)
    wants = image.facts.run if image.facts else Run()
    policy = request.variables or wants.variables
    home_policy = request.home or wants.home
    own = f"{host.state}/{image.identity}"
    home = _home(home_policy, host, own)
    place = plan_sight(image, host, home, request, temporaries=policy != "strict")
    personal = _personal(image, host, home_policy, home)
    visible = (*ALWAYS, *home.visible, *same_inside(place.mounts))
    named, values, env_notes = parse_env(request.env, host.environment)
    names = (*wants.pass_variables, *named)
    seen = {"visible": visible, "hidden": [m.target for m in (*home.first, *home.mounts)]}
    passed, verdicts = select_variables(host.environment, policy, named=names, **seen)
    taken = set_by_prefix(passed) | passed | image_caches(image, request, home_policy) | values
    caches = plan_caches(home_policy, home, state=own, local=host.local, taken=taken)
    # The home's last: they cover what the others may bring in.
    mpi = plan_mpi(request.mpi or wants.mpi, host.mpi)
    own_mounts = (*home_mounts(home, host), *place.uncovered, *caches.mounts, *personal.mounts)
    mounts, points = _serve(image, (*place.mounts, *mpi.mounts, *own_mounts), home, host)
    # The caches' last: to a variable of flags they add one.
    added = leave_to_image(home.variables, image) | personal.variables
    added |= plan_archive(image, request, mounts, host.environment) | values | caches.variables
    gpu, gpu_notes = _gpu(request.gpu or wants.gpu, image, host)
    runtime = (host.runtime, *(() if request.verbose else ("--quiet",)))
    flags = _flags(request, home, gpu)
    shared = _shared(image, host, request, flags, mpi)
    options = (*flags, *shared.options, *(word for one in mounts for word in render_mount(one)))
    inside = (*shared.words, *_inside(image, request, mpi, tuple(values)))
    folders = tuple(dict.fromkeys((*home.folders, *caches.folders, *personal.folders)))
    return Launch(
        argv=(*shared.before, *runtime, "exec", *options, "--pwd", place.pwd, image.path, *inside),
        before=shared.before,
        options=options,
        inside=inside,
        env=hand_over(passed, added, host.runtime_kind) | shared.env,
        image=image,
        runtime=f"{host.runtime_kind} {host.runtime_version}",
        state=host.state,
        local=caches.local,
        folders=folders,
        files=home.files,
        variables=policy,
        home=home_policy,
        gpu=gpu,
        mpi=mpi,
        mounts=mounts,
        points=points,
        pwd=place.pwd,
        added=added,
        verdicts=verdicts,
        notes=(
            *(*home.notes, *((host.state_note,) if host.state_note and folders else ())),
            *(*place.notes, *env_notes, *gpu_notes, *mpi.notes),
            *(*fuse_notes(image, host), *find_meddling(host.environment)),
        ),
    )


def _serve(
    image: ImageSeen, mounts: tuple[Mount, ...], home: Home, host: HostSeen
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """With the image's own folders over what the others cover of them."""
    served = serve_places(image)
    own = f"{host.state}/{image.identity}/home"
    return (*mounts, *served), plan_points(served, mounts, home, host, own)


def _home(policy: HomePolicy, host: HostSeen, own: str) -> Home:
    return plan_home(
        policy,
        home=host.home,
        account_home=host.account_home,
        state=own,
        present={name: seen_at(path, host) for name, path in host.personal.items()},
    )


def plan_archive(
    image: ImageSeen, request: Request, mounts: Sequence[Mount], session: Mapping[str, str]
) -> dict[str, str]:
    """What lets Python import from the image's archive; nothing where something may lie over it."""
    return plan_modules(
        image.facts.modules if image.facts else None,
        is_whole=image.kind == "sif" and not (request.overlays or request.writable_tmpfs),
        targets=[mount.target for mount in mounts],
        session=session,
    )


def _gpu(policy: GpuPolicy, image: ImageSeen, host: HostSeen) -> tuple[Gpu | None, tuple[str, ...]]:
    return plan_gpu(policy, host.gpus, host.driver, image.needs, image.libc)


def _shared(
    image: ImageSeen, host: HostSeen, request: Request, flags: Sequence[str], mpi: MpiPlan
) -> Shared:
    if request.alone:
        return Shared()
    if mpi.choice != "none":
        check_shareable(host)
    # Not the mounts: while ranks start, the first one's folders appear in the home of the next.
    asked = (*flags, *request.binds, *request.env, request.pwd, "with limpet run")
    prefix = image.facts.prefix if image.facts else ""
    return plan_share(host, " ".join((image.identity, *asked)), prefix)


def _personal(image: ImageSeen, host: HostSeen, policy: HomePolicy, home: Home) -> Personal:
    return plan_personal(
        policy,
        prefix=image.facts.prefix if image.facts else "",
        home=home,
        state=f"{host.state}/{image.identity}",
        pip=host.pip,
        path=host.environment.get(prefixed("PREPEND_PATH", host.runtime_kind), ""),
    )


def _flags(request: Request, home: Home, gpu: Gpu | None) -> tuple[str, ...]:
    # --no-eval: without it the runtime evaluates `$` and backquotes in what limpet hands over.
    # --no-mount cwd: the runtime would mount even /usr/lib over the image's own; see `plan_place`.
    options = ["--no-eval", "--no-mount", "cwd", *home.options]
    if gpu:
        options.append("--nv" if gpu == "nvidia" else "--rocm")
    if request.writable_tmpfs:
        options.append("--writable-tmpfs")
    for overlay in request.overlays:
        options += ["--overlay", overlay]
    return tuple(options)


# Started through a file of the environment, so that a layer which the runtime left out is an
# error, not the base's Python. It uses no variables, for the session may
# export any name, and the program would see it changed.
_PROOF = '[ -x "$2" ] || { printf "%s\\n" "$1" >&2; exit 125; }; shift; exec "$@"'

# The session's start files are not read: they would bring the host's conda and modules back.
_SHELL = (
    "unset PROMPT_COMMAND ENV; export PS1; "
    'if command -v bash >/dev/null; then PS1="$1 \\\\w \\$ "; exec bash --norc --noprofile -i; fi; '
    'PS1="$1 \\$ "; exec sh -i'
)


def _inside(
    image: ImageSeen, request: Request, mpi: MpiPlan, given: tuple[str, ...]
) -> tuple[str, ...]:
    command = request.command
    if request.shell:
        # bash evaluates a prompt, so nothing of a file's name may mean something to it.
        prompt = f"[{re.sub(r'[^A-Za-z0-9._+-]', '_', image.title)}]"
        command = ("/bin/sh", "-c", _SHELL, "limpet", prompt)
    command = mpi.around(command, given)
    if image.facts is None:
        return command
    start = f"{image.facts.prefix}/.limpet/start"
    return ("/bin/sh", "-c", _PROOF, "limpet", _dropped(image.facts), start, *command)


def _dropped(facts: ImageFacts) -> str:
    what = f"limpet: The image was started without its environment: {facts.prefix} is not there."
    if facts.layout == "merged":
        return f"{what}\nThe image is damaged, or something is mounted over it."
    return (
        f"{what}\n"
        "The runtime left out the environment layer, as it does with --underlay, with "
        "'enable overlay = no' in its configuration, and in SingularityCE's user namespace mode.\n"
        "Build the image with --layout merged: that runs everywhere."
    )
