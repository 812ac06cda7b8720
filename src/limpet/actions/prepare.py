"""From a request to a lock on a base that is at hand: what `lock` and `build` have in common."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import msgspec

from limpet.actions.assemble import open_root, recompressed
from limpet.actions.bases import derive_base, fetch_base, probe_base, resolve_base
from limpet.actions.conda_lock import CondaAnswer, lock_conda, uses_conda
from limpet.actions.host_base import check_host_recipe, stand_host
from limpet.actions.lock import make_bare_lock, make_lock
from limpet.actions.lock_files import (
    as_locked,
    check_lock,
    choose_lock_path,
    find_remarks,
    fits,
    frozen_lock,
    own_lock,
    read_lock,
)
from limpet.core import recipe as recipes
from limpet.core.conda import conda_interpreter
from limpet.core.config import Config
from limpet.core.errors import BaseError, LockError, UsageError
from limpet.core.events import Event, Notify
from limpet.core.facts import NO_PYTHON, BaseFacts, Interpreter
from limpet.core.gpu import find_target_troubles, plan_needs
from limpet.core.interpreters import choose_interpreter, fits_wanted
from limpet.core.lock import Lock, LockedBase
from limpet.core.recipe import Recipe
from limpet.core.recipe_text import merge_recipes
from limpet.core.reference import parse_reference
from limpet.core.request import BuildRequest
from limpet.tools import files, process
from limpet.tools.apptainer import Runtime, probe_runtime, sharing
from limpet.tools.compressors import best_compression
from limpet.tools.config import read_config
from limpet.tools.credentials import find_credentials
from limpet.tools.download import Fetcher
from limpet.tools.recipes import LoadedRecipe, find_taken_for_conda, read_recipe
from limpet.tools.uv import uv_program

DEFAULT_PYTHON = "3.13"


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known once a lock is there.

    `sif` is the base that is built on: the locked one, or the one derived from it by `apt` and
    `post`. `lock_file` is where the lock belongs; None for a request without a recipe file.
    `scratch` is where passing files go: not /tmp, which on cluster nodes is often small, or memory.
    """

    loaded: LoadedRecipe
    lock: Lock
    lock_file: Path | None
    sif: Path
    facts: BaseFacts
    interpreter: Interpreter
    runtime: Runtime
    cache: Path
    scratch: Path

    @property
    def recipe(self) -> Recipe:
        """What the user asked for, flags included."""
        return self.loaded.recipe

    @property
    def lock_folder(self) -> Path:
        """Where relative paths of the lock start."""
        return self.lock_file.parent if self.lock_file else self.loaded.folder


class Workplace(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how this request works: settings, cache, runtime, listener."""

    request: BuildRequest
    config: Config
    cache: Path
    runtime: Runtime
    notify: Notify


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe that lies in no file, the folder where its paths start, and the lock it had."""

    recipe: Recipe
    folder: Path
    lock: Lock


def prepare(request: BuildRequest, notify: Notify, given: Given | None = None) -> Prepared:
    """Read the recipe, settle the base, and lock; an existing lock that fits is used as it is."""
    config = read_config(request.config_file)
    paths = [Path(word) for word in request.recipes]
    flags = read_flags(request, config, paths)
    if given:
        flags = merge_recipes(given.recipe, flags, override=True)
    loaded = read_recipe(paths, flags=flags, folder=given.folder if given else None)
    lock_file = Path(request.lock).absolute() if request.lock else None
    if lock_file is None and paths:
        lock_file = choose_lock_path(paths)
    known = read_lock(lock_file) if lock_file else given.lock if given else None
    if known and not (paths or given):
        request, loaded = as_locked(request, loaded, known)
    if request.frozen:
        known = frozen_lock(known, loaded, lock_file)
    meant = known or own_lock(paths)
    if meant and meant.tree_sha256:
        raise LockError(
            "Nothing can be built from this lock.",
            why="It says what was in a folder that was packed as it lay there.",
            now="Pack the folder again, or lock the packages themselves: limpet lock.",
        )
    _tell(notify, find_taken_for_conda(paths))
    work = open_workplace(request, config, notify)
    loaded = fit_compression(work, loaded)
    base = settle_base(work, loaded, meant)
    prepared = _lock_on(work, base, loaded, known, lock_file)
    if paths or given:
        _tell(notify, find_remarks(loaded, prepared.lock, request.upgrade_packages))
    return prepared


def _tell(notify: Notify, messages: Iterable[str]) -> None:
    for message in messages:
        notify(Event(stage="lock", kind="note", message=message))


def open_workplace(request: BuildRequest, config: Config, notify: Notify) -> Workplace:
    """The cache folder, made if need be, and the runtime; HostError where there is none."""
    return Workplace(
        request=request,
        config=config,
        cache=files.make_folder(files.cache_folder(request.cache_dir or config.cache_dir)),
        runtime=probe_runtime(),
        notify=notify,
    )


def fit_compression(work: Workplace, loaded: LoadedRecipe) -> LoadedRecipe:
    """The recipe with gzip where zstd cannot be started here, unless the command line insists."""
    image = loaded.recipe.image
    if work.request.compression or work.request.small or image.compression != "zstd":
        return loaded
    if best_compression(work.runtime.path, work.cache) == "zstd":
        return loaded
    message = "The runtime here cannot read zstd images: gzip is taken, which starts slower"
    work.notify(Event(stage="image", kind="note", message=message))
    image = msgspec.structs.replace(image, compression="gzip")
    recipe = msgspec.structs.replace(loaded.recipe, image=image)
    return dataclasses.replace(loaded, recipe=recipe)


def readable_base(work: Workplace, sif: Path, loaded: LoadedRecipe, digest: str) -> Path:
    """The base, or a copy of it in gzip where zstd cannot be started here."""
    if loaded.recipe.image.compression != "gzip":
        return sif
    with sif.open("rb") as file:
        if open_root(file).compressor == "gzip":
            return sif
    if best_compression(work.runtime.path, work.cache) == "zstd":
        return sif
    return recompressed(sif, work.cache, "gzip", name=digest.replace(":", "-"))


def read_flags(request: BuildRequest, config: Config, paths: list[Path]) -> Recipe:
    """The flags of a request as a recipe of their own; a preset's base stands for a missing one."""
    base = _asked_base(request) or config.system(request.system).base
    folder = paths[0].absolute().parent if paths else Path.cwd()
    image = recipes.Image(
        base=_from_folder(base, folder),
        python=request.python,
        cuda=request.cuda or config.system(request.system).cuda,
        rocm=request.rocm or config.system(request.system).rocm,
        apt=request.apt,
        args=request.build_args,
        layout=request.layout or "auto",
        compression=request.compression or "zstd",
        isolated_from_base=request.isolated_from_base,
        labels=request.labels,
    )
    packages = recipes.Packages(
        pip=request.pip,
        conda=request.conda,
        channels=tuple(_from_folder_channel(name, folder) for name in request.channels),
        extras=request.extras,
        groups=request.groups,
        environment=request.environment,
        index_url=request.index_url,
        extra_index_urls=request.extra_index_urls,
        find_links=tuple(_absolute_link(link) for link in request.find_links),
        exclude_newer=request.exclude_newer,
    )
    return Recipe(image=image, packages=packages)


def _asked_base(request: BuildRequest) -> str:
    if request.base and request.on:
        raise UsageError("--base and --on exclude each other: both say what is built on.")
    if not request.on or "/" in request.on:
        return f"host:{request.on}" if request.on else request.base
    found = process.find_program(request.on)
    if not found:
        raise BaseError(
            f"--on {request.on}: no program of that name is in PATH.",
            now="Load its module first, or name its path.",
        )
    return f"host:{found}"


def _from_folder(base: str, folder: Path) -> str:
    """A base that was typed is meant from here; a recipe's bases start at the recipe's folder."""
    if not base or parse_reference(base).scheme not in ("path", "host", "oci", "oci-archive"):
        return base
    path = parse_reference(base).path
    typed = Path(path).expanduser()
    if parse_reference(base).scheme == "host":
        return f"host:{typed.absolute()}"
    if typed.is_absolute():
        return base.replace(path, str(typed), 1)
    relative = os.path.relpath(typed.absolute(), folder)
    return base.replace(path, relative if "/" in relative else f"./{relative}", 1)


def _from_folder_channel(name: str, folder: Path) -> str:
    """A channel's folder that was typed is meant from here."""
    if not name.startswith("."):
        return name
    relative = os.path.relpath(Path(name).absolute(), folder)
    return relative if relative.startswith(".") else f"./{relative}"


def _absolute_link(link: str) -> str:
    return link if "://" in link else str(Path(link).absolute())


def settle_base(work: Workplace, loaded: LoadedRecipe, known: Lock | None) -> LockedBase:
    """The base by digest: the lock's as long as the recipe names the same one, else looked up."""
    wanted = loaded.recipe.image.base
    if not wanted and known and not loaded.recipe.image.python:
        wanted = known.base.reference
    if not wanted:
        wanted = work.config.base.replace("{python}", loaded.recipe.image.python or DEFAULT_PYTHON)
    arch = os.uname().machine
    if known and known.base.reference == wanted and not work.request.upgrade:
        if known.base.arch != arch:
            raise LockError(
                f"The lock is for {known.base.arch}; this machine is {arch}.",
                now="Build on a machine of that kind, or lock anew here with --upgrade.",
            )
        # What lies on the disk may have changed since, and looking costs nothing.
        if work.request.frozen or parse_reference(wanted).scheme not in ("path", "host"):
            return known.base
    if work.request.frozen and known:
        raise LockError(
            "The lock does not fit.",
            why=f"It is for the base {known.base.reference}, not {wanted}.",
            now="Run limpet lock, or build without --frozen.",
        )
    return resolve_base(
        wanted,
        cache=work.cache,
        arch=arch,
        folder=loaded.folder,
        notify=work.notify,
        offline=work.request.offline,
        refresh=work.request.upgrade,
        insecure=work.config.insecure_registries,
    )


def _lock_on(
    work: Workplace,
    base: LockedBase,
    loaded: LoadedRecipe,
    known: Lock | None,
    lock_file: Path | None,
) -> Prepared:
    """The lock for a settled base, and the base itself, fetched, derived and asked."""
    image = loaded.recipe.image
    standing = stand_base(work, base, loaded, known)
    interpreter = _interpreter(standing, loaded, known)
    changed = work.request.upgrade or bool(work.request.upgrade_packages)
    if known and work.request.frozen:
        check_lock(known, loaded, base=base, interpreter=interpreter)
        lock = known
    elif known and not changed and fits(known, loaded, base=base, interpreter=interpreter):
        _tell(work.notify, ["The lock fits and is used as it is"])
        lock = known
    else:
        folder = lock_file.parent if lock_file else loaded.folder
        lock = _lock_anew(work, base, standing, loaded, known, interpreter, folder)
    if lock.conda:
        interpreter = conda_interpreter(lock.conda) or NO_PYTHON
    assert interpreter is not None
    versions = lock.provided | {one.name: one.version for one in lock.packages}
    needs = plan_needs(versions, standing.facts.variables)
    _tell(work.notify, find_target_troubles(needs, cuda=image.cuda, rocm=image.rocm))
    host = standing.facts.host
    return Prepared(
        loaded=loaded,
        lock=lock,
        lock_file=lock_file,
        sif=standing.sif,
        facts=standing.facts,
        interpreter=interpreter,
        runtime=sharing(work.runtime, host.folders if host else ()),
        cache=work.cache,
        scratch=scratch_folder(work),
    )


def scratch_folder(work: Workplace) -> Path:
    """Where passing files go; SpaceError, before any work is done, where they cannot."""
    named = work.request.build_dir or work.config.build_dir
    folder = Path(named).expanduser().absolute() if named else work.cache / "tmp"
    files.check_writable(folder, now="Name another one: --build-dir or LIMPET_BUILD_DIR.")
    return folder


def _interpreter(
    standing: Standing, loaded: LoadedRecipe, known: Lock | None
) -> Interpreter | None:
    """The Python that packages are for: one of the base, or the one that conda brought."""
    is_meant = known is not None and known.recipe_sha256 == loaded.recipe_sha256
    if uses_conda(loaded) or (known and known.conda and is_meant):
        wanted = loaded.recipe.image.python
        fits_it = known and known.conda and known.python and fits_wanted(known.python, wanted)
        return conda_interpreter(known.conda) if known and fits_it else None
    return choose_interpreter(standing.facts, loaded.recipe.image.python)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A base that is at hand: its SIF, what is known of it, and what `apt` brought, pinned."""

    sif: Path
    facts: BaseFacts
    pinned: tuple[str, ...] = ()


def stand_base(
    work: Workplace, base: LockedBase, loaded: LoadedRecipe, known: Lock | None
) -> Standing:
    """Fetch a base, ask it, and put on top what the recipe's `apt` and `post` want."""
    image = loaded.recipe.image
    if parse_reference(base.reference).scheme == "host":
        check_host_recipe(loaded.recipe, base, conda=uses_conda(loaded))
        sif, facts = stand_host(base, cache=work.cache, folder=loaded.folder)
        return Standing(sif=sif, facts=facts)
    sif = fetch_base(
        base,
        cache=work.cache,
        folder=loaded.folder,
        notify=work.notify,
        offline=work.request.offline,
        insecure=work.config.insecure_registries,
    )
    sif = readable_base(work, sif, loaded, base.digest)
    facts = probe_base(base, sif, cache=work.cache, runtime=work.runtime)
    if not (image.apt or image.post):
        return Standing(sif=sif, facts=facts)
    holds = known and not work.request.upgrade and known.recipe_sha256 == loaded.recipe_sha256
    sif, facts, pinned = derive_base(
        base,
        facts,
        sif,
        apt=image.apt,
        post=image.post,
        cache=work.cache,
        runtime=work.runtime,
        pinned=known.apt if known and holds else (),
        notify=work.notify,
    )
    return Standing(sif=readable_base(work, sif, loaded, facts.digest), facts=facts, pinned=pinned)


def _lock_anew(
    work: Workplace,
    base: LockedBase,
    standing: Standing,
    loaded: LoadedRecipe,
    known: Lock | None,
    interpreter: Interpreter | None,
    folder: Path,
) -> Lock:
    conda = CondaAnswer(packages=())
    if uses_conda(loaded):
        conda = _lock_conda(work, standing, loaded, known, folder)
        interpreter = conda_interpreter(conda.packages)
        if interpreter is None:
            return make_bare_lock(loaded, base, apt=standing.pinned, conda=conda.packages)
    assert interpreter is not None
    return make_lock(
        loaded,
        base,
        standing.facts,
        interpreter,
        cache=work.cache,
        previous=known,
        upgrade=work.request.upgrade,
        upgrade_packages=work.request.upgrade_packages,
        exclude_newer=work.request.exclude_newer,
        offline=work.request.offline,
        hash_of=partial(hash_download, work.cache, loaded),
        lock_folder=folder,
        apt=standing.pinned,
        conda=conda.packages,
        fixed=conda.fixed,
        notify=work.notify,
    )


def _lock_conda(
    work: Workplace, standing: Standing, loaded: LoadedRecipe, known: Lock | None, folder: Path
) -> CondaAnswer:
    return lock_conda(
        loaded,
        standing.facts,
        cache=work.cache,
        folder=folder,
        previous=known,
        upgrade=work.request.upgrade,
        upgrade_packages=work.request.upgrade_packages,
        exclude_newer=work.request.exclude_newer,
        offline=work.request.offline,
        hash_of=partial(hash_download, work.cache, loaded),
        notify=work.notify,
    )


def credentials_of(loaded: LoadedRecipe, url: str) -> tuple[str, str] | None:
    """User and password for a URL, from the recipe's own index URLs and the usual places."""
    return find_credentials(
        url, urls=loaded.secret_urls, named=loaded.named_indexes, uv_program=uv_program()
    )


def hash_download(cache: Path, loaded: LoadedRecipe, url: str) -> str:
    """The sha256 of a file that no index vouches for: by fetching it."""
    with files.passing_folder(cache / "tmp") as folder:
        return Fetcher(partial(credentials_of, loaded)).hash_url(url, folder / "file")
