"""Locks made by hand from a channel's repodata, and what a build needs beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from limpet.core.conda import CondaPackage
from limpet.core.recipe import Recipe
from limpet.tools.files import hash_file
from limpet.tools.recipes import LoadedRecipe
from tests.conda.channel import SUBDIR, Package


def read_channel(folder: Path, url: str) -> dict[str, CondaPackage]:
    """The newest package of each name, as a lock has it; the channel is served at `url`."""
    found: dict[str, CondaPackage] = {}
    for subdir in ("noarch", SUBDIR):
        repodata = json.loads((folder / subdir / "repodata.json").read_text())
        records = repodata["packages"] | repodata["packages.conda"]
        for filename, record in sorted(records.items()):
            found[record["name"]] = _package(filename, record, f"{url}/{subdir}/{filename}", url)
    return found


def _package(filename: str, record: dict[str, Any], url: str, channel: str) -> CondaPackage:
    return CondaPackage(
        name=record["name"],
        version=record["version"],
        build=record["build"],
        build_number=record["build_number"],
        subdir=record["subdir"],
        channel=channel,
        filename=filename,
        url=url,
        sha256=record["sha256"],
        md5=record.get("md5", ""),
        size_bytes=record["size"],
        depends=tuple(record["depends"]),
        constrains=tuple(record.get("constrains", ())),
        noarch=record.get("noarch") or "",
        license=record.get("license") or "",
        python_site_packages_path=record.get("python_site_packages_path") or "",
    )


PYTHON = ("python", "python_abi", "libexpat", "libzlib", "libffi", "bzip2", "liblzma", "openssl")


def choose(channel: dict[str, CondaPackage], names: Iterable[str]) -> tuple[CondaPackage, ...]:
    return tuple(channel[name] for name in names)


def loaded(folder: Path, recipe: Recipe) -> LoadedRecipe:
    """A recipe as if it had been read from a file."""
    return LoadedRecipe(recipe=recipe, folder=folder, inputs=(), sources=(), recipe_sha256="0" * 64)


def package_of(path: Path, package: Package) -> CondaPackage:
    """How a lock names a package that was just written."""
    return CondaPackage(
        name=package.name,
        version=package.version,
        build=package.build,
        subdir=path.parent.name,
        channel="https://example.org/channel",
        filename=path.name,
        url=path.as_uri(),
        sha256=hash_file(path),
        size_bytes=path.stat().st_size,
        depends=package.depends,
        noarch=package.noarch,
    )


def conda_package(name: str, **changed: Any) -> CondaPackage:
    """A package that is only named."""
    package = CondaPackage(
        name=name,
        version="1.0",
        build="h0_0",
        subdir="linux-64",
        channel="https://example.org/channel",
        filename=f"{name}-1.0-h0_0.conda",
        url=f"https://example.org/channel/linux-64/{name}-1.0-h0_0.conda",
        sha256="0" * 64,
    )
    return msgspec.structs.replace(package, **changed)
