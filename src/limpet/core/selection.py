"""One artifact per package: the wheel that fits the base best, else the source."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import cast

from packaging.markers import Environment
from packaging.pylock import (
    Package,
    PackageSdist,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockUnsupportedVersionError,
    PylockValidationError,
)
from packaging.tags import Tag
from packaging.utils import NormalizedName, parse_wheel_filename

from limpet.core.errors import LockError, RecipeError
from limpet.core.lock import LockedPackage
from limpet.core.pylock import make_locked
from limpet.core.tags import Target, target_tags

_UNKNOWN = "unknown"


def parse_pylock(text: str, source: str) -> Pylock:
    """A pylock file of anybody's."""
    try:
        return Pylock.from_dict(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, PylockValidationError) as error:
        raise RecipeError(f"{source} is no valid pylock file.", why=f"{error}.") from error
    except PylockUnsupportedVersionError as error:
        raise RecipeError(
            f"{source} is of a version limpet cannot read.", why=str(error)
        ) from error


def parse_resolved(text: str) -> Pylock:
    """What uv wrote; where an index gave no hashes it leaves them out, which PEP 751 forbids."""
    raw = tomllib.loads(text)
    for package in raw.get("packages", []):
        archives = [package.get("sdist"), package.get("archive"), *package.get("wheels", [])]
        for archive in filter(None, archives):
            if not archive.get("hashes"):
                archive["hashes"] = {_UNKNOWN: ""}
    return Pylock.from_dict(raw)


def select_packages(
    pylock: Pylock,
    target: Target,
    *,
    extras: Collection[str] = (),
    groups: Collection[str] = (),
    allowed: Mapping[str, Sequence[str]] | None = None,
) -> tuple[LockedPackage, ...]:
    """What to install on the target. `allowed` are the hashes that the recipe itself demands."""
    tags = target_tags(target)
    limited = Pylock(
        lock_version=pylock.lock_version,
        environments=pylock.environments,
        requires_python=pylock.requires_python,
        extras=pylock.extras,
        dependency_groups=pylock.dependency_groups,
        default_groups=pylock.default_groups,
        created_by=pylock.created_by,
        packages=[
            _held_to(package, (allowed or {}).get(package.name)) for package in pylock.packages
        ],
    )
    try:
        chosen = list(
            limited.select(
                environment=cast("Environment", target.markers),
                tags=tags,
                extras=extras,
                dependency_groups=[*(pylock.default_groups or ()), *groups],
            )
        )
    except PylockSelectError as error:
        raise _explained(limited, target, tags, error) from error
    return tuple(
        make_locked(package, source)
        for package, source in sorted(chosen, key=lambda pair: pair[0].name)
    )


def _held_to(package: Package, hashes: Sequence[str] | None) -> Package:
    if not hashes or package.is_direct:
        return package
    if not any(value.startswith("sha256:") for value in hashes):
        raise LockError(
            f"The recipe has hashes for {package.name}, but no sha256.",
            now="Give --hash=sha256:… for it.",
        )
    wheels = [wheel for wheel in package.wheels or () if _allows(hashes, wheel)]
    sdist = package.sdist if package.sdist and _allows(hashes, package.sdist) else None
    if not wheels and not sdist:
        raise LockError(
            f"No file of {package.name} {package.version} has a hash that the recipe allows.",
            why=f"Allowed: {', '.join(hashes)}.",
            now="Correct the --hash in the recipe, or find out who changed the file.",
        )
    return Package(
        name=package.name,
        version=package.version,
        marker=package.marker,
        requires_python=package.requires_python,
        dependencies=package.dependencies,
        index=package.index,
        sdist=sdist,
        wheels=wheels or None,
    )


def _allows(hashes: Sequence[str], source: PackageWheel | PackageSdist) -> bool:
    return any(f"{kind}:{value.lower()}" in hashes for kind, value in source.hashes.items())


def _explained(
    pylock: Pylock, target: Target, tags: Sequence[Tag], error: PylockSelectError
) -> LockError:
    fitting = set(tags)
    for package in pylock.packages:
        if not package.wheels or package.sdist:
            continue
        names = [wheel.filename for wheel in package.wheels]
        if not any(fitting & parse_wheel_filename(name)[-1] for name in names) and repr(
            NormalizedName(package.name)
        ) in str(error):
            return LockError(
                f"{package.name} {package.version} has no wheel for {target.described}, "
                "and no source to build.",
                why=f"It has wheels for: {_shown_tags(names)}.",
                now="Ask for another version of it, or choose another base.",
            )
    return LockError(f"The lock does not fit {target.described}.", why=f"{error}.")


def _shown_tags(names: Sequence[str]) -> str:
    shown = sorted({name.removesuffix(".whl").split("-", 2)[-1] for name in names})
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return ", ".join(shown[:8]) + more
