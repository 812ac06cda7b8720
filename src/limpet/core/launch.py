"""Image + host + request → the launch: the exact command line and environment of a start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from limpet.core.caches import plan_caches
from limpet.core.errors import HostError, ImageError
from limpet.core.facts import Libc
from limpet.core.gpu import Driver, Gpu, GpuNeeds, plan_gpu
from limpet.core.handover import find_meddling, hand_over, parse_env, prefixed, set_by_prefix
from limpet.core.homes import Home, plan_home
from limpet.core.image import ImageFacts
from limpet.core.mounts import Mount, is_below, parse_bind, render_mount
from limpet.core.personal import Personal, PipSeen, plan_personal
from limpet.core.recipe import GpuPolicy, HomePolicy, Run, VariablePolicy
from limpet.core.seeing import ALWAYS, is_own, plan_aliases, plan_temporaries
from limpet.core.variables import Verdict, select_variables

FORMAT = 1
ImageKind = Literal["sif", "squashfs", "sandbox"]


class ImageSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An image as it lies there; `facts` only where limpet made it.

    `identity` names what is in it and stays the same for every copy: its personal folders are kept
    under that name. `title` is for people. `arch` is empty where nothing tells. `needs` and `libc`
    are read on machines with GPUs only.
    """

    path: str
    kind: ImageKind
    identity: str
    title: str
    arch: str = ""
    facts: ImageFacts | None = None
    needs: GpuNeeds = GpuNeeds()
    libc: Libc | None = None


class HostSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What a launch has to know of this machine and this session.

    `home` is $HOME (empty where there is none), `real_home` the same without symbolic links,
    `account_home` what the account database says. `personal` are the personal folders and start
    files that the home really has, with their true paths. `links` are the links at the top of the
    file system that lead to folders, `temporaries` the folders of TMPDIR and its like. `state` is
    the folder for images' personal things; `state_note` is set where it is only a passing one.
    `local` is the user's folder on the node's own disk, empty outside a job. `missing` are the
    sources of wished binds that do not exist. `fuse` and `namespaces`: whether this user may use
    them; `setuid`: whether the runtime needs neither (None: unknown).
    """

    runtime: str
    runtime_kind: Literal["apptainer", "singularity-ce"]
    runtime_version: str
    arch: str
    environment: dict[str, str]
    home: str
    real_home: str
    account_home: str
    state: str
    local: str = ""
    cwd: str
    personal: dict[str, str] = msgspec.field(default_factory=dict)
    links: dict[str, str] = msgspec.field(default_factory=dict)
    temporaries: tuple[str, ...] = ()
    state_note: str = ""
    gpus: tuple[Gpu, ...] = ()
    driver: Driver = Driver()
    fuse: bool = True
    namespaces: bool = True
    setuid: bool | None = None
    missing: tuple[str, ...] = ()
    pip: PipSeen = PipSeen()


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for; what is None or empty, the image and the site decide.

    `binds` are the user's own `--bind` (they must exist), `site_binds` the configuration's,
    which the action adds.
    """

    command: tuple[str, ...] = ()
    shell: bool = False
    variables: VariablePolicy | None = None
    home: HomePolicy | None = None
    gpu: GpuPolicy | None = None
    env: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    site_binds: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    writable_tmpfs: bool = False
    pwd: str = ""
    verbose: bool = False


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A start, ready to be done: make `folders` and `files` (all below `state` or `local`), hold
    `overlays` (folders that are written to), then become `argv` with `env`.

    The rest explains it: the policies in force, the verdict on every variable, and notes.
    """

    argv: tuple[str, ...]
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
    mounts: tuple[Mount, ...] = ()
    pwd: str = ""
    added: dict[str, str] = msgspec.field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
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
    visible = (*ALWAYS, *home.visible, *_same_inside(place.mounts))
    named, values, env_notes = parse_env(request.env, host.environment)
    names = (*wants.pass_variables, *named)
    hidden = [mount.target for mount in home.mounts]
    passed, verdicts = select_variables(
        host.environment, policy, named=names, visible=visible, hidden=hidden
    )
    ours = image.facts.env if image.facts else {}
    taken = set_by_prefix(passed) | passed | ours | values
    caches = plan_caches(home_policy, home, state=own, local=host.local, taken=taken)
    # The home's last: they cover what the others may bring in.
    mounts = (*place.mounts, *_home_mounts(home, host), *caches.mounts, *personal.mounts)
    added = {n: v for n, v in home.variables.items() if n not in ours}
    # The caches' last: to a variable of flags they add one.
    added |= personal.variables | values | caches.variables
    folders = tuple(dict.fromkeys((*home.folders, *caches.folders, *personal.folders)))
    gpu, gpu_notes = _gpu(request.gpu or wants.gpu, image, host)
    return Launch(
        argv=(
            *_options(host, request, home, gpu),
            *(word for mount in mounts for word in render_mount(mount)),
            *("--pwd", place.pwd),
            image.path,
            *_inside(image, request),
        ),
        env=hand_over(passed, added, host.runtime_kind),
        image=image,
        runtime=f"{host.runtime_kind} {host.runtime_version}",
        state=host.state,
        local=caches.local,
        folders=folders,
        files=home.files,
        variables=policy,
        home=home_policy,
        gpu=gpu,
        mounts=mounts,
        pwd=place.pwd,
        added=added,
        verdicts=verdicts,
        notes=(
            *home.notes,
            *((host.state_note,) if host.state_note and folders else ()),
            *place.notes,
            *env_notes,
            *gpu_notes,
            *fuse_notes(image, host),
            *find_meddling(host.environment),
        ),
    )


def _home(policy: HomePolicy, host: HostSeen, own: str) -> Home:
    return plan_home(
        policy,
        home=host.home,
        account_home=host.account_home,
        state=own,
        present={name: _seen_at(path, host) for name, path in host.personal.items()},
    )


def _gpu(policy: GpuPolicy, image: ImageSeen, host: HostSeen) -> tuple[Gpu | None, tuple[str, ...]]:
    return plan_gpu(policy, host.gpus, host.driver, image.needs, image.libc)


def _personal(image: ImageSeen, host: HostSeen, policy: HomePolicy, home: Home) -> Personal:
    return plan_personal(
        policy,
        prefix=image.facts.prefix if image.facts else "",
        home=home,
        state=f"{host.state}/{image.identity}",
        pip=host.pip,
        path=host.environment.get(prefixed("PREPEND_PATH", host.runtime_kind), ""),
    )


def check_fit(image: ImageSeen, host: HostSeen) -> None:
    """ImageError where this machine or this limpet cannot start the image."""
    if image.arch and image.arch != host.arch:
        raise ImageError(
            f"{image.path} is for {image.arch}; this machine is {host.arch}.",
            now="Build it for this machine, or start it on one that it is for.",
        )
    if image.facts and image.facts.format > FORMAT:
        raise ImageError(
            f"{image.path} was made by a newer limpet ({image.facts.limpet}).",
            why=f"Its format is {image.facts.format}; this limpet knows {FORMAT}.",
            now="Use a newer limpet. `apptainer exec` starts it as well.",
        )


def check_rights(image: ImageSeen, host: HostSeen) -> None:
    """HostError where this machine keeps its users from starting containers."""
    if host.setuid is not False:
        return
    ask = "Ask the administrator to allow it, or to install the runtime with setuid rights"
    if not host.namespaces:
        raise HostError(
            "This machine allows its users no user namespaces, which containers need.",
            why="kernel.unprivileged_userns_clone or user.max_user_namespaces is 0.",
            now=f"{ask} (apptainer-suid).",
        )
    if image.kind != "sandbox" and not host.fuse:
        raise HostError(
            "/dev/fuse cannot be used by this user, and the runtime mounts images with it.",
            now=f"{ask}: udev's rules give it mode 666. A sandbox folder starts without it.",
        )


def fuse_notes(image: ImageSeen, host: HostSeen) -> tuple[str, ...]:
    """What may keep the start from working, where the runtime's rights are not known."""
    if image.kind == "sandbox" or host.fuse or host.setuid is not None:
        return ()
    return ("/dev/fuse cannot be used: the runtime needs setuid rights to mount the image.",)


def _options(host: HostSeen, request: Request, home: Home, gpu: Gpu | None) -> list[str]:
    # --no-eval: without it the runtime evaluates `$` and backquotes in what limpet hands over.
    # --no-mount cwd: the runtime would mount even /usr/lib over the image's own; see `plan_place`.
    options = [host.runtime, *(() if request.verbose else ("--quiet",))]
    options += ["exec", "--no-eval", "--no-mount", "cwd", *home.options]
    if gpu:
        options.append("--nv" if gpu == "nvidia" else "--rocm")
    if request.writable_tmpfs:
        options.append("--writable-tmpfs")
    for overlay in request.overlays:
        options += ["--overlay", overlay]
    return options


# Started through a file of the environment, so that a layer which the runtime left out is an
# error, not the base's Python.
_PROOF = (
    's="$1"/.limpet/start; m="$2"; shift 2; [ -x "$s" ] && exec "$s" "$@"; '
    'printf "%s\\n" "$m" >&2; exit 125'
)

# The session's start files are not read: they would bring the host's conda and modules back.
_SHELL = (
    "unset PROMPT_COMMAND ENV; export PS1; "
    'if command -v bash >/dev/null; then PS1="$1 \\\\w \\$ "; exec bash --norc --noprofile -i; fi; '
    'PS1="$1 \\$ "; exec sh -i'
)


def _inside(image: ImageSeen, request: Request) -> tuple[str, ...]:
    command = request.command
    if request.shell:
        # bash evaluates a prompt, so nothing of a file's name may mean something to it.
        prompt = f"[{re.sub(r'[^A-Za-z0-9._+-]', '_', image.title)}]"
        command = ("/bin/sh", "-c", _SHELL, "limpet", prompt)
    if image.facts is None:
        return command
    prefix = image.facts.prefix
    return ("/bin/sh", "-c", _PROOF, "limpet", prefix, _dropped(image.facts), *command)


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


def wished_binds(
    image: ImageSeen, request: Request, cwd: str
) -> tuple[tuple[Mount, ...], tuple[Mount, ...]]:
    """What the site and the recipe offer, and what the user asks for."""
    recipe = image.facts.run.bind if image.facts else ()
    offered = tuple(parse_bind(text, cwd) for text in (*request.site_binds, *recipe))
    return offered, tuple(parse_bind(text, cwd) for text in request.binds)


def plan_binds(
    image: ImageSeen, host: HostSeen, request: Request
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """The user's binds must exist; the site's and the recipe's are left out where they do not."""
    offered, asked = wished_binds(image, request, host.cwd)
    for mount in asked:
        if mount.source in host.missing:
            raise HostError(f"--bind {mount.source}: there is no such file or folder.")
    targets = {mount.target for mount in asked}
    chosen = {m.target: m for m in offered if m.source not in host.missing}
    notes = tuple(f"{m.source} does not exist here." for m in offered if m.source in host.missing)
    return (*(m for m in chosen.values() if m.target not in targets), *asked), notes


def plan_sight(
    image: ImageSeen, host: HostSeen, home: Home, request: Request, *, temporaries: bool
) -> Place:
    """What of the host is mounted beside the home, under all its names, and the working folder."""
    binds, bind_notes = plan_binds(image, host, request)
    place = plan_place(host, home, binds, request, image)
    prefix = image.facts.prefix if image.facts else ""
    mounts = (*binds, *place.mounts)
    if temporaries:
        visible = (*ALWAYS, *home.visible, *_same_inside(mounts))
        mounts += plan_temporaries(host.temporaries, visible=visible, home=host.home, prefix=prefix)
    mounts += plan_aliases(mounts, host.links, home=host.home, prefix=prefix)
    return Place(pwd=place.pwd, mounts=mounts, notes=(*bind_notes, *place.notes))


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the program starts, and what is mounted so that it finds its way."""

    pwd: str
    mounts: tuple[Mount, ...] = ()
    notes: tuple[str, ...] = ()


def _seen_at(path: str, host: HostSeen) -> str:
    below_home = is_below(path, host.real_home)
    return host.home + path.removeprefix(host.real_home) if below_home else path


def _home_mounts(home: Home, host: HostSeen) -> tuple[Mount, ...]:
    """The home's, and all of it again under the home's real name where a link leads to it."""
    if not home.visible or host.real_home == host.home:
        return home.mounts
    again = [
        Mount(source=mount.source, target=host.real_home + mount.target.removeprefix(host.home))
        for mount in home.mounts
        if is_below(mount.target, host.home)
    ]
    return (Mount(source=host.real_home, target=host.real_home), *home.mounts, *again)


def plan_place(
    host: HostSeen, home: Home, binds: Sequence[Mount], request: Request, image: ImageSeen
) -> Place:
    """The working folder inside: the same as outside wherever that can be."""
    if request.pwd:
        return Place(pwd=request.pwd)
    cwd = host.cwd
    if home.visible and is_below(cwd, host.real_home):
        # A home that is reached over a symbolic link is seen under its own name only.
        return Place(pwd=_seen_at(cwd, host))
    if any(is_below(cwd, folder) for folder in (*ALWAYS, *_same_inside(binds))):
        return Place(pwd=cwd)
    if is_own(cwd, image.facts.prefix if image.facts else ""):
        why = "that place is the image's own"
    elif is_below(host.real_home, cwd) or is_below(host.home, cwd):
        why = "the home lies below it, and would be seen whole"
    else:
        return Place(pwd=cwd, mounts=(Mount(source=cwd, target=cwd),))
    if cwd == host.real_home and home.start == host.home:
        return Place(pwd=home.start)
    note = (
        f"The working folder {cwd} is not seen inside: {why}. The program starts in {home.start}."
    )
    return Place(pwd=home.start, notes=(note,))


def _same_inside(mounts: Sequence[Mount]) -> tuple[str, ...]:
    return tuple(mount.source for mount in mounts if mount.source == mount.target)
