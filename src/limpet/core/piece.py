"""Piece: one wheel as a small squashfs with its files at their final place, kept by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from limpet.core.errors import LockError
from limpet.core.facts import PREFIX, Interpreter, Libc
from limpet.core.lock import Artifact, Lock, LockedPackage

FORMAT = 3  # raise it when the same wheel is to give other bytes than before


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where an interpreter wants a wheel's files, below the environment's prefix."""

    prefix: str
    site_packages: str
    headers: str
    python: str

    @property
    def site_folder(self) -> str:
        """The absolute path of site-packages in the image."""
        return f"{self.prefix}/{self.site_packages}"


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece in the cache. `size_bytes` counts the file itself, `content_bytes` what it holds."""

    path: Path
    name: str
    version: str
    key: str
    files: int
    content_bytes: int
    size_bytes: int


def plan_layout(interpreter: Interpreter, prefix: str = PREFIX) -> Layout:
    """The scheme of a venv, as `sysconfig` has it."""
    family = "pypy" if interpreter.implementation == "pypy" else "python"
    folder = f"{family}{interpreter.minor}"
    return Layout(
        prefix=prefix,
        site_packages=f"lib/{folder}/site-packages",
        headers=f"include/site/{folder}",
        python=f"{prefix}/bin/python",
    )


def piece_key(
    wheel_sha256: str,
    *,
    interpreter: Interpreter,
    layout: Layout,
    compressor: str,
    direct_url: Mapping[str, Any] | None = None,
) -> str:
    """Names everything that a piece's bytes depend on."""
    return _digest(
        FORMAT,
        wheel_sha256,
        interpreter.implementation,
        interpreter.minor,
        interpreter.magic,
        [layout.prefix, layout.site_packages, layout.headers, layout.python],
        compressor,
        direct_url,
    )


def build_key(package: LockedPackage, *, lock: Lock, interpreter: Interpreter) -> str:
    """Names a wheel that is built from source: what of, on what, by which Python.

    What apt and a script add to the base may be the compiler and the libraries it is built with.
    """
    artifact = package.artifact
    return _digest(
        FORMAT,
        artifact.sha256 or [artifact.url, artifact.commit],
        artifact.subdirectory,
        package.version,
        [lock.base.digest, lock.apt, lock.post_sha256],
        [interpreter.implementation, interpreter.version, interpreter.path],
    )


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def is_wheel(artifact: Artifact) -> bool:
    """Whether an artifact is installed as it is; everything else is built first."""
    return artifact.kind == "wheel" or artifact.filename.endswith(".whl")


def direct_url(artifact: Artifact) -> dict[str, Any] | None:
    """What PEP 610 wants recorded for a package that did not come from an index.

    A relative path stays relative: where the recipe lies must not change the image.
    """
    place: dict[str, Any] = {"url": artifact.url or _path_url(artifact.path)}
    if artifact.subdirectory:
        place["subdirectory"] = artifact.subdirectory
    if artifact.kind == "archive":
        return place | {"archive_info": {"hashes": {"sha256": artifact.sha256}}}
    if artifact.kind == "directory":
        return place | {"dir_info": {}}
    if artifact.kind == "vcs":
        vcs_info = {"vcs": "git", "commit_id": artifact.commit}
        return place | {"url": artifact.url.removeprefix("git+"), "vcs_info": vcs_info}
    return None


def _path_url(path: str) -> str:
    if path.startswith("/"):
        return PurePosixPath(path).as_uri()
    return f"file:./{path.removeprefix('./')}"


def check_fits(package: LockedPackage, *, arch: str, libc: Libc) -> None:
    """LockError where a wheel is for another architecture or C library than the base's."""
    if not is_wheel(package.artifact):
        return
    platforms = package.artifact.filename.removesuffix(".whl").rpartition("-")[2].split(".")
    family = "musllinux" if libc.family == "musl" else "manylinux"
    for platform in platforms:
        if platform == "any" or (
            platform.endswith(f"_{arch}") and platform.startswith((family, "linux"))
        ):
            return
    raise LockError(
        f"{package.artifact.filename} is not for this base.",
        why=f"The base is {arch} with {libc.family} {libc.version}.",
        now="Lock again for this base: `limpet lock`.",
    )
