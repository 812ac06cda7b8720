"""The conda half of a lock: which packages, exactly, for a recipe on a base."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

import msgspec
from packaging.utils import canonicalize_name

from limpet.actions.conda_fetch import Channels, find_channels
from limpet.core.conda import (
    SUBDIRS,
    CondaPackage,
    hide_login,
    plan_virtual,
    python_of,
)
from limpet.core.conda_channels import Channel, Condarc, channel_of, said_channels, said_specs
from limpet.core.conda_install import has_modules
from limpet.core.conda_text import ExplicitLine, parse_explicit
from limpet.core.errors import BaseError, FetchError, LockError
from limpet.core.events import Event, Notify, ignore
from limpet.core.facts import BaseFacts
from limpet.core.lock import Artifact, Lock, LockedPackage
from limpet.core.pylock import parse_lock
from limpet.core.secrets import scrub
from limpet.tools.conda_files import PypiEntry, read_foreign_lock
from limpet.tools.conda_solve import (
    CondaRequest,
    find_records,
    make_package,
    parse_spec,
    solve_conda,
    split_filename,
)
from limpet.tools.condarc import read_condarc
from limpet.tools.files import hash_file
from limpet.tools.recipes import Input, LoadedRecipe

HashOf = Callable[[str], str]


class CondaAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The conda packages, and the Python packages that a foreign lock fixes beside them."""

    packages: tuple[CondaPackage, ...]
    fixed: tuple[LockedPackage, ...] = ()


def uses_conda(loaded: LoadedRecipe) -> bool:
    """Whether the environment of a recipe is conda's, with a Python of its own."""
    return bool(loaded.recipe.packages.conda) or any(one.conda for one in loaded.inputs)


def needs_python(loaded: LoadedRecipe) -> bool:
    """Whether a recipe asks for more than conda packages, so that conda has to bring a Python."""
    recipe = loaded.recipe
    others = any(not one.conda for one in loaded.inputs)
    return bool(recipe.packages.pip or others or recipe.image.python or recipe.warm.imports)


def lock_conda(
    loaded: LoadedRecipe,
    facts: BaseFacts,
    *,
    cache: Path,
    folder: Path,
    previous: Lock | None = None,
    upgrade: bool = False,
    upgrade_packages: Sequence[str] = (),
    exclude_newer: str = "",
    offline: bool = False,
    hash_of: HashOf | None = None,
    notify: Notify = ignore,
) -> CondaAnswer:
    """Solve a recipe's conda packages for a base; paths in the answer start at `folder`.

    `hash_of` downloads a URL that no channel vouches for with a sha256.
    """
    started_s = time.monotonic()
    subdir = _subdir(facts)
    notify(Event(stage="lock", kind="start", message=f"Solving conda packages for {subdir}"))
    condarc = read_condarc()
    given, fixed = _given(loaded, subdir, condarc, cache, offline=offline, hash_of=hash_of)
    kept = _kept(previous, given, upgrade=upgrade, names=upgrade_packages)
    image = loaded.recipe.image
    request = CondaRequest(
        specs=_specs(loaded, given),
        channels=said_channels(loaded.recipe.packages, condarc, loaded.folder, os.environ),
        subdir=subdir,
        virtual=plan_virtual(facts.libc, facts.arch, image.cuda),
        pinned=given,
        locked=kept,
        exclude_newer=exclude_newer or loaded.recipe.packages.exclude_newer,
        offline=offline,
    )
    packages = solve_conda(request, condarc, cache) if request.specs else given
    if python_of(packages) is None and (
        fixed or needs_python(loaded) or any(map(has_modules, packages))
    ):
        raise LockError(
            "The conda packages bring no Python, and some packages need one.",
            now="Add python to the environment, lock it anew.",
        )
    way = find_channels(loaded, packages)
    finished = tuple(finish_conda(one, folder, way, hash_of) for one in packages)
    elapsed_s = time.monotonic() - started_s
    notify(
        Event(stage="lock", kind="end", done=len(finished), unit="packages", elapsed_s=elapsed_s)
    )
    return CondaAnswer(packages=finished, fixed=fixed)


def _subdir(facts: BaseFacts) -> str:
    if facts.libc is not None and facts.libc.family != "glibc":
        raise BaseError(
            f"Conda packages need glibc; the base has {facts.libc.family}.",
            now="Choose another base: debian:trixie, docker://almalinux:9 …",
        )
    return SUBDIRS[facts.arch]


def _specs(loaded: LoadedRecipe, given: Sequence[CondaPackage]) -> tuple[str, ...]:
    """What is to be solved; Python is among it where something else needs it."""
    specs = said_specs(loaded.recipe.packages, os.environ)
    wanted = loaded.recipe.image.python.strip()
    if not specs and given and not wanted:
        return ()
    pins = tuple(f"{one.name} =={one.version} {one.build}" for one in given)
    if wanted:
        version = f"{wanted.removesuffix('.*')}.*" if wanted[0].isdigit() else wanted
        return (*specs, *pins, f"python {version}")
    named = {parse_spec(spec).name.normalized for spec in specs}
    if "python" in named or python_of(given) or not needs_python(loaded):
        return (*specs, *pins)
    return (*specs, *pins, "python")


def _kept(
    previous: Lock | None, given: Sequence[CondaPackage], *, upgrade: bool, names: Sequence[str]
) -> tuple[CondaPackage, ...]:
    if previous is None or upgrade:
        return ()
    left_out = {name.lower() for name in names} | {one.name for one in given}
    return tuple(one for one in previous.conda if one.name not in left_out)


# What is fixed already --------------------------------------------------


def _given(
    loaded: LoadedRecipe,
    subdir: str,
    condarc: Condarc,
    cache: Path,
    *,
    offline: bool,
    hash_of: HashOf | None,
) -> tuple[tuple[CondaPackage, ...], tuple[LockedPackage, ...]]:
    """The packages of explicit lists and foreign locks among the inputs."""
    packages: dict[str, CondaPackage] = {}
    fixed: dict[str, LockedPackage] = {}
    for one in loaded.inputs:
        if not one.conda:
            continue
        if one.kind == "pylock":
            found = _own(one)
        elif one.kind == "conda_explicit":
            lines = parse_explicit(one.path.read_text("utf-8"), str(one.path))
            found = _look_up(lines, one, condarc, cache, offline=offline)
        else:
            lines, pypi = _foreign(one, subdir, loaded.recipe.packages.environment)
            fixed |= {entry.name: _pypi(entry, one.path.parent) for entry in pypi}
            found = _look_up(lines, one, condarc, cache, offline=offline)
        for package in found:
            _check_platform(package, subdir, one)
            other = packages.setdefault(package.name, package)
            if other.filename != package.filename:
                raise LockError(
                    f"The given locks contradict each other: {other.filename} "
                    f"and {package.filename}."
                )
    return tuple(packages.values()), tuple(fixed.values())


def _own(one: Input) -> list[CondaPackage]:
    """The packages of a lock of limpet's own."""
    lock = parse_lock(one.path.read_text("utf-8"), str(one.path))
    return [
        msgspec.structs.replace(package, path=os.path.normpath(one.path.parent / package.path))
        if package.path
        else package
        for package in lock.conda
    ]


def _foreign(
    one: Input, subdir: str, environment: str
) -> tuple[tuple[ExplicitLine, ...], tuple[PypiEntry, ...]]:
    locked = read_foreign_lock(one.path, subdir, environment)
    lines = tuple(
        ExplicitLine(
            url=record.url,
            sha256=(record.sha256 or b"").hex(),
            md5=(record.md5 or b"").hex(),
            package=make_package(record, ()),
        )
        for record in locked.records
    )
    return lines, locked.pypi


def _look_up(
    lines: Sequence[ExplicitLine], one: Input, condarc: Condarc, cache: Path, *, offline: bool
) -> list[CondaPackage]:
    """The packages of these lines, with what their channels know beyond place and hash."""
    places = [_place(line.url, one.path.parent, condarc) for line in lines]
    try:
        known = find_records(places, condarc, cache, offline=offline)
    except FetchError:
        known = {}  # an archive may lie where no channel is, or no more
    return [
        _described(line, place, known.get(place[2]), one)
        for line, place in zip(lines, places, strict=True)
    ]


def _place(url: str, folder: Path, condarc: Condarc) -> tuple[Channel, str, str]:
    """Channel, platform and file name of an archive's URL or path."""
    if "://" not in url:
        url = Path(os.path.normpath(folder / Path(url).expanduser())).as_uri()
    rest, _, filename = url.rpartition("/")
    channel, _, subdir = rest.rpartition("/")
    return channel_of(channel, condarc), subdir, unquote(filename)


def _described(
    line: ExplicitLine, place: tuple[Channel, str, str], known: CondaPackage | None, one: Input
) -> CondaPackage:
    channel, subdir, filename = place
    if known and any(
        said and has and said != has
        for said, has in ((line.sha256, known.sha256), (line.md5, known.md5))
    ):
        raise LockError(
            f"{filename} is not the file that {one.path.name} names.",
            why=f"{one.path.name}: {line.sha256 or line.md5}\n"
            f"{channel.shown}: {known.sha256 if line.sha256 else known.md5}",
            now="If the file was replaced on purpose, make the list anew; else do not trust it.",
        )
    if known:
        return known
    if line.package:
        return msgspec.structs.replace(line.package, channel=channel.shown)
    name, version, build = split_filename(filename)
    url = hide_login(f"{channel.url}/{subdir}/{filename}")
    local = unquote(urlsplit(url).path) if url.startswith("file:") else ""
    return CondaPackage(
        name=name,
        version=version,
        build=build,
        subdir=subdir,
        channel=channel.shown,
        filename=filename,
        url="" if local else url,
        path=local,
        sha256=line.sha256,
        md5=line.md5,
    )


def _check_platform(package: CondaPackage, subdir: str, one: Input) -> None:
    if package.subdir not in (subdir, "noarch"):
        raise LockError(
            f"{one.path} is for another platform: {package.filename} is for {package.subdir}.",
            why=f"The target is {subdir}.",
            now=f"Make the list for {subdir}.",
        )


def _pypi(entry: PypiEntry, folder: Path) -> LockedPackage:
    location = entry.location
    url = scrub(location) if "://" in location and not location.startswith("file:") else ""
    path = ""
    if not url:
        bare = unquote(urlsplit(location).path) if location.startswith("file:") else location
        path = os.path.normpath(folder / bare)
    filename = PurePath(unquote(urlsplit(url).path) if url else path).name
    return LockedPackage(
        name=canonicalize_name(entry.name),
        version=entry.version,
        artifact=Artifact(
            kind="wheel" if filename.endswith(".whl") else "sdist",
            filename=filename,
            url=url,
            path=path,
            sha256=entry.sha256,
        ),
    )


# Hashes and places ------------------------------------------------------


def finish_conda(
    package: CondaPackage, folder: Path, way: Channels, hash_of: HashOf | None
) -> CondaPackage:
    """The package with a sha256 that is known to be its file's, and a near path relative."""
    if package.path:
        return msgspec.structs.replace(
            package, sha256=_local_hash(package), path=_relative(package.path, folder)
        )
    if package.sha256:
        return package
    if hash_of is None:
        raise LockError(f"{package.name} has no sha256, and cannot be downloaded to get one.")
    sha256 = hash_of(way.places(package.url)[-1])
    return msgspec.structs.replace(package, sha256=sha256)


def _local_hash(package: CondaPackage) -> str:
    """The engine takes a channel's word for files on the disk; limpet does not."""
    try:
        found = hash_file(Path(package.path))
    except OSError as error:
        raise FetchError(f"{package.path} cannot be read.", why=f"{error.strerror}.") from error
    if package.sha256 and package.sha256 != found:
        raise FetchError(
            f"{package.path} is not the file that its channel names.",
            why=f"expected sha256 {package.sha256}\ngot      sha256 {found}",
            now="If the file was replaced on purpose, index the channel again; "
            "else do not trust it.",
        )
    return found


def _relative(path: str, folder: Path) -> str:
    relative = os.path.relpath(path, folder)
    return path if relative.startswith("../..") else relative
