"""`limpet run --keep` and `limpet kept`: images that stay mounted between short starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from limpet.core.errors import HostError, SpaceError, UsageError
from limpet.core.keep import (
    APART,
    NAMESPACES,
    NEVER,
    VARIABLE,
    Kept,
    is_kernel,
    overlays,
    parse_session,
    plan_instance,
    plan_start_in,
    render_keeper,
    sources,
    tell_apart,
    writes,
)
from limpet.core.launch import Launch
from limpet.core.share import SHARENS, SWITCH
from limpet.tools import apptainer, files, host, instances, process, slurm
from limpet.tools.config import read_config


def wished_lifetime(launch: Launch) -> int:
    """How long the session wants it kept, in seconds; 0: not at all, or not such a start.

    Ranks share without it, and a task of a step is one start: what it leaves ends with the step.
    By hand, and in a kernel for notebooks, an interrupt would kill the runtime's process, which
    only waits, and so the program.
    """
    lifetime_s = parse_session(os.environ.get(VARIABLE, ""))
    shares = SHARENS in launch.options or (os.environ.get(SWITCH) or "0") != "0"
    lays = any(os.environ.get(name) for name in NEVER)
    interrupted = process.is_by_hand() or is_kernel(launch.inside)
    apart = shares or lays or writes(launch) or slurm.is_task() or interrupted
    return 0 if apart else lifetime_s


def keep(launch: Launch, lifetime_s: int) -> Launch:
    """The launch in an instance that holds its mounts, which is started if there is none.

    Where that cannot be, the launch as it was, and a note. The launch's folders must be there.
    """
    if writes(launch):
        raise UsageError(
            "--keep excludes --writable-tmpfs and a writable --overlay.",
            why="What one start wrote the others would see.",
            now="Leave one of them out, or end the overlay's name with :ro.",
        )
    try:
        kept = _find(launch, lifetime_s)
    except OSError as error:
        why = f"{error.filename or launch.state}: {error.strerror}."
    except (HostError, SpaceError) as error:
        why = " ".join(filter(None, (error.what, error.why)))
    else:
        return plan_start_in(launch, kept.name)
    note = f"The image cannot be kept mounted: {why}"
    return msgspec.structs.replace(launch, notes=(*launch.notes, note))


def _find(launch: Launch, lifetime_s: int) -> Kept:
    """The instance, which may have to be started first."""
    if found := [name for name in NEVER if os.environ.get(name)]:
        raise HostError(f"{found[0]} is set.")
    root = instances.kept_folder(Path(launch.state))
    host.make_private([str(root)], launch.state)
    same = _same(launch)
    return instances.find_alive(root, same) or _start(launch, root, same, lifetime_s)


def _same(launch: Launch) -> bytes:
    session = [os.environ.get(name, "") for name in APART]
    image = instances.image_state(Path(launch.image.path))
    over = [instances.image_state(Path(path)) for path in overlays(launch)]
    places = (*sources(launch, os.environ), *NAMESPACES)
    mounted = [instances.place_state(path) for path in places]
    return tell_apart(launch, image, (session, over, mounted, instances.session_state()))


def _start(launch: Launch, root: Path, same: bytes, lifetime_s: int) -> Kept:
    with files.held(root / ".lock"):
        # Another start may have been first.
        if kept := instances.find_alive(root, same):
            return kept
        instances.clear_up(root, launch.argv[0])
        folder = instances.prepare(root, same, render_keeper())
        argv = plan_instance(launch, folder.name, str(folder), lifetime_s)
        kept = Kept(name=folder.name, image=launch.image.path, lifetime_s=lifetime_s)
        return instances.start(folder, argv, launch.env, kept)


def list_kept(*, config_file: str = "") -> tuple[Kept, ...]:
    """The images that are kept mounted on this node."""
    return tuple(instances.list_kept(_root(config_file)))


@contextlib.contextmanager
def none_left(image: str, *, config_file: str = "") -> Iterator[Callable[[], bool]]:
    """What keeps this image when the block is done and was not there before is let go.

    The block is given a look at whether anything does.
    """
    root = _root(config_file)
    path = Path(image).resolve()

    def look() -> dict[str, Kept]:
        found = instances.list_kept(root)
        return {kept.name: kept for kept in found if Path(kept.image).resolve() == path}

    before = look()
    try:
        yield lambda: bool(look())
    finally:
        for name, kept in look().items():
            if name not in before:
                instances.let_go(root, kept)


def end_kept(images: tuple[str, ...] = (), *, config_file: str = "") -> tuple[Kept, ...]:
    """End those of these images (of all, if none is named); what runs in them is ended too."""
    root = _root(config_file)
    paths = {str(Path(image).resolve()) for image in images}
    found = [
        kept
        for kept in instances.list_kept(root)
        if not paths or str(Path(kept.image).resolve()) in paths
    ]
    if found:
        runtime = str(apptainer.find_runtime())
        for kept in found:
            instances.end(root, kept, runtime)
    return tuple(found)


def _root(config_file: str) -> Path:
    return instances.kept_folder(files.state_folder(read_config(config_file).state_dir))
