"""Lock: exactly which artifacts, on exactly which base."""

from __future__ import annotations

from typing import Literal

import msgspec

ArtifactKind = Literal["wheel", "sdist", "archive", "vcs", "directory"]


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to install a package from.

    Exactly one of `url` and `path` is set (`path`: absolute, or relative to the lock's folder).
    `sha256` is that of the file for wheel, sdist and archive; of the sorted tree for a directory;
    empty for vcs, whose `commit` is its hash. `url` never holds credentials.
    """

    kind: ArtifactKind
    filename: str
    url: str = ""
    path: str = ""
    sha256: str = ""
    size_bytes: int | None = None
    commit: str = ""
    subdirectory: str = ""


class LockedPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A package and the one artifact that is installed for it. `name` is normalised (PEP 503)."""

    name: str
    version: str
    artifact: Artifact
    index: str = ""
    dependencies: tuple[str, ...] = ()


class LockedBase(msgspec.Struct, frozen=True, kw_only=True):
    """The base as it was resolved: what the user wrote, and the digest it meant."""

    reference: str
    digest: str
    arch: str
    packages: tuple[str, ...] = ()


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a build needs to know; read from and written to a PEP 751 file.

    `python` is the full version of the base's interpreter, `interpreter` its path in the base
    (empty where the environment brings its own). `provided` are the distributions that the base
    already has and that were counted in (`name` → version). `apt` are pinned `name=version`.
    """

    base: LockedBase
    python: str
    interpreter: str
    packages: tuple[LockedPackage, ...] = ()
    provided: dict[str, str] = msgspec.field(default_factory=dict)
    apt: tuple[str, ...] = ()
    post_sha256: str = ""
    isolated_from_base: bool = False
    recipe_sha256: str = ""
