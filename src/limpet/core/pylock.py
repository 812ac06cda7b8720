"""The lock as a PEP 751 file: any tool that reads pylock can install from it.

What the standard has no word for stands under `[tool.limpet]`. The text is the same for the same
lock, byte by byte: no time, no path of this machine's beyond what the recipe itself names.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from packaging.pylock import (
    Package,
    PackageArchive,
    PackageDirectory,
    PackageSdist,
    PackageVcs,
    PackageWheel,
    Pylock,
    PylockUnsupportedVersionError,
    PylockValidationError,
)

from limpet.core.conda import CondaPackage, hide_login
from limpet.core.errors import LockError
from limpet.core.lock import Artifact, FoundPackage, Lock, LockedBase, LockedPackage
from limpet.core.secrets import scrub

LOCK_VERSION = 1
_HEADER = "# Written by limpet: what is installed, exactly. Change the recipe, not this file.\n"

Source = PackageVcs | PackageDirectory | PackageArchive | PackageWheel | PackageSdist


def render_lock(lock: Lock) -> str:
    """The text of a lock file."""
    minor = ".".join(lock.python.split(".")[:2])
    python = [f"requires-python = {_value(f'=={minor}.*')}"] if minor else []
    environment = (
        "implementation_name == 'cpython' and sys_platform == 'linux' "
        f"and platform_machine == '{lock.base.arch}'"
    )
    lines = [
        _HEADER,
        'lock-version = "1.0"',
        f"environments = [{_value(environment)}]",
        *python,
        'created-by = "limpet"',
    ]
    if not lock.packages:
        lines.append("packages = []")
    for package in sorted(lock.packages, key=lambda package: package.name):
        lines += ["", "[[packages]]", *_package_lines(package)]
    lines += ["", "[tool.limpet]", *_own_lines(lock), "", "[tool.limpet.base]"]
    lines += _pairs(msgspec.to_builtins(lock.base))
    for one in sorted(lock.conda, key=lambda one: (one.name, one.subdir)):
        lines += ["", "[[tool.limpet.conda]]", *_pairs(_conda_table(one))]
    for found in sorted(lock.found, key=lambda one: (one.kind, one.name, one.place)):
        lines += ["", "[[tool.limpet.found]]", *_pairs(msgspec.to_builtins(found))]
    if lock.provided:
        lines += ["", "[tool.limpet.provided]"]
        lines += [f"{_key(name)} = {_value(lock.provided[name])}" for name in sorted(lock.provided)]
    return "\n".join(lines) + "\n"


def _own_lines(lock: Lock) -> list[str]:
    return _pairs(
        {
            "version": LOCK_VERSION,
            "recipe-sha256": lock.recipe_sha256,
            "python": lock.python,
            "interpreter": lock.interpreter,
            "isolated-from-base": lock.isolated_from_base,
            "apt": list(lock.apt),
            "post-sha256": lock.post_sha256,
            "tree-sha256": lock.tree_sha256,
        }
    )


def _conda_table(package: CondaPackage) -> dict[str, Any]:
    table = msgspec.to_builtins(package)
    table |= {"url": hide_login(package.url), "channel": hide_login(package.channel)}
    return {
        name.replace("_", "-"): value
        for name, value in table.items()
        if name != "build_number" or value
    }


def _package_lines(package: LockedPackage) -> list[str]:
    artifact = package.artifact
    lines = _pairs(
        {"name": package.name, "version": package.version, "index": scrub(package.index)}
    )
    if package.dependencies:
        named = ", ".join(_value({"name": name}) for name in package.dependencies)
        lines.append(f"dependencies = [{named}]")
    place = {"url": scrub(artifact.url)} if artifact.url else {"path": artifact.path}
    table: dict[str, Any] = {
        **place,
        "size": artifact.size_bytes,
        "subdirectory": artifact.subdirectory,
        "hashes": {"sha256": artifact.sha256},
    }
    if artifact.kind == "wheel":
        lines.append(f"wheels = [{_value({'name': artifact.filename, **table})}]")
    elif artifact.kind == "sdist":
        lines.append(f"sdist = {_value({'name': artifact.filename, **table})}")
    elif artifact.kind == "archive":
        lines.append(f"archive = {_value(table)}")
    elif artifact.kind == "vcs":
        vcs = {"type": "git", **place, "commit-id": artifact.commit}
        lines.append(f"vcs = {_value({**vcs, 'subdirectory': artifact.subdirectory})}")
    else:
        folder = {"path": artifact.path, "subdirectory": artifact.subdirectory}
        lines.append(f"directory = {_value(folder)}")
        lines.append(f"tool.limpet.sha256 = {_value(artifact.sha256)}")
    return lines


def _pairs(table: dict[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items() if _told(value)]


def _told(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != ()


def _key(name: str) -> str:
    bare = name and all(
        letter.isascii() and (letter.isalnum() or letter in "-_") for letter in name
    )
    return name if bare else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(_pairs(value)) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    # JSON's strings, numbers and truth values are TOML's, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def parse_lock(text: str, source: str) -> Lock:
    """The lock in a file that limpet wrote; LockError for any other."""
    try:
        raw = tomllib.loads(text)
        own = raw.get("tool", {}).get("limpet", {})
        pylock = Pylock.from_dict(raw)
    except (tomllib.TOMLDecodeError, PylockValidationError, AttributeError) as error:
        raise LockError(f"{source} is no valid lock file.", why=f"{error}.") from error
    except PylockUnsupportedVersionError as error:
        raise LockError(
            f"{source} is of a version that limpet cannot read.", why=str(error)
        ) from error
    if not own:
        raise LockError(
            f"{source} was not written by limpet.",
            why="It has no [tool.limpet], so it names no base.",
            now="Give it as a recipe: limpet makes its own lock from it.",
        )
    if own.get("version") != LOCK_VERSION:
        raise LockError(
            f"{source} has the lock version {own.get('version')}; limpet reads {LOCK_VERSION}.",
            now="Lock again, or take the limpet that wrote it.",
        )
    try:
        return _read(own, pylock)
    except (msgspec.ValidationError, LookupError, TypeError) as error:
        raise LockError(f"{source} is damaged.", why=f"{error}.", now="Lock again.") from error


def is_own_lock(text: str) -> bool:
    """Whether limpet wrote this file, so that it may write over it."""
    try:
        return bool(tomllib.loads(text).get("tool", {}).get("limpet"))
    except (tomllib.TOMLDecodeError, AttributeError):
        return False


def _read(own: dict[str, Any], pylock: Pylock) -> Lock:
    return msgspec.convert(
        {
            "base": msgspec.convert(own["base"], LockedBase),
            "python": own.get("python", "") if _may_lack_python(own) else own["python"],
            "interpreter": own.get("interpreter", ""),
            "packages": tuple(_locked(package) for package in pylock.packages),
            "conda": tuple(_conda(table) for table in own.get("conda", ())),
            "provided": own.get("provided", {}),
            "apt": tuple(own.get("apt", ())),
            "post_sha256": own.get("post-sha256", ""),
            "isolated_from_base": own.get("isolated-from-base", False),
            "recipe_sha256": own.get("recipe-sha256", ""),
            "found": tuple(msgspec.convert(t, FoundPackage) for t in own.get("found", ())),
            "tree_sha256": own.get("tree-sha256", ""),
        },
        Lock,
    )


def _may_lack_python(own: dict[str, Any]) -> bool:
    """Only what was packed, or is conda's, may be an environment without one."""
    return bool(own.get("tree-sha256") or own.get("conda"))


def _conda(table: dict[str, Any]) -> CondaPackage:
    return msgspec.convert(
        {name.replace("-", "_"): value for name, value in table.items()}, CondaPackage
    )


def _locked(package: Package) -> LockedPackage:
    sources: list[Source | None] = [package.vcs, package.directory, package.archive, package.sdist]
    sources += package.wheels or []
    (only,) = [source for source in sources if source is not None]
    return make_locked(package, only)


def make_locked(package: Package, source: Source) -> LockedPackage:
    """A package with one of its sources as limpet's own value, free of credentials."""
    return LockedPackage(
        name=package.name,
        version=str(package.version) if package.version else "",
        artifact=_artifact(package, source),
        index=scrub(package.index or ""),
        dependencies=tuple(str(one["name"]) for one in package.dependencies or () if "name" in one),
    )


def _artifact(package: Package, source: Source) -> Artifact:
    subdirectory = str(getattr(source, "subdirectory", None) or "")
    if isinstance(source, PackageDirectory):
        tool = (package.tool or {}).get("limpet", {})
        return Artifact(
            kind="directory",
            filename=package.name,
            path=source.path,
            sha256=tool.get("sha256", ""),
            subdirectory=subdirectory,
        )
    url, path = scrub(source.url or ""), source.path or ""
    if isinstance(source, PackageVcs):
        return Artifact(
            kind="vcs",
            filename=package.name,
            url=url,
            path="" if url else path,
            commit=source.commit_id,
            subdirectory=subdirectory,
        )
    named = {PackageWheel: "wheel", PackageSdist: "sdist", PackageArchive: "archive"}
    return Artifact(
        kind=named[type(source)],  # type: ignore[arg-type]
        filename=_filename(source),
        url=url,
        path="" if url else path,
        sha256=source.hashes.get("sha256", ""),
        size_bytes=source.size,
        subdirectory=subdirectory,
    )


def _filename(source: PackageArchive | PackageWheel | PackageSdist) -> str:
    if isinstance(source, PackageArchive):
        return unquote(
            PurePath(urlsplit(source.url).path if source.url else source.path or "").name
        )
    return source.filename
