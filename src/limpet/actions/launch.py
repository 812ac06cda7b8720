"""Start a program in an image: look, plan, then become the runtime."""

from __future__ import annotations

import signal
from typing import NoReturn

import msgspec

from limpet.actions.overlay import choose_overlays
from limpet.core.errors import HostError, UsageError
from limpet.core.launch import Launch, Request, plan_launch, wished_binds
from limpet.core.mounts import is_below
from limpet.tools import apptainer, host, images, overlay, process
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
    offered, asked = wished_binds(seen, request, host.working_folder())
    runtime = apptainer.probe_runtime()
    here = host.probe_host(
        runtime=str(runtime.path),
        runtime_kind=runtime.kind,
        runtime_version=runtime.version,
        state_folder=config.state_dir,
        binds=(*offered, *asked),
    )
    here = msgspec.structs.replace(here, local=find_node_local())
    chosen = choose_overlays(seen, here, request.overlays)
    request = msgspec.structs.replace(request, overlays=chosen.words)
    launch = plan_launch(seen, here, request)
    notes = (*launch.notes, *chosen.notes)
    return msgspec.structs.replace(launch, overlays=chosen.held, notes=notes)


def start(launch: Launch) -> NoReturn:
    """Become the program; its signals, terminal and exit code are its own from here on."""
    for root in filter(None, (launch.state, launch.local)):
        host.make_private([f for f in launch.folders if is_below(f, root)], root)
    for folder in launch.overlays:
        overlay.hold_folder(folder)
    # Python ignores SIGPIPE, and what is ignored stays so in the program that it becomes.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        process.replace_by(launch.argv, launch.env)
    except OSError as error:
        raise HostError(f"{launch.argv[0]} cannot be started.", why=f"{error.strerror}.") from error
