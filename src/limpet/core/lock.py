"""Lock: exactly which artifacts, on exactly which base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from limpet.core.conda import CondaPackage

ArtifactKind = Literal["wheel", "sdist", "archive", "vcs", "directory"]


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to install a package from.

    Exactly one of `url` and `path` is set (`path`: absolute, or relative to the lock's folder).
    `sha256` is that of the file for wheel, sdist and archive; of the sorted tree for a directory;
    empty for vcs, whose `commit` is its hash. `url` never holds credentials. An archive (a direct
    URL or path) is a wheel where `filename` ends in `.whl`, else a source to be built.
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
    """A package and the one artifact that is installed for it. `name` is normalised (PEP 503).

    `version` is empty for a local folder: its build says it.
    """

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


class FoundPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A package that lies in an image, of which no one knows where it came from.

    `kind` is a package URL's type: `pypi`, `conda`, or `generic` for a site's own tools. `place`
    is where it lies, where that is not the image's own environment. As far as its installer noted
    it: `url` (without credentials, never one of this machine's), `sha256` of the archive, `commit`
    of a checkout, and `installer`, which tool it was.
    """

    name: str
    version: str
    kind: Literal["pypi", "conda", "generic"]
    place: str = ""
    url: str = ""
    sha256: str = ""
    commit: str = ""
    installer: str = ""

    @property
    def is_exact(self) -> bool:
        """Whether it is known which archive or checkout it was installed from."""
        return bool(self.sha256 or self.commit)


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a build needs to know; read from and written to a PEP 751 file.

    `python` is the full version of the interpreter, `interpreter` its path in the base
    (`/opt/env/bin/python` where `conda` brings it). `provided` are the distributions that the base
    already has and that were counted in (`name` → version). `apt` are pinned `name=version`.
    `found` are packages that were packed as they lay there, `tree_sha256` names all that was
    packed: with either, nothing can be built from this lock.
    """

    base: LockedBase
    python: str
    interpreter: str
    packages: tuple[LockedPackage, ...] = ()
    conda: tuple[CondaPackage, ...] = ()
    provided: dict[str, str] = msgspec.field(default_factory=dict)
    apt: tuple[str, ...] = ()
    post_sha256: str = ""
    isolated_from_base: bool = False
    recipe_sha256: str = ""
    found: tuple[FoundPackage, ...] = ()
    tree_sha256: str = ""


def find_differences(
    lock: Lock,
    *,
    recipe_sha256: str,
    base: LockedBase | None = None,
    python: str = "",
    provided: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Why a lock does not fit, in words; empty where it does.

    `base` is what is wanted now: an empty reference or digest in it is not compared. `python` is
    what the recipe asks for (`3.13`) or the interpreter has (`3.13.5`); `provided` what is in the
    base, where that can change.
    """
    differences = []
    if lock.recipe_sha256 != recipe_sha256:
        differences.append("the recipe, or a file that it names, has changed since")
    if base and base.arch != lock.base.arch:
        differences.append(f"it is for {lock.base.arch}, and this is for {base.arch}")
    if base and base.reference and base.reference != lock.base.reference:
        differences.append(f"it is for the base {lock.base.reference}, not {base.reference}")
    elif base and base.digest and base.digest != lock.base.digest:
        differences.append(f"the base {base.reference} was {lock.base.digest}, now {base.digest}")
    if python and f"{lock.python}.".find(f"{python}.") != 0:
        differences.append(f"it is for Python {lock.python}, not {python}")
    for name, version in (lock.provided if provided is not None else {}).items():
        now = (provided or {}).get(name, "")
        if now != version:
            differences.append(f"the base had {name} {version}, and now has {now or 'none'}")
    return tuple(differences)
