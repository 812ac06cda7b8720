"""What other conda tools wrote: conda-lock.yml, pixi.lock, an environment's conda-meta."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from limpet.core.conda import CondaPackage, hide_login
from limpet.core.errors import LockError, RecipeError

if TYPE_CHECKING:
    from rattler import RepoDataRecord


class PypiEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A Python package that a conda tool locked: where it lies, and its hash."""

    name: str
    version: str
    location: str
    sha256: str


class LockedSet(msgspec.Struct, frozen=True, kw_only=True):
    """What a foreign lock has for one platform; `records` are the engine's."""

    records: tuple[Any, ...]
    pypi: tuple[PypiEntry, ...]
    channels: tuple[str, ...]


def read_foreign_lock(path: Path, subdir: str, name: str = "") -> LockedSet:
    """The packages of a conda-lock.yml or pixi.lock for a platform, of one environment."""
    from rattler import CondaLockedBinaryPackage, LockFile, PypiLockedPackage

    try:
        environment = LockFile.from_path(path).environment(name or "default")
    except Exception as error:  # the engine has several kinds, some of them its own
        raise RecipeError(
            f"{path} cannot be read as a lock.", why=str(error).partition("\n")[0]
        ) from error
    if environment is None:
        raise RecipeError(f"{path} has no environment {name or 'default'!r}.")
    platforms = {str(one.subdir): one for one in environment.platforms()}
    if subdir not in platforms:
        raise LockError(
            f"{path} has nothing for {subdir}.",
            why=f"It is for {', '.join(sorted(platforms)) or 'no platform'}.",
            now=f"Lock it for {subdir} as well.",
        )
    packages = environment.packages(platforms[subdir]) or []
    records: list[RepoDataRecord] = []
    pypi: list[PypiEntry] = []
    for one in packages:
        if isinstance(one, CondaLockedBinaryPackage):
            records.append(one.repo_data_record())
        elif isinstance(one, PypiLockedPackage):
            sha256 = (one.hashes.sha256 if one.hashes else None) or b""
            pypi.append(
                PypiEntry(
                    name=one.name,
                    version=str(one.version),
                    location=one.location,
                    sha256=sha256.hex(),
                )
            )
        else:
            raise LockError(
                f"{path} has {one.name} as sources, which limpet does not build.",
                why=str(one.location),
            )
    channels = tuple(str(one) for one in environment.channels())
    return LockedSet(records=tuple(records), pypi=tuple(pypi), channels=channels)


def is_prefix(folder: Path) -> bool:
    """Whether a folder is a conda environment."""
    return (folder / "conda-meta").is_dir()


def read_prefix(prefix: Path) -> tuple[CondaPackage, ...]:
    """The packages that lie in a conda environment, as its conda-meta says."""
    packages = []
    for path in sorted((prefix / "conda-meta").glob("*.json")):
        try:
            raw = json.loads(path.read_text("utf-8"))
            packages.append(_installed(raw))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise LockError(f"{path} cannot be read.", why=str(error)) from error
    return tuple(sorted(packages, key=lambda one: one.name))


def _installed(raw: dict[str, Any]) -> CondaPackage:
    url = hide_login(str(raw.get("url") or ""))
    noarch = raw.get("noarch") or ""
    return CondaPackage(
        name=raw["name"],
        version=raw["version"],
        build=raw["build"],
        build_number=int(raw.get("build_number") or 0),
        subdir=raw.get("subdir") or "noarch",
        channel=url.rpartition("/")[0].rpartition("/")[0] or hide_login(raw.get("channel") or ""),
        filename=url.rpartition("/")[2] or raw["fn"],
        url=url,
        sha256=raw.get("sha256") or "",
        md5=raw.get("md5") or "",
        size_bytes=raw.get("size"),
        depends=tuple(raw.get("depends") or ()),
        constrains=tuple(raw.get("constrains") or ()),
        noarch=noarch if isinstance(noarch, str) else "generic",
        license=raw.get("license") or "",
        python_site_packages_path=raw.get("python_site_packages_path") or "",
    )


def read_pip_distributions(prefix: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """What pip put into a conda environment: name → version and direct_url.json (or nothing)."""
    from email.parser import HeaderParser

    owned = _owned_files(prefix)
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for folder in sorted(prefix.glob("lib/python3*/site-packages/*.dist-info")):
        metadata = folder / "METADATA"
        if str(metadata.relative_to(prefix)) in owned or not metadata.is_file():
            continue
        told = HeaderParser().parsestr(metadata.read_text("utf-8", errors="replace"))
        direct = folder / "direct_url.json"
        try:
            raw = json.loads(direct.read_text("utf-8")) if direct.is_file() else {}
        except ValueError:
            raw = {}
        found[told["Name"]] = (told["Version"], raw)
    return found


def _owned_files(prefix: Path) -> set[str]:
    owned: set[str] = set()
    for path in (prefix / "conda-meta").glob("*.json"):
        owned.update(json.loads(path.read_text("utf-8")).get("files") or ())
    return owned
