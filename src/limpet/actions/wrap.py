"""Make a folder of launchers, bring it up to date, and go back to an earlier state of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from limpet import __version__
from limpet.actions.image_known import with_known
from limpet.actions.mpi import look_for_mpi
from limpet.actions.overlay import Chosen, choose_overlays
from limpet.actions.settle import settle
from limpet.core.config import Config
from limpet.core.errors import UsageError
from limpet.core.file_systems import may_be_shared
from limpet.core.fit import fuse_notes
from limpet.core.fronts import check_kernel_name, render_kernel, render_module
from limpet.core.image import LOCK_OBJECT, Ahead
from limpet.core.launch import plan_launch
from limpet.core.launcher import render_beside, render_launcher
from limpet.core.mpi_plan import plan_mpi
from limpet.core.overlay import parse_wish
from limpet.core.personal import KIT
from limpet.core.places import wished_binds
from limpet.core.prefetch import is_worth_it
from limpet.core.pylock import parse_lock
from limpet.core.seen import HostSeen, ImageSeen, Request
from limpet.core.wrap import (
    SOURCES,
    Wrap,
    WrapReport,
    WrapRequest,
    check_host_allowed,
    choose_programs,
)
from limpet.tools import (
    apptainer,
    files,
    host,
    images,
    launchers,
    mounts,
    personal,
    programs,
    sources,
)
from limpet.tools.config import read_config
from limpet.tools.host_python import check_host_python


def wrap_image(
    image: str,
    folder: Path,
    request: WrapRequest,
    *,
    config_file: str = "",
    system: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> WrapReport:
    """A folder whose bin/ holds a launcher for each program of the image."""
    config = read_config(config_file)
    launch = msgspec.structs.replace(
        request.launch,
        site_binds=(*config.binds, *config.system(system).bind),
        binds=tuple(_absolute_bind(bind) for bind in request.launch.binds),
        overlays=tuple(_absolute_overlay(word) for word in request.launch.overlays),
    )
    request = msgspec.structs.replace(
        request, launch=launch, state_dir=config.state_dir, config_file=_absolute(config_file)
    )
    folder = Path(os.path.realpath(folder))
    seen = images.read_image(image)
    _check(seen, request)
    chosen = choose_programs(
        programs.list_programs(seen, request.folders), request, title=seen.title
    )
    launchers.check_free(folder, force=force)
    return _write(seen, folder, request, chosen, config, dry_run=dry_run)


def update_wrap(
    folder: Path, image: str = "", *, config_file: str = "", dry_run: bool = False
) -> WrapReport:
    """The launchers again, for the image as it is now or for another one, set as before.

    The host's MPI is looked up in the configuration file of before, or in this one from now on.
    """
    folder = Path(os.path.realpath(folder))
    old = launchers.read_wrap(folder, launchers.current_version(folder))
    if config_file:
        request = msgspec.structs.replace(old.request, config_file=_absolute(config_file))
        old = msgspec.structs.replace(old, request=request)
    # A source of the folder's own is written down as it lies in it: folders may be moved.
    return _follow(folder, old, str(Path(image) if image else folder / old.source), dry_run=dry_run)


def follow_kept(folder: Path, old: Wrap, image: Path) -> WrapReport:
    """The launchers again, for an image that lies in the folder already."""
    return _follow(folder, old, str(image), dry_run=False)


def _follow(folder: Path, old: Wrap, image: str, *, dry_run: bool) -> WrapReport:
    request = old.request
    seen = images.read_image(image)
    _check(seen, request)
    found = programs.list_programs(seen, request.folders)
    chosen = choose_programs(found, request, title=seen.title, strict=False)
    launchers.check_free(folder, force=False)
    return _write(seen, folder, request, chosen, read_config(request.config_file), dry_run=dry_run)


def bring_back(folder: Path) -> WrapReport:
    """The version before the one in force, put in force again."""
    folder = Path(os.path.realpath(folder))
    number = launchers.current_version(folder)
    earlier = [version for version in launchers.list_versions(folder) if version < number]
    if not earlier:
        raise UsageError(f"{folder} has no version before {number}.")
    old, back = (launchers.read_wrap(folder, version) for version in (number, earlier[-1]))
    with launchers.changed(folder):
        launchers.put_in_force(folder, back.number)
        _write_fronts(folder, back)
    return _report(folder, back, old)


def _check(seen: ImageSeen, request: WrapRequest) -> None:
    if seen.facts and seen.facts.host:
        check_host_python(seen.facts.host, seen.path)
    if request.host:
        check_host_allowed(seen)
    if request.kernel:
        check_kernel_name(request.kernel)
    runs_in_place = request.launch.pwd
    if runs_in_place and not runs_in_place.startswith("/"):
        raise UsageError(f"--pwd {runs_in_place}: launchers need an absolute path.")


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def _absolute_bind(text: str) -> str:
    source, colon, rest = text.partition(":")
    return f"{Path(source).expanduser().absolute()}{colon}{rest}"


def _absolute_overlay(text: str) -> str:
    wish = parse_wish(text)
    place = wish.name or Path(wish.path).expanduser().absolute()
    return f"{place}{'' if wish.writable else ':ro'}"


def _write(
    seen: ImageSeen,
    folder: Path,
    request: WrapRequest,
    chosen: dict[str, str],
    config: Config,
    *,
    dry_run: bool,
) -> WrapReport:
    seen = with_known(seen, files.cache_folder(config.cache_dir))
    shared = may_be_shared(mounts.kind_of(folder if request.copy else Path(seen.path)))
    if not (shared and is_worth_it(seen.ahead)):
        seen = msgspec.structs.replace(seen, ahead=Ahead())
    here = _probe(seen, request, config)
    chosen_overlays = choose_overlays(seen, here, request.launch.overlays)
    notes = (*chosen_overlays.notes, *fuse_notes(seen, here), *_kernel_notes(seen, request))
    versions = launchers.list_versions(folder)
    old = launchers.read_wrap(folder, launchers.current_version(folder)) if versions else None
    wrap = Wrap(
        limpet=__version__,
        number=max(versions, default=0) + 1,
        image=_place(folder, seen.path),
        source=_place(folder, seen.path),
        identity=seen.identity,
        title=seen.title,
        programs=chosen,
        root_names=programs.list_root(seen) if request.host else (),
        request=request,
    )
    if dry_run:
        render_launcher(_settled(wrap, chosen_overlays, seen, here), seen, here, str(folder))
        return _report(folder, wrap, old, notes)
    with launchers.changed(folder):
        # Another update may have come first.
        number = max(launchers.list_versions(folder), default=0) + 1
        image = wrap.image
        if request.copy and Path(image).is_absolute():
            image = launchers.keep_image(folder, Path(seen.path), seen.identity)
        wrap = msgspec.structs.replace(wrap, number=number, image=image)
        settled = _settled(wrap, chosen_overlays, seen, here)
        script = render_launcher(settled, seen, here, str(folder))
        beside = render_beside(settled, seen, here, str(folder))
        extra = {name: text.encode("utf-8", "surrogateescape") for name, text in beside.items()}
        extra["on_top.py"] = launchers.on_top_script()
        launchers.write_version(folder, wrap, script, extra, _sources_of(seen, request))
        launchers.put_in_force(folder, number)
        _write_fronts(folder, wrap)
    if here.pip.kit:
        # Launchers mount it where it is, and have no limpet to make it with.
        host.make_private([here.pip.kit], here.state)
        personal.make_kit(Path(here.pip.kit), inside=KIT)
    notes += _note_down(seen, here, _settled(wrap, chosen_overlays, seen, here).request.launch)
    return _report(folder, wrap, old, notes)


def _sources_of(seen: ImageSeen, request: WrapRequest) -> Callable[[Path], None]:
    """What adds them to a version, where they are wanted."""

    def fill(version: Path) -> None:
        if request.sources:
            sources.write_sources(seen, version / SOURCES)

    return fill


def _settled(wrap: Wrap, overlays: Chosen, seen: ImageSeen, here: HostSeen) -> Wrap:
    """With what launchers cannot find out: the overlays' paths for their names, and the host's MPI
    as it is now where that was asked for."""
    launch = wrap.request.launch
    policy = launch.mpi or (seen.facts.run.mpi if seen.facts else "auto")
    mounts = plan_mpi(policy, here.mpi).mounts
    binds = (f"{m.source}:{m.target}{'' if m.writable else ':ro'}" for m in mounts)
    launch = msgspec.structs.replace(
        launch, overlays=overlays.words, site_binds=(*launch.site_binds, *binds)
    )
    request = msgspec.structs.replace(wrap.request, launch=launch)
    return msgspec.structs.replace(wrap, request=request)


def _note_down(seen: ImageSeen, here: HostSeen, launch: Request) -> tuple[str, ...]:
    """What `limpet run` does at an image's first start and no launcher can: `limpet state` knows
    it, and personal packages of the image before a rebuild are carried over."""
    # A bind may be of another machine than this one.
    bare = msgspec.structs.replace(launch, command=("true",), binds=(), site_binds=())
    return settle(plan_launch(seen, here, bare))


def _place(folder: Path, image: str) -> str:
    """The image's path as it is written down: relative where the folder keeps it."""
    kept = launchers.images_folder(folder)
    return str(Path(image).relative_to(folder)) if Path(image).is_relative_to(kept) else image


def _probe(seen: ImageSeen, request: WrapRequest, config: Config) -> HostSeen:
    offered, asked = wished_binds(seen, request.launch, "/")
    runtime = apptainer.probe_runtime()
    here = host.probe_host(
        runtime=str(runtime.path),
        runtime_kind=runtime.kind,
        runtime_version=runtime.version,
        state_folder=request.state_dir,
        binds=(*offered, *asked),
    )
    pip = personal.probe_pip(Path(here.state), Path(here.home or "/"))
    mpi = look_for_mpi(seen, request.launch, config, files.cache_folder(config.cache_dir))
    # A launcher serves all starts: whether tasks can meet is not known now.
    mpi = msgspec.structs.replace(mpi, tasks=None) if mpi else None
    return msgspec.structs.replace(here, pip=pip, mpi=mpi)


def _write_fronts(folder: Path, wrap: Wrap) -> None:
    if wrap.request.kernel:
        path = launchers.kernels_folder() / check_kernel_name(wrap.request.kernel) / "kernel.json"
        launchers.write_text(path, render_kernel(str(folder), wrap.title))
    if wrap.request.module:
        path = _module_file(folder, wrap)
        lua = path.suffix == ".lua"
        launchers.write_text(path, render_module(str(folder), wrap.title, lua=lua))


def _module_file(folder: Path, wrap: Wrap) -> Path:
    """A relative path counts from the folder, so that it moves with it."""
    return folder / wrap.request.module


def _report(folder: Path, wrap: Wrap, old: Wrap | None, notes: tuple[str, ...] = ()) -> WrapReport:
    own = folder / SOURCES
    before = set(old.programs) if old else set()
    now = set(wrap.programs)
    kernel = ""
    if wrap.request.kernel:
        kernel = str(launchers.kernels_folder() / check_kernel_name(wrap.request.kernel))
    return WrapReport(
        folder=str(folder),
        version=wrap.number,
        image=wrap.image,
        programs=tuple(sorted(now)),
        added=tuple(sorted(now - before)) if old else (),
        removed=tuple(sorted(before - now)),
        kernel=kernel,
        module=str(_module_file(folder, wrap)) if wrap.request.module else "",
        sources=str(own) if wrap.request.sources else "",
        source_files=sum(len(names) for _, _, names in os.walk(own)) if wrap.request.sources else 0,
        notes=(*_notes(wrap), *notes),
    )


def _kernel_notes(seen: ImageSeen, request: WrapRequest) -> tuple[str, ...]:
    """That the kernel will not start, where the image's own lock says so."""
    if not (request.kernel and seen.facts and seen.kind == "sif"):
        return ()
    text = images.read_named(Path(seen.path), LOCK_OBJECT)
    if not text:
        return ()
    lock = parse_lock(text.decode(), seen.path)
    names = {one.name for one in lock.packages} | {one.name for one in lock.conda}
    if lock.tree_sha256 or "ipykernel" in names | set(lock.provided):
        return ()
    return ("The kernel needs ipykernel, which the image does not have: limpet update --add it.",)


def _notes(wrap: Wrap) -> tuple[str, ...]:
    notes = []
    if wrap.request.kernel and "python" not in wrap.programs:
        notes.append("The kernel needs a launcher named python.")
    return tuple(notes)
