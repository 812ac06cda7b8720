"""Locked packages into pieces: whatever is not in the cache is fetched, built, compiled, written.

All of it overlaps: while some wheels are on their way, others are compiled by the base's Python and
others yet are compressed here.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from limpet.actions.progress import Progress
from limpet.actions.wheels import (
    Site,
    WheelFile,
    check_offline,
    name_wheel,
    obtain_wheel,
    work_folder,
)
from limpet.core import events
from limpet.core.events import Event, Notify
from limpet.core.facts import Interpreter, Libc
from limpet.core.lock import Lock, LockedPackage
from limpet.core.piece import (
    Layout,
    Piece,
    check_fits,
    direct_url,
    is_wheel,
    piece_key,
    plan_layout,
)
from limpet.tools.apptainer import Bind, Runtime, build_environment, exec_argv
from limpet.tools.pieces import find_piece, write_piece

if TYPE_CHECKING:
    from limpet.formats.squashfs import Entry
    from limpet.tools.bytecode import Compiler, Job
    from limpet.tools.download import Credentials, Fetcher
    from limpet.tools.wheels import LaidOut

THREADS = 32  # packages under way at once, most of them waiting
DOWNLOADS = 8
BUILDS = 2  # from source; these have workers of their own

Learn = Callable[[Sequence[Piece], "Compiler"], None]


def no_credentials(url: str) -> tuple[str, str] | None:
    """For those who have none."""
    return None


def open_shelf(
    lock: Lock,
    *,
    lock_folder: Path,
    base_sif: Path,
    interpreter: Interpreter,
    arch: str,
    libc: Libc,
    cache: Path,
    runtime: Runtime,
    compressor: str = "zstd",
    offline: bool = False,
    jobs: int | None = None,
    credentials: Credentials = no_credentials,
    hash_directory: Callable[[Path], str] | None = None,
    layout: Layout | None = None,
    binds: Sequence[Bind] = (),
) -> Shelf:
    """What of a lock's pieces is in the cache, and what it takes to make the others.

    `credentials` gives user and password for a URL. `hash_directory` gives what the lock has as the
    sha256 of a local folder, so that one that changed since is noticed. `binds` bring what the
    interpreter needs beside the base; `layout` is its own idea of a wheel's places.
    """
    for package in lock.packages:
        check_fits(package, arch=arch, libc=libc)
    site = Site(
        lock=lock,
        lock_folder=lock_folder,
        base_sif=base_sif,
        interpreter=interpreter,
        libc=libc,
        cache=cache,
        runtime=runtime,
        offline=offline,
        workers=jobs or len(os.sched_getaffinity(0)),
        credentials=credentials,
        hash_directory=hash_directory,
        binds=tuple(binds),
    )
    return Shelf(site, compressor, layout or plan_layout(interpreter))


def make_pieces(
    shelf: Shelf, notify: Notify = events.ignore, learn: Learn | None = None
) -> tuple[Piece, ...]:
    """The pieces of a lock's packages, in the lock's order.

    Where all of them are in the cache, nothing is fetched and no process is started. Else `learn`
    is given the pieces while the base's Python still runs.
    """
    packages = shelf.site.lock.packages
    missing = [package for package in packages if package.name not in shelf.found]
    if missing and shelf.site.offline:
        check_offline(shelf.site, missing)
    if missing:
        shelf.found |= _make_missing(shelf, missing, notify, learn)
    return _in_order(shelf, {})


class Shelf:
    """The cached pieces, as one build looks at them; `found` are those that are there."""

    def __init__(self, site: Site, compressor: str, layout: Layout) -> None:
        self.site = site
        self.compressor = compressor
        self.layout = layout
        pieces = {package.name: self._find(package) for package in site.lock.packages}
        self.found = {name: piece for name, piece in pieces.items() if piece}

    def _find(self, package: LockedPackage) -> Piece | None:
        wheel = name_wheel(self.site, package)
        return find_piece(self.site.cache, self.key(package, wheel)) if wheel else None

    def key(self, package: LockedPackage, wheel: WheelFile) -> str:
        return piece_key(
            wheel.sha256,
            interpreter=self.site.interpreter,
            layout=self.layout,
            compressor=self.compressor,
            direct_url=direct_url(package.artifact),
        )


def _make_missing(
    shelf: Shelf, missing: Sequence[LockedPackage], notify: Notify, learn: Learn | None
) -> dict[str, Piece]:
    from limpet.tools.download import Fetcher

    started = time.monotonic()
    progress = Progress(
        notify, "wheels", len(missing), sum(p.artifact.size_bytes or 0 for p in missing)
    )
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(min(THREADS, len(missing))))
        out = stack.enter_context(work_folder(shelf.site.cache))
        compiler = stack.enter_context(start_compiler(shelf.site, out))
        workshop = _Workshop(shelf, compiler, Fetcher(shelf.site.credentials), progress)
        # Whatever ends this block early must not wait for downloads that nobody needs any more.
        stack.callback(progress.stopped.set)
        largest_first = sorted(missing, key=lambda package: -(package.artifact.size_bytes or 0))
        futures = {p.name: threads.submit(workshop.make, p) for p in largest_first}
        done, waiting = wait(futures.values(), return_when=FIRST_EXCEPTION)
        for future in waiting:
            future.cancel()
        for future in done:
            future.result()
        made = {name: future.result() for name, future in futures.items()}
        if learn:
            learn(_in_order(shelf, made), compiler)
        notify(Event(stage="wheels", kind="end", elapsed_s=time.monotonic() - started))
        return made


def _in_order(shelf: Shelf, made: dict[str, Piece]) -> tuple[Piece, ...]:
    return tuple((shelf.found | made)[package.name] for package in shelf.site.lock.packages)


def start_compiler(site: Site, out: Path) -> Compiler:
    """The environment's Python, waiting for modules to compile; `out` is where it writes."""
    from limpet.tools import bytecode

    binds = [
        *(Bind(source=here, target=there) for here, there in bytecode.SCRIPTS.items()),
        Bind(source=_folder(site.cache / "wheels"), target=bytecode.WHEELS_INSIDE),
        Bind(source=out, target=bytecode.OUT_INSIDE, writable=True),
        *site.binds,
    ]
    command = [site.interpreter.path, "-I", "-S", bytecode.SCRIPT_INSIDE]
    argv = exec_argv(site.runtime, site.base_sif, command, binds=binds)
    env = build_environment(site.runtime, {})
    return bytecode.Compiler(argv, env, out=out, workers=site.workers)


def _folder(path: Path) -> Path:
    from limpet.tools import files

    return files.make_folder(path)


class _Workshop:
    """Takes a package through all the steps to a piece; called from many threads."""

    def __init__(
        self, shelf: Shelf, compiler: Compiler, fetcher: Fetcher, progress: Progress
    ) -> None:
        self._shelf = shelf
        self._site = shelf.site
        self._compiler = compiler
        self._fetcher = fetcher
        self._progress = progress
        self._downloads = threading.Semaphore(DOWNLOADS)
        self._builds = threading.Semaphore(BUILDS)
        self._writers = threading.Semaphore(self._site.workers + 1)

    def make(self, package: LockedPackage) -> Piece:
        with self._downloads if is_wheel(package.artifact) else self._builds:
            self._progress.check()
            wheel = obtain_wheel(self._site, package, self._fetcher, self._progress.count_bytes)
        piece = self._write(package, wheel)
        self._progress.count_package(package.name)
        return piece

    def _write(self, package: LockedPackage, wheel: WheelFile) -> Piece:
        from limpet.tools.wheels import lay_out

        key = self._shelf.key(package, wheel)
        origin = direct_url(package.artifact)
        metadata = {"direct_url.json": json.dumps(origin).encode()} if origin else {}
        path = wheel.path(self._site.cache)
        layout = self._shelf.layout
        with lay_out(
            path, layout, name=package.name, version=package.version, metadata=metadata
        ) as laid:
            jobs = self._compile(wheel, laid)
            imports: dict[str, tuple[str, ...]] = {}
            with self._writers:
                self._progress.check()
                return write_piece(
                    self._site.cache,
                    key,
                    self._entries(laid, jobs, imports),
                    name=package.name,
                    version=laid.version,
                    compressor=self._shelf.compressor,
                    threads=1,
                    imports=imports,
                )

    def _compile(self, wheel: WheelFile, laid: LaidOut) -> list[Job]:
        from limpet.tools.bytecode import WHEELS_INSIDE, Source

        folder = laid.layout.site_folder
        place = wheel.place.removeprefix("wheels/")
        return self._compiler.compile(
            f"{WHEELS_INSIDE}/{place}",
            [
                Source(f"{folder}/{m.path}", m.offset, m.packed_bytes, m.size_bytes, m.method)
                for m in laid.modules
            ],
        )

    def _entries(
        self, laid: LaidOut, jobs: Sequence[Job], imports: dict[str, tuple[str, ...]]
    ) -> Iterator[Entry]:
        """Byte code last: by then it is ready, and what an import reads lies together."""
        from limpet.formats.squashfs import Entry
        from limpet.tools.bytecode import byte_code_path

        yield from laid.entries
        cache_tag = self._compiler.cache_tag.result()
        folder = f"{laid.layout.site_folder}/"
        compiled = []
        for job in jobs:
            for path, data, told in job.result():
                inside = byte_code_path(path.removeprefix(folder), cache_tag)
                compiled.append(inside)
                imports[f"{folder}{inside}"] = told
                yield Entry(laid.place(inside), "file", content=data)
        yield laid.record(compiled)
