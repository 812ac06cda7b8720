"""Start a program in an image: look, plan, then become the runtime."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import NoReturn

import msgspec

from limpet.actions.image_known import with_known
from limpet.actions.mpi import look_for_mpi
from limpet.core.errors import HostError, UsageError
from limpet.core.launch import Launch, plan_launch
from limpet.core.mounts import is_below
from limpet.core.personal import KIT, PIP
from limpet.core.places import wished_binds
from limpet.core.prefetch import plan_prefetch
from limpet.core.seen import Request
from limpet.core.share import SHARENS, SWITCH
from limpet.tools import (
    apptainer,
    files,
    gpu,
    host,
    images,
    page_cache,
    personal,
    process,
    slurm,
)
from limpet.tools.config import read_config
from limpet.tools.node_local import find_node_local


def plan_start(image: str, request: Request, *, config_file: str = "", system: str = "") -> Launch:
    """The launch of `image` on this machine, as the user, the image and the site want it.

    Nothing is made or changed. `system` is the name of a preset in the configuration.
    """
    if not request.shell and not request.command:
        raise UsageError(
            "There is no command to run.",
            now="Write limpet run IMAGE COMMAND…, or limpet shell IMAGE.",
        )
    config = read_config(config_file)
    site_binds = (*config.binds, *config.system(system).bind)
    request = msgspec.structs.replace(request, site_binds=site_binds)
    seen = images.read_image(image)
    seen = msgspec.structs.replace(seen, path=slurm.find_staged(seen.identity) or seen.path)
    if seen.facts and seen.facts.host:
        from limpet.tools.host_python import check_host_python  # few images need it

        check_host_python(seen.facts.host, seen.path)
    offered, asked = wished_binds(seen, request, host.working_folder())
    cache = files.cache_folder(config.cache_dir)
    runtime = apptainer.probe_runtime(cache)
    gpus = gpu.probe_gpus()
    seen = with_known(seen, cache)
    here = host.probe_host(
        runtime=str(runtime.path),
        runtime_kind=runtime.kind,
        runtime_version=runtime.version,
        state_folder=config.state_dir,
        binds=(*offered, *asked),
        gpus=gpus,
        driver=gpu.probe_driver(gpus, cache=cache),
    )
    pip = personal.probe_pip(Path(here.state), Path(here.home or "/"))
    here = msgspec.structs.replace(
        here,
        pip=pip,
        local=find_node_local(),
        mpi=look_for_mpi(seen, request, config, cache),
        siblings=slurm.probe_siblings(),
    )
    held: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if request.overlays:  # few starts have any, and it takes its time to import
        from limpet.actions.overlay import choose_overlays

        chosen = choose_overlays(seen, here, request.overlays)
        request = msgspec.structs.replace(request, overlays=chosen.words)
        held, notes = chosen.held, chosen.notes
    launch = plan_launch(seen, here, request)
    check_pip(launch, request)
    rank = here.siblings.rank if here.siblings else 0
    prefetch = plan_prefetch(page_cache.look_ahead(Path(seen.path), seen.ahead, rank=rank))
    answers = config.answers and (not seen.facts or seen.facts.run.answers)
    return msgspec.structs.replace(
        launch, overlays=held, notes=(*launch.notes, *notes), prefetch=prefetch, answers=answers
    )


def check_pip(launch: Launch, request: Request) -> None:
    """UsageError where `limpet pip` has no place to put packages."""
    wanted = request.command[:1] == (PIP,)
    if wanted and launch.image.facts and not launch.image.facts.python:
        raise UsageError(
            f"{launch.image.path} has no Python of its own that could see packages.",
            now="Add python to its description, and build it again.",
        )
    if wanted and not any(mount.target == KIT for mount in launch.mounts):
        raise UsageError(
            f"{launch.image.path} has no personal packages with --home {launch.home}.",
            now="Use --home isolated, here and with limpet run.",
        )


def wants_answers(launch: Launch, request: Request) -> bool:
    """Whether limpet stays beside the program, to say more where it fails in a known way."""
    from limpet.core.watching import is_worth_watching
    from limpet.tools import watch

    if SHARENS in launch.options or SWITCH in launch.env:
        return False  # the runtime knows the ranks that share a container by their one parent
    if request.shell or not launch.answers:
        return False
    return is_worth_watching(
        request.command,
        os.environ,
        stdin_terminal=watch.stream_kind(0) == "terminal",
        stderr=watch.stream_kind(),
    )


def answer_failure(said: str, code: int) -> str:
    """limpet's line on a failure, or nothing."""
    from limpet.core.failures import find_answer

    found = find_answer(said, code)
    return f"limpet: {found.answer}" if found else ""


def make_ready(launch: Launch) -> None:
    """Make what a launch needs to be there: its folders, held overlays, limpet's own pip."""
    for root in filter(None, (launch.state, launch.local)):
        below = [
            [p for p in paths if is_below(p, root)] for paths in (launch.folders, launch.files)
        ]
        host.make_private(below[0], root, below[1])
    for point in launch.points:
        with contextlib.suppress(OSError):  # the runtime says what is missing
            Path(point).mkdir(parents=True, exist_ok=True)
    for folder in launch.overlays:
        from limpet.tools.overlay import hold_folder

        hold_folder(folder)
    for mount in launch.mounts:
        if mount.target == KIT:
            personal.make_kit(Path(mount.source), inside=KIT)
    if launch.prefetch.ranges:
        page_cache.read_ahead(Path(launch.image.path), launch.prefetch.ranges)


def start(launch: Launch, *, answers: bool = False) -> NoReturn:
    """Become the program, which all is ready for; its signals, terminal and exit code are its own.

    With `answers` limpet stays beside it instead, and passes all that on.
    """
    # Python ignores SIGPIPE, and what is ignored stays so in the program that it becomes.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        if answers:
            from limpet.tools import watch

            watch.run_watched(launch.argv, launch.env, answer_failure)
        process.replace_by(launch.argv, launch.env)
    except OSError as error:
        raise HostError(f"{launch.argv[0]} cannot be started.", why=f"{error.strerror}.") from error
