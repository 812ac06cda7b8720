"""`limpet lock`: from a recipe and a base to exactly which artifacts."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from limpet.core.conda import CondaPackage
from limpet.core.errors import LockError, RecipeError
from limpet.core.events import Event, Notify, ignore
from limpet.core.facts import BaseFacts, Interpreter
from limpet.core.lock import Artifact, Lock, LockedBase, LockedPackage
from limpet.core.provided import Stub, plan_stubs
from limpet.core.pylock import render_lock
from limpet.core.secrets import find_passwords
from limpet.core.selection import parse_pylock, parse_resolved, select_packages
from limpet.core.solver_errors import base_conflict, explain_failure
from limpet.core.tags import Target, make_target
from limpet.tools.files import hash_file, hash_tree
from limpet.tools.recipes import CONDA_LOCKS, Input, LoadedRecipe
from limpet.tools.uv import Resolution, export_uv_lock, file_url, resolve, write_stubs

HashOf = Callable[[str], str]


def make_lock(
    loaded: LoadedRecipe,
    base: LockedBase,
    facts: BaseFacts,
    interpreter: Interpreter,
    *,
    cache: Path,
    previous: Lock | None = None,
    upgrade: bool = False,
    upgrade_packages: tuple[str, ...] = (),
    exclude_newer: str = "",
    offline: bool = False,
    hash_of: HashOf | None = None,
    lock_folder: Path | None = None,
    apt: tuple[str, ...] = (),
    conda: tuple[CondaPackage, ...] = (),
    fixed: tuple[LockedPackage, ...] = (),
    notify: Notify = ignore,
) -> Lock:
    """Resolve a recipe for a base. `hash_of` downloads a URL that no index gave a sha256 for.

    With `conda` packages the interpreter is theirs, and its distributions count in place of the
    base's. `fixed` are packages that a lock beside the recipe's own inputs has.
    """
    started = time.monotonic()
    target = make_target(interpreter, facts.libc, facts.arch)
    notify(Event(stage="lock", kind="start", message=f"Resolving for {target.described}"))
    image = loaded.recipe.image
    stubs = _plan_stubs(interpreter, target, isolated=image.isolated_from_base, conda=bool(conda))
    _check_python(loaded, target)
    asked = _Asked(
        exclude_newer=exclude_newer or loaded.recipe.packages.exclude_newer,
        upgrade=upgrade,
        upgrade_packages=upgrade_packages,
        offline=offline,
        preferences=_preferences(previous, stubs),
        by_conda=bool(conda),
    )
    packages, provided = _divide(_choose(loaded, target, stubs, asked, cache, fixed), stubs)
    folder = lock_folder or loaded.folder
    lock = Lock(
        base=base,
        python=interpreter.version,
        interpreter=interpreter.path,
        packages=tuple(finish_package(package, folder, hash_of) for package in packages),
        conda=conda,
        provided={} if conda else provided,
        apt=apt,
        post_sha256=_post_sha256(image.post),
        isolated_from_base=image.isolated_from_base,
        recipe_sha256=loaded.recipe_sha256,
    )
    notify(_ended(len(packages), time.monotonic() - started))
    return lock


def make_bare_lock(
    loaded: LoadedRecipe,
    base: LockedBase,
    *,
    apt: tuple[str, ...],
    conda: tuple[CondaPackage, ...],
) -> Lock:
    """The lock of conda packages among which there is no Python: there is nothing to resolve."""
    image = loaded.recipe.image
    return Lock(
        base=base,
        python="",
        interpreter="",
        conda=conda,
        apt=apt,
        post_sha256=_post_sha256(image.post),
        isolated_from_base=image.isolated_from_base,
        recipe_sha256=loaded.recipe_sha256,
    )


def _post_sha256(post: str) -> str:
    return hashlib.sha256(post.encode()).hexdigest() if post else ""


def _plan_stubs(
    interpreter: Interpreter, target: Target, *, isolated: bool, conda: bool
) -> tuple[Stub, ...]:
    """What is there already: of the base's Python, or all that conda brings beside its own."""
    if conda:
        return plan_stubs(interpreter.distributions, target.markers, passed_over=())
    return () if isolated else plan_stubs(interpreter.distributions, target.markers)


def _ended(count: int, elapsed_s: float) -> Event:
    return Event(
        stage="lock", kind="end", done=count, total=count, unit="packages", elapsed_s=elapsed_s
    )


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """How to resolve, beside what."""

    exclude_newer: str = ""
    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    offline: bool = False
    preferences: str = ""
    by_conda: bool = False


def _preferences(previous: Lock | None, stubs: Sequence[Stub]) -> str:
    """An earlier lock as uv reads it; what has no version, or is the base's now, is left out."""
    if previous is None:
        return ""
    ours = {stub.name for stub in stubs}
    kept = [one for one in previous.packages if one.version and one.name not in ours]
    return render_lock(msgspec.structs.replace(previous, packages=tuple(kept), provided={}))


def _check_python(loaded: LoadedRecipe, target: Target) -> None:
    for one in loaded.inputs:
        try:
            fits = SpecifierSet(one.requires_python).contains(target.python, prereleases=True)
        except InvalidSpecifier as error:
            raise RecipeError(f"{one.path}: requires-python is wrong.", why=f"{error}.") from error
        if not fits:
            raise LockError(
                f"{one.path} requires Python {one.requires_python}; the base has {target.python}.",
                now="Choose another base, or another Python of it with `python` in [image].",
            )


def _choose(
    loaded: LoadedRecipe,
    target: Target,
    stubs: Sequence[Stub],
    asked: _Asked,
    cache: Path,
    given: Sequence[LockedPackage] = (),
) -> tuple[LockedPackage, ...]:
    """The packages of locks that were given, and those resolved beside them."""
    fixed = _from_locks(loaded, target, cache) | {str(one.name): one for one in given}
    packages = loaded.recipe.packages
    locks = ("uv_lock", "pylock", *CONDA_LOCKS)
    open_inputs = [one for one in loaded.inputs if one.kind not in locks]
    if not open_inputs and not packages.pip:
        _check_against_base(fixed.values(), stubs, by_conda=asked.by_conda)
        return tuple(fixed.values())
    resolution = _plan_resolution(loaded, target, open_inputs, fixed, asked)
    written = write_stubs(stubs, cache=cache)
    stubbed = [f"{name} @ {file_url(path)}" for name, path in written.items()]
    resolution = msgspec.structs.replace(
        resolution, constraints=(*resolution.constraints, *stubbed)
    )
    resolved = resolve(resolution, cache=cache)
    if resolved.failure:
        provided = {stub.name: stub.version for stub in stubs}
        raise explain_failure(
            resolved.failure,
            target,
            provided=provided,
            secrets=find_passwords(loaded.secret_urls),
            by_conda=asked.by_conda,
        )
    pylock = parse_resolved(resolved.pylock)
    selected = select_packages(pylock, target, allowed=_allowed(loaded, stubs))
    return tuple(_prefer_fixed(place_package(one, resolved.folder), fixed) for one in selected)


def _plan_resolution(
    loaded: LoadedRecipe,
    target: Target,
    inputs: Sequence[Input],
    fixed: Mapping[str, LockedPackage],
    asked: _Asked,
) -> Resolution:
    """What uv is to resolve: the descriptions that are no locks, with what locks fix pinned."""
    packages = loaded.recipe.packages
    return Resolution(
        target=target,
        folder=loaded.folder,
        files=tuple(_sources(inputs)),
        lines=(
            *packages.pip,
            *_project_lines(inputs, packages.extras),
            *map(_pin, fixed.values()),
        ),
        options=_index_options(loaded),
        default_index=packages.index_url,
        names_index=loaded.names_index,
        constraints=packages.constraints,
        extras=_chosen_extras(inputs, packages.extras),
        groups=tuple(
            f"{one.path}:{name}" for one in inputs for name in packages.groups if name in one.groups
        ),
        exclude_newer=asked.exclude_newer,
        upgrade=asked.upgrade,
        upgrade_packages=asked.upgrade_packages,
        offline=asked.offline,
        preferences=asked.preferences,
    )


def _allowed(loaded: LoadedRecipe, stubs: Sequence[Stub]) -> dict[str, tuple[str, ...]]:
    ours = {stub.name for stub in stubs}
    return {name: some for name, some in loaded.allowed_hashes.items() if name not in ours}


def _prefer_fixed(package: LockedPackage, fixed: Mapping[str, LockedPackage]) -> LockedPackage:
    """A given lock's own artifact where it stands for the same version: its hash was reviewed."""
    other = fixed.get(package.name)
    return other if other and other.version == package.version else package


def _sources(inputs: Sequence[Input]) -> list[Path]:
    return [one.path for one in inputs if one.has_dependencies and not one.project]


def _chosen_extras(inputs: Sequence[Input], extras: Sequence[str]) -> tuple[str, ...]:
    """uv knows extras only where a pyproject.toml is read for its dependencies."""
    bare = [one for one in inputs if one.kind == "pyproject" and not one.project]
    known = {name for one in bare if one.has_dependencies for name in one.extras}
    return tuple(name for name in extras if name in known)


def _project_lines(inputs: Sequence[Input], extras: Sequence[str]) -> list[str]:
    lines = []
    for one in inputs:
        if one.project:
            named = ",".join(name for name in extras if name in one.extras)
            extra = f"[{named}]" if named else ""
            lines.append(f"{one.project}{extra} @ {file_url(one.path.parent)}")
    return lines


def _index_options(loaded: LoadedRecipe) -> tuple[str, ...]:
    packages = loaded.recipe.packages
    links = (
        link if "://" in link else file_url(loaded.folder / link) for link in packages.find_links
    )
    return (
        *(f"--extra-index-url {url}" for url in packages.extra_index_urls),
        *(f"--find-links {link}" for link in links),
    )


def _from_locks(loaded: LoadedRecipe, target: Target, cache: Path) -> dict[str, LockedPackage]:
    """What uv.lock and pylock files among the inputs fix for the target."""
    fixed: dict[str, LockedPackage] = {}
    packages = loaded.recipe.packages
    for one in loaded.inputs:
        if one.kind not in ("uv_lock", "pylock"):
            continue
        extras = [name for name in packages.extras if name in one.extras]
        groups = [name for name in packages.groups if name in one.groups]
        if one.kind == "uv_lock":
            exported = export_uv_lock(one.path, extras=extras, groups=groups, cache=cache)
            if exported.failure:
                raise explain_failure(exported.failure, target)
            text, extras, groups = exported.pylock, [], []
        else:
            text = one.path.read_text("utf-8")
        pylock = parse_pylock(text, str(one.path))
        for package in select_packages(pylock, target, extras=extras, groups=groups):
            other = fixed.setdefault(package.name, place_package(package, one.path.parent))
            if other.version != package.version:
                raise LockError(
                    f"The given locks contradict each other: {package.name} "
                    f"{other.version} and {package.version}."
                )
    return fixed


def place_package(package: LockedPackage, folder: Path) -> LockedPackage:
    """The package with a local path made absolute: from `folder`, or from a file: URL."""
    artifact = package.artifact
    if artifact.kind != "vcs" and artifact.url.startswith("file:"):
        path = unquote(urlsplit(artifact.url).path)
    elif artifact.path:
        path = os.path.normpath(folder / artifact.path)
    else:
        return package
    return msgspec.structs.replace(
        package, artifact=msgspec.structs.replace(artifact, url="", path=path)
    )


def _pin(package: LockedPackage) -> str:
    artifact = package.artifact
    if artifact.kind in ("wheel", "sdist"):
        return f"{package.name}=={package.version}"
    fragment = f"#subdirectory={artifact.subdirectory}" if artifact.subdirectory else ""
    place = artifact.url or file_url(Path(artifact.path))
    if artifact.kind == "vcs":
        place = f"git+{place}@{artifact.commit}"
    return f"{package.name} @ {place}{fragment}"


def _check_against_base(
    packages: Iterable[LockedPackage], stubs: Sequence[Stub], *, by_conda: bool
) -> None:
    has = {stub.name: stub.version for stub in stubs}
    for package in packages:
        theirs = has.get(package.name)
        if theirs and not (
            package.version and SpecifierSet(f"=={package.version}").contains(theirs, True)
        ):
            raise base_conflict(
                {package.name: theirs},
                f"The given lock has {package.name} "
                f"{package.version or package.artifact.filename}.",
                by_conda=by_conda,
            )


def _divide(
    chosen: Sequence[LockedPackage], stubs: Sequence[Stub]
) -> tuple[list[LockedPackage], dict[str, str]]:
    """What is to be installed, and what of the solution the base has already."""
    has = {stub.name: stub.version for stub in stubs}
    used = {package.name: has[package.name] for package in chosen if package.name in has}
    return [package for package in chosen if package.name not in has], used


def finish_package(package: LockedPackage, folder: Path, hash_of: HashOf | None) -> LockedPackage:
    """The package with its sha256 known, and a near path relative to the lock's `folder`."""
    artifact = package.artifact
    sha256 = artifact.sha256
    if artifact.kind == "directory":
        sha256 = hash_tree(Path(artifact.path))
    elif artifact.path and artifact.kind != "vcs":
        sha256 = _local_hash(artifact)
    elif not sha256 and artifact.kind != "vcs":
        if hash_of is None:
            raise LockError(f"{package.name} has no sha256, and cannot be downloaded to get one.")
        sha256 = hash_of(artifact.url)
    return msgspec.structs.replace(
        package,
        artifact=msgspec.structs.replace(
            artifact, sha256=sha256, path=_relative(artifact.path, folder) if artifact.path else ""
        ),
    )


def _local_hash(artifact: Artifact) -> str:
    found = hash_file(Path(artifact.path))
    if artifact.sha256 and artifact.sha256 != found:
        raise LockError(
            f"{artifact.path} is not the file that was locked.",
            why=f"sha256 {found}, not {artifact.sha256}.",
        )
    return found


def _relative(path: str, folder: Path) -> str:
    """Relative where it lies in the lock's folder or beside it, so that both can move together."""
    relative = os.path.relpath(path, folder)
    return path if relative.startswith("../..") else relative
