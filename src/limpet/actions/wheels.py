"""Every locked package as a wheel in the cache: fetched, copied, or built in the base."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from limpet.core.errors import BuildError, FetchError, LockError
from limpet.core.facts import Interpreter, Libc
from limpet.core.lock import Lock, LockedPackage
from limpet.core.piece import build_key, is_wheel
from limpet.tools import files
from limpet.tools.apptainer import Bind, Runtime, run_inside

if TYPE_CHECKING:
    from limpet.tools.download import Credentials, Fetcher

OnBytes = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a build of pieces has to work with."""

    lock: Lock
    lock_folder: Path
    base_sif: Path
    interpreter: Interpreter
    libc: Libc
    cache: Path
    runtime: Runtime
    offline: bool
    workers: int
    credentials: Credentials
    hash_directory: Callable[[Path], str] | None
    binds: tuple[Bind, ...] = ()


class WheelFile(msgspec.Struct, frozen=True, kw_only=True):
    """A wheel of the cache: `wheels/<sha256>/<filename>`."""

    filename: str
    sha256: str

    def path(self, cache: Path) -> Path:
        return cache / self.place

    @property
    def place(self) -> str:
        return f"wheels/{self.sha256}/{self.filename}"


def name_wheel(site: Site, package: LockedPackage) -> WheelFile | None:
    """Which wheel a package is installed from; None for one that has yet to be built."""
    artifact = package.artifact
    if is_wheel(artifact):
        if not artifact.sha256:
            raise LockError(
                f"The lock has no hash for {package.name}.", now="Lock again: `limpet lock`."
            )
        return WheelFile(filename=Path(artifact.filename).name, sha256=artifact.sha256)
    try:
        return msgspec.json.decode(_built_note(site, package).read_bytes(), type=WheelFile)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _built_note(site: Site, package: LockedPackage) -> Path:
    key = build_key(package, lock=site.lock, interpreter=site.interpreter)
    return site.cache / "built" / key[:2] / f"{key}.json"


def has_file(path: Path, size_bytes: int | None) -> bool:
    """Whether the cache has a file, as long as it should be."""
    try:
        found_bytes = path.stat().st_size
    except FileNotFoundError:
        return False
    return size_bytes is None or found_bytes == size_bytes


def check_offline(site: Site, packages: list[LockedPackage]) -> None:
    """FetchError that names everything that only the network could give."""
    absent = []
    for package in packages:
        wheel = name_wheel(site, package)
        artifact = package.artifact
        known = wheel and has_file(wheel.path(site.cache), None)
        local = _local_path(site, package)
        here = (local and local.exists()) or _archive_path(site, package).exists()
        if not known and not here:
            absent.append(artifact.filename or f"{package.name} ({artifact.url})")
    if absent:
        raise FetchError(
            f"Offline, and not in the cache: {', '.join(absent)}.",
            now="Build once with the network, or copy the cache folder of a machine that has it.",
        )


def obtain_wheel(
    site: Site, package: LockedPackage, fetcher: Fetcher, on_bytes: OnBytes
) -> WheelFile:
    """The package's wheel, in the cache from now on."""
    wheel = name_wheel(site, package)
    size_bytes = package.artifact.size_bytes if is_wheel(package.artifact) else None
    if wheel and has_file(wheel.path(site.cache), size_bytes):
        return wheel
    if is_wheel(package.artifact):
        assert wheel
        _bring(site, package, wheel.path(site.cache), fetcher, on_bytes)
        return wheel
    note = _built_note(site, package)
    with files.held(note.with_suffix(".lock")):  # another build may be at it: minutes saved
        wheel = name_wheel(site, package)
        if wheel is None or not has_file(wheel.path(site.cache), None):
            wheel = _build(site, package, fetcher, on_bytes)
            with files.written_beside(note) as out:
                out.write(msgspec.json.encode(wheel))
    return wheel


def _bring(
    site: Site, package: LockedPackage, target: Path, fetcher: Fetcher, on_bytes: OnBytes
) -> None:
    """Put the artifact's file at `target`, from the network or from this machine."""
    from limpet.tools.download import copy_file

    artifact = package.artifact
    sha256, size_bytes = artifact.sha256, artifact.size_bytes
    if local := _local_path(site, package):
        copy_file(local, target, sha256=sha256, size_bytes=size_bytes)
    else:
        fetcher.fetch(artifact.url, target, sha256=sha256, size_bytes=size_bytes, on_bytes=on_bytes)


def _local_path(site: Site, package: LockedPackage) -> Path | None:
    artifact = package.artifact
    if artifact.path:
        return site.lock_folder / artifact.path
    if artifact.url.startswith("file:"):
        return Path(unquote(urlsplit(artifact.url).path))
    return None


def _archive_path(site: Site, package: LockedPackage) -> Path:
    artifact = package.artifact
    return site.cache / "sources" / artifact.sha256 / Path(artifact.filename).name


def _build(site: Site, package: LockedPackage, fetcher: Fetcher, on_bytes: OnBytes) -> WheelFile:
    """Build a wheel in the base, and keep it under its own hash."""
    from limpet.tools import wheel_builder

    if site.libc.family == "musl":
        raise BuildError(
            f"{package.name} would have to be built from source.",
            why="uv, which builds, needs glibc; the base has musl.",
            now="Choose a base with glibc, such as debian:trixie.",
        )
    with work_folder(site.cache) as folder:
        wheel_builder.prepare_folder(folder)
        source = _place_source(site, package, folder, fetcher, on_bytes)
        _run_build(site, package, folder, source)
        made = wheel_builder.find_wheel(folder, package)
        wheel = WheelFile(filename=made.name, sha256=files.hash_file(made))
        files.make_folder(wheel.path(site.cache).parent)
        made.replace(wheel.path(site.cache))
    return wheel


def _place_source(
    site: Site, package: LockedPackage, folder: Path, fetcher: Fetcher, on_bytes: OnBytes
) -> str:
    from limpet.tools import wheel_builder

    artifact = package.artifact
    if artifact.kind == "vcs":
        return wheel_builder.place_clone(folder, artifact)
    if artifact.kind == "directory":
        tree = _local_path(site, package) or site.lock_folder
        if site.hash_directory and site.hash_directory(tree) != artifact.sha256:
            raise LockError(
                f"The folder {tree} has changed since it was locked.", now="Lock again."
            )
        return wheel_builder.place_directory(tree, folder, artifact)
    archive = _archive_path(site, package)
    if not has_file(archive, artifact.size_bytes):
        _bring(site, package, archive, fetcher, on_bytes)
    return wheel_builder.place_archive(archive, folder, artifact)


def _run_build(site: Site, package: LockedPackage, folder: Path, source: str) -> None:
    import uv

    from limpet.tools import wheel_builder
    from limpet.tools.download import ca_bundle

    indexes = dict.fromkeys(p.index for p in site.lock.packages if p.index.startswith("http"))
    command = wheel_builder.plan_build(
        package,
        site.interpreter,
        uv=Path(uv.find_uv_bin()),
        uv_cache=files.make_folder(site.cache / "uv"),
        folder=folder,
        source=source,
        ca_bundle=ca_bundle(),
        indexes=[wheel_builder.with_credentials(url, site.credentials(url)) for url in indexes],
        offline=site.offline,
    )
    done = run_inside(
        site.runtime,
        site.base_sif,
        command.argv,
        binds=[
            *(Bind(source=s, target=t, writable=w) for s, t, w in command.binds),
            *site.binds,
        ],
        variables=command.variables,
    )
    if done.code:
        raise wheel_builder.build_failure(package, done.stderr + done.text)


def work_folder(cache: Path) -> AbstractContextManager[Path]:
    """A folder for passing things; not in /tmp, which may be small. Those of dead builds go."""
    return files.passing_folder(cache / "work")
