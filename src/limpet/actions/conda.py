"""Locked conda packages into pieces: fetched, laid out, and their modules compiled.

A package gives one piece that depends on nothing but itself, and where it brings Python modules a
second one with their byte code. The Python that compiles is the environment's own: its piece and
those that it needs, composed into one small image that is mounted over the base.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Semaphore
from typing import TYPE_CHECKING

from limpet.actions.conda_fetch import Channels, check_conda_offline, obtain_archive
from limpet.actions.pieces import DOWNLOADS, THREADS, start_compiler
from limpet.actions.progress import Progress
from limpet.actions.wheels import Site, work_folder
from limpet.core.conda import CondaPackage, python_of
from limpet.core.conda_install import (
    byte_code_key,
    check_conda_fits,
    conda_key,
    has_modules,
    module_folder,
    plan_conda_layout,
    plan_interpreter,
    python_closure,
    python_key,
    sort_packages,
)
from limpet.core.events import Event, Notify, ignore
from limpet.core.facts import PREFIX
from limpet.core.lock import Lock
from limpet.core.piece import Piece, is_wheel
from limpet.tools import files
from limpet.tools.apptainer import Bind
from limpet.tools.pieces import find_piece, write_piece

if TYPE_CHECKING:
    from limpet.formats.squashfs import Entry
    from limpet.tools.bytecode import Compiler, Source


class CondaShelf:
    """The cached pieces of a lock's conda packages, as one build looks at them.

    `found` are the packages' pieces that are there, `compiled` those of their byte code. Both keep
    the order of installation: what others need comes first.
    """

    def __init__(self, lock: Lock, *, cache: Path, arch: str, compressor: str) -> None:
        self.cache = cache
        self.compressor = compressor
        self.packages = sort_packages(lock.conda)
        for package in self.packages:
            check_conda_fits(package, arch=arch)
        python = python_of(self.packages)
        self.layout = plan_conda_layout(python)
        self.interpreter = plan_interpreter(self.packages)
        self.keys = {
            p.name: conda_key(p, layout=self.layout, compressor=compressor) for p in self.packages
        }
        self.byte_code_keys = {
            p.name: byte_code_key(p, self.interpreter, layout=self.layout, compressor=compressor)
            for p in self.packages
            if self.interpreter and has_modules(p)
        }
        self.found = self._find(self.keys)
        self.compiled = self._find(self.byte_code_keys)
        # What is built from source may need any of the packages, and not only Python.
        builds = any(not is_wheel(package.artifact) for package in lock.packages)
        self.used = self.packages if builds else python_closure(self.packages)

    def _find(self, keys: dict[str, str]) -> dict[str, Piece]:
        pieces = {name: find_piece(self.cache, key) for name, key in keys.items()}
        return {name: piece for name, piece in pieces.items() if piece}

    @property
    def kept(self) -> set[str]:
        """The packages that need nothing more to be done."""
        return {
            name for name in self.found if name in self.compiled or name not in self.byte_code_keys
        }

    @property
    def python_image(self) -> Path:
        """Where the Python that compiles and builds is kept."""
        key = python_key(self.used, layout=self.layout, compressor=self.compressor)
        return self.cache / "pythons" / f"{key}.sqfs"

    @property
    def binds(self) -> tuple[Bind, ...]:
        """What shows it at its place in the base; nothing where conda brings no Python."""
        if self.interpreter is None:
            return ()
        return (Bind(source=self.python_image, target=PREFIX, inside=PREFIX),)


def make_conda_pieces(
    shelf: CondaShelf,
    site: Site,
    channels: Channels,
    notify: Notify = ignore,
    *,
    needs_python: bool = False,
) -> tuple[Piece, ...]:
    """The pieces of all packages, then those with byte code.

    With `needs_python` the environment's Python is there afterwards even if nothing of conda's had
    to be compiled. Where all is in the cache, nothing is fetched and no process is started.
    """
    missing = [package for package in shelf.packages if package.name not in shelf.found]
    if missing:
        if site.offline:
            check_conda_offline(site, missing)
        shelf.found |= _lay_out(shelf, site, channels, missing, notify)
    uncompiled = [name for name in shelf.byte_code_keys if name not in shelf.compiled]
    if shelf.interpreter and (uncompiled or needs_python):
        _compose_python(shelf)
    if uncompiled:
        shelf.compiled |= _compile(shelf, site, uncompiled, notify)
    pieces = [shelf.found[package.name] for package in shelf.packages]
    return (*pieces, *(shelf.compiled[name] for name in shelf.byte_code_keys))


def _compose_python(shelf: CondaShelf) -> None:
    """One image of the pieces that the environment's Python needs to start."""
    from limpet.formats.squashfs import Source, Squashfs, compose

    target = shelf.python_image
    if target.exists():
        return
    files.sweep_partials(files.make_folder(target.parent))
    pieces = [shelf.found[package.name] for package in shelf.used]
    with ExitStack() as stack:
        opened = [stack.enter_context(piece.path.open("rb")) for piece in pieces]
        out = stack.enter_context(files.written_beside(target))
        compose(out, [Source(Squashfs(file)) for file in opened])


# ---- archives into pieces ------------------------------------------------------------------------


def _lay_out(
    shelf: CondaShelf,
    site: Site,
    channels: Channels,
    missing: Sequence[CondaPackage],
    notify: Notify,
) -> dict[str, Piece]:
    from limpet.tools.conda_package import open_package

    total_bytes = sum(package.size_bytes or 0 for package in missing)
    progress = Progress(notify, "conda", len(missing), total_bytes)
    fetcher = channels.fetcher(site.credentials)
    downloads, writers = Semaphore(DOWNLOADS), Semaphore(site.workers + 1)

    def make(package: CondaPackage) -> Piece:
        with downloads:
            progress.check()
            archive = obtain_archive(site, channels, package, fetcher, progress.count_bytes)
        with writers, open_package(archive, package, shelf.layout) as entries:
            progress.check()
            piece = write_piece(
                site.cache,
                shelf.keys[package.name],
                entries,
                name=package.name,
                version=package.version,
                compressor=shelf.compressor,
                threads=1,
            )
        progress.count_package(package.name)
        return piece

    largest_first = sorted(missing, key=lambda package: -(package.size_bytes or 0))
    return _in_threads(
        {package.name: partial(make, package) for package in largest_first},
        progress,
        notify,
    )


def _in_threads(
    tasks: Mapping[str, Callable[[], Piece]], progress: Progress, notify: Notify
) -> dict[str, Piece]:
    """All tasks, many at once; the first that fails stops the others."""
    started = time.monotonic()
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(min(THREADS, len(tasks))))
        # Whatever ends this block early must not wait for downloads that nobody needs any more.
        stack.callback(progress.stopped.set)
        futures = {name: threads.submit(task) for name, task in tasks.items()}
        done, waiting = wait(futures.values(), return_when=FIRST_EXCEPTION)
        for future in waiting:
            future.cancel()
        for future in done:
            future.result()
        elapsed_s = time.monotonic() - started
        notify(Event(stage=progress.stage, kind="end", elapsed_s=elapsed_s))
        return {name: future.result() for name, future in futures.items()}


# ---- byte code -----------------------------------------------------------------------------------


def _compile(
    shelf: CondaShelf, site: Site, names: Sequence[str], notify: Notify
) -> dict[str, Piece]:
    progress = Progress(notify, "byte code", len(names), 0)
    writers = Semaphore(site.workers + 1)
    with ExitStack() as stack:
        out = stack.enter_context(work_folder(site.cache))
        compiler = stack.enter_context(start_compiler(site, out))

        def make(name: str) -> Piece:
            piece = shelf.found[name]
            imports: dict[str, tuple[str, ...]] = {}
            with writers:
                progress.check()
                written = write_piece(
                    site.cache,
                    shelf.byte_code_keys[name],
                    _byte_code(compiler, out, piece, module_folder(shelf.layout), imports),
                    name=piece.name,
                    version=piece.version,
                    compressor=shelf.compressor,
                    threads=1,
                    imports=imports,
                )
            progress.count_package(name)
            return written

        tasks = {name: partial(make, name) for name in names}
        return _in_threads(tasks, progress, notify)


def _byte_code(
    compiler: Compiler, out: Path, piece: Piece, folder: str, imports: dict[str, tuple[str, ...]]
) -> Iterator[Entry]:
    """The byte code of a piece's modules, as entries; `imports` is given what each imports."""
    from limpet.formats.squashfs import Entry
    from limpet.tools.bytecode import OUT_INSIDE, byte_code_path

    archive = out / f"{piece.key}.zip"
    sources = _pack_modules(piece, folder, archive)
    jobs = compiler.compile(f"{OUT_INSIDE}/{archive.name}", sources)
    cache_tag = compiler.cache_tag.result()
    for job in jobs:
        for path, data, told in job.result():
            place = byte_code_path(path, cache_tag)
            imports[place] = told
            yield Entry(place.lstrip("/"), "file", content=data)
    archive.unlink()


def _pack_modules(piece: Piece, folder: str, archive: Path) -> list[Source]:
    """The modules of a piece as a zip, which is what the compiler reads."""
    from limpet.formats.squashfs import Squashfs
    from limpet.tools.bytecode import Source

    sources: list[Source] = []
    with piece.path.open("rb") as file, zipfile.ZipFile(archive, "w") as packed:
        image = Squashfs(file)
        for path, node in image.walk():
            if node.is_file and path.endswith(".py") and path.startswith(f"{folder}/"):
                info = zipfile.ZipInfo(str(len(sources)))
                data = image.read(node)
                packed.writestr(info, data)
                sources.append(Source(f"/{path}", info.header_offset, len(data), len(data), 0))
    return sources
