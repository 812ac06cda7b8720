"""A lock in the words of other tools: what each of them installs is what limpet would install."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from limpet.core.conda import SUBDIRS, CondaPackage
from limpet.core.errors import UsageError
from limpet.core.lock import Lock, LockedPackage

Form = Literal["conda-explicit", "environment", "conda-lock", "pixi", "requirements"]
FORMS: tuple[Form, ...] = get_args(Form)
_INDEX = "https://pypi.org/simple"


def render_export(lock: Lock, form: Form, *, folder: Path, name: str) -> str:
    """The lock as a file of that form; relative paths in the lock start at `folder`."""
    if form == "requirements":
        return _requirements(lock, folder)
    if not lock.conda:
        raise UsageError(
            f"--to {form}: the lock has no conda packages.", now="Use --to requirements."
        )
    if form == "conda-explicit":
        return _explicit(lock, folder)
    if form == "environment":
        return _environment(lock, folder, name)
    return _conda_lock(lock, folder) if form == "conda-lock" else _pixi(lock, folder)


def _requirements(lock: Lock, folder: Path) -> str:
    lines = [f"# Python {lock.python}"] if lock.python else []
    for package in lock.packages:
        hashed = f" --hash=sha256:{package.artifact.sha256}" if _is_file(package) else ""
        lines.append(_requirement(package, folder) + hashed)
    return "\n".join((*lines, ""))


def _is_file(package: LockedPackage) -> bool:
    return package.artifact.kind in ("wheel", "sdist", "archive")


def _requirement(package: LockedPackage, folder: Path) -> str:
    artifact = package.artifact
    if artifact.kind in ("wheel", "sdist") and not artifact.path:
        return f"{package.name}=={package.version}"
    place = _pypi_url(package, folder)
    fragment = f"#subdirectory={artifact.subdirectory}" if artifact.subdirectory else ""
    if artifact.kind == "vcs":
        place = f"git+{place}@{artifact.commit}"
    return f"{package.name} @ {place}{fragment}"


def _pypi_url(package: LockedPackage, folder: Path) -> str:
    artifact = package.artifact
    return artifact.url or _file_url(folder, artifact.path)


def _url(package: CondaPackage, folder: Path) -> str:
    return package.url or _file_url(folder, package.path)


def _file_url(folder: Path, path: str) -> str:
    return Path(os.path.normpath(folder / path)).as_uri()


def _base_url(package: CondaPackage, folder: Path) -> str:
    return _url(package, folder).rpartition("/")[0].rpartition("/")[0]


def _channels(lock: Lock, folder: Path) -> list[str]:
    """The channels that the packages come from, by URL; their order decides nothing any more."""
    return sorted({_base_url(package, folder) for package in lock.conda})


def _subdir(lock: Lock) -> str:
    return SUBDIRS[lock.base.arch]


def _explicit(lock: Lock, folder: Path) -> str:
    lines = [f"# platform: {_subdir(lock)}"]
    lines += [f"# pip: {_requirement(one, folder)}" for one in lock.packages]
    lines.append("@EXPLICIT")
    lines += [f"{_url(one, folder)}#sha256:{one.sha256}" for one in _ordered(lock.conda)]
    return "\n".join((*lines, ""))


def _ordered(packages: Sequence[CondaPackage]) -> list[CondaPackage]:
    """Each after what it depends on: conda links an explicit list in its order."""
    by_name = {one.name: one for one in packages}
    done: dict[str, CondaPackage] = {}

    def visit(name: str, above: frozenset[str]) -> None:
        if name in done or name in above or name not in by_name:
            return
        for dependency in sorted(_needs(by_name[name])):
            visit(dependency, above | {name})
        done[name] = by_name[name]

    for name in sorted(by_name):
        visit(name, frozenset())
    return list(done.values())


def _needs(package: CondaPackage) -> dict[str, str]:
    """What a package depends on: name → the rest of the match spec."""
    needs = {}
    for spec in package.depends:
        name, _, rest = spec.partition(" ")
        needs[name] = rest or "*"
    return needs


def _environment(lock: Lock, folder: Path, name: str) -> str:
    lines = [f"name: {_quoted(name)}", "channels:"]
    lines += [f"  - {_quoted(url)}" for url in _channels(lock, folder)] + ["  - nodefaults"]
    lines.append("dependencies:")
    lines += [f"  - {one.name}={one.version}={one.build}" for one in _by_name(lock.conda)]
    if lock.packages:
        lines.append("  - pip:")
        lines += [f"    - {_quoted(_requirement(one, folder))}" for one in lock.packages]
    return "\n".join((*lines, ""))


def _by_name(packages: Sequence[CondaPackage]) -> list[CondaPackage]:
    return sorted(packages, key=lambda one: one.name)


def _quoted(text: str) -> str:
    """JSON's strings are YAML's."""
    return json.dumps(text, ensure_ascii=False)


def _conda_lock(lock: Lock, folder: Path) -> str:
    """conda-lock's unified format, version 1."""
    subdir = _subdir(lock)
    packages: list[dict[str, Any]] = [
        _conda_entry(
            one.name, one.version, "conda", subdir, _needs(one), _url(one, folder),
            {"md5": one.md5, "sha256": one.sha256},
        )
        for one in _ordered(lock.conda)
    ]  # fmt: skip
    packages += [
        _conda_entry(
            one.name, one.version, "pip", subdir, dict.fromkeys(one.dependencies, "*"),
            _pypi_url(one, folder), {"sha256": one.artifact.sha256},
        )
        for one in lock.packages
    ]  # fmt: skip
    document = {
        "version": 1,
        "metadata": {
            "content_hash": {subdir: lock.recipe_sha256 or hashlib.sha256(b"").hexdigest()},
            "channels": [{"url": url, "used_env_vars": []} for url in _channels(lock, folder)],
            "platforms": [subdir],
            "sources": ["limpet"],
        },
        "package": packages,
    }
    return "\n".join((*_yaml(document, 0), ""))


def _conda_entry(
    name: str,
    version: str,
    manager: str,
    subdir: str,
    needs: dict[str, str],
    url: str,
    hashes: dict[str, str],
) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "manager": manager,
        "platform": subdir,
        "dependencies": needs,
        "url": url,
        "hash": {kind: value for kind, value in hashes.items() if value},
        "category": "main",
        "optional": False,
    }


def _pixi(lock: Lock, folder: Path) -> str:
    """pixi.lock, version 6."""
    conda, pypi = _by_name(lock.conda), lock.packages
    named = [{"conda": _url(one, folder)} for one in conda]
    named += [{"pypi": _pypi_url(one, folder)} for one in pypi]
    default: dict[str, Any] = {
        "channels": [{"url": f"{url}/"} for url in _channels(lock, folder)],
        "packages": {_subdir(lock): named},
    }
    if pypi:
        indexes = sorted({one.index for one in pypi if one.index}) or [_INDEX]
        default = {"channels": default["channels"], "indexes": indexes, **default}
    packages = [_pixi_conda(one, folder) for one in conda]
    packages += [_pixi_pypi(one, folder) for one in pypi]
    document = {"version": 6, "environments": {"default": default}, "packages": packages}
    return "\n".join((*_yaml(document, 0), ""))


def _pixi_conda(one: CondaPackage, folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = {
        "conda": _url(one, folder),
        "name": one.name,
        "version": one.version,
        "build": one.build,
        "build_number": one.build_number,
        "subdir": one.subdir,
        "noarch": one.noarch,
        "sha256": one.sha256,
        "md5": one.md5,
        "depends": list(one.depends),
        "constrains": list(one.constrains),
        "license": one.license,
        "size": one.size_bytes,
        "python_site_packages_path": one.python_site_packages_path,
    }
    return {key: value for key, value in told.items() if value not in ("", None, [])}


def _pixi_pypi(one: LockedPackage, folder: Path) -> dict[str, Any]:
    told = {
        "pypi": _pypi_url(one, folder),
        "name": one.name,
        "version": one.version,
        "sha256": one.artifact.sha256,
        "requires_dist": list(one.dependencies),
    }
    return {key: value for key, value in told.items() if value not in ("", [])}


def _yaml(value: Any, depth: int) -> list[str]:
    """Lines of YAML for tables, lists and scalars; strings as JSON writes them."""
    pad = "  " * depth
    lines = []
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                lines += [f"{pad}{key}:", *_yaml(item, depth + 1)]
            else:
                lines.append(f"{pad}{key}: {json.dumps(item, ensure_ascii=False)}")
        return lines
    for item in value:
        if isinstance(item, dict):
            first, *rest = _yaml(item, depth + 1)
            lines += [f"{pad}- {first.lstrip()}", *rest]
        else:
            lines.append(f"{pad}- {json.dumps(item, ensure_ascii=False)}")
    return lines
