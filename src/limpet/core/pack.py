"""`pack`: a folder that lies on the disk becomes an image that serves it at the very same path."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISDIR, S_ISREG
from typing import Literal

import msgspec

from limpet.core.conda import CondaPackage
from limpet.core.errors import BaseError, UsageError
from limpet.core.facts import BaseFacts
from limpet.core.findings import Finding
from limpet.core.lock import FoundPackage
from limpet.core.mounts import is_below
from limpet.core.numbers import numbers
from limpet.core.prefix import Seen
from limpet.core.recipe import Layout
from limpet.core.seeing import ALWAYS, OWN_FOLDERS, OWN_TREES
from limpet.core.wrap import WrapReport

PrefixKind = Literal["conda", "venv", "folder"]
CONDA_CACHE = "pkgs"
SHOWN = 8  # how many names a finding gives


class PackRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a `pack` command asks for; an empty flag leaves the word to the configuration.

    `also` are further folders that go in at their own place. `wrap` is a folder for launchers.
    """

    prefix: str
    output: str
    base: str = ""
    layout: Layout = "auto"
    also: tuple[str, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict)
    name: str = ""
    wrap: str = ""
    system: str = ""
    offline: bool = False
    force: bool = False
    dry_run: bool = False
    cache_dir: str = ""
    build_dir: str = ""
    config_file: str = ""


class Prefix(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder is. `python` is `3.13` where it has one; `home` and `version` are a venv's."""

    kind: PrefixKind
    python: str = ""
    home: str = ""
    has_programs: bool = True
    conda_name: str = ""
    activates: bool = False
    variables: dict[str, str] = msgspec.field(default_factory=dict)


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """A folder to be packed: where it lies, where it stands in the image, and all that is in it."""

    folder: Path
    place: str
    seen: tuple[Seen, ...]

    @property
    def has_package_cache(self) -> bool:
        """Whether it is a conda installation with its packages beside its environments."""
        folders = {one.path for one in self.seen if one.is_folder and "/" not in one.path}
        return {"conda-meta", CONDA_CACHE} <= folders

    @property
    def files(self) -> int:
        """How many of the things in it are no folders."""
        return sum(not S_ISDIR(one.mode) for one in self.seen)

    @property
    def size_bytes(self) -> int:
        """What its files hold, each of several names counted once."""
        linked = {
            (one.device, one.inode): one.size_bytes
            for one in self.seen
            if one.links > 1 and one.is_file
        }
        alone = sum(one.size_bytes for one in self.seen if one.links <= 1 and S_ISREG(one.mode))
        return alone + sum(linked.values())


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What the packages in a tree say of themselves; paths are relative to the tree.

    `hashes` are hexadecimal sha256, `expected` all paths that a package says it has. `editable`
    is what installs point outside at, by the name of what does.
    """

    conda: tuple[CondaPackage, ...] = ()
    found: tuple[FoundPackage, ...] = ()
    hashes: dict[str, str] = msgspec.field(default_factory=dict)
    expected: frozenset[str] = frozenset()
    editable: dict[str, str] = msgspec.field(default_factory=dict)


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What the programs and libraries need: `glibc` by `of`, machines, libraries elsewhere."""

    glibc: str = ""
    of: str = ""
    machines: dict[str, str] = msgspec.field(default_factory=dict)
    elsewhere: dict[str, str] = msgspec.field(default_factory=dict)


class TreePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One folder of a plan, in numbers."""

    folder: str
    place: str
    files: int
    size_bytes: int


class PackPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What will be packed, on what. `served` are the places that are mounted at each start."""

    output: Path
    prefix: str
    kind: PrefixKind
    python: str
    base: str
    digest: str
    layout: Literal["merged", "layered"]
    trees: tuple[TreePlan, ...]
    links: dict[str, str] = msgspec.field(default_factory=dict)
    served: tuple[str, ...] = ()
    conda: int = 0
    packages: int = 0
    glibc: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def files(self) -> int:
        return sum(tree.files for tree in self.trees)

    @property
    def size_bytes(self) -> int:
        return sum(tree.size_bytes for tree in self.trees)


class ByteCode(msgspec.Struct, frozen=True, kw_only=True):
    """How many modules' byte code was given another header, was stale, and was compiled."""

    rewritten: int = 0
    stale: int = 0
    compiled: int = 0


class PackReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was packed; without a size, what would be. `verified` files were read back."""

    plan: PackPlan
    size_bytes: int = 0
    verified: int = 0
    byte_code: ByteCode = ByteCode()
    findings: tuple[Finding, ...] = ()
    wrap: WrapReport | None = None
    elapsed_s: float = 0.0


def check_place(place: str, *, what: str = "") -> None:
    """UsageError for a folder that an image cannot serve at its own path."""
    why = ""
    if place in (*OWN_TREES, *OWN_FOLDERS, *ALWAYS, "/home", "/root"):
        why = "That place is the image's own."
    elif any(is_below(place, tree) for tree in ("/proc", "/sys", "/dev", "/.singularity.d")):
        why = "The runtime mounts its own there."
    elif ":" in place:
        why = "Its path has a colon, where PATH splits."
    elif any(ord(letter) < 32 for letter in place):
        why = "Its path has a control character in it."
    if why:
        raise UsageError(f"{what or place} cannot be packed.", why=why)


def is_covered(place: str) -> bool:
    """Whether something of the host's may lie over that place: a home, or the working folder."""
    above = posixpath.dirname(place)
    return not (above in OWN_FOLDERS or any(is_below(place, tree) for tree in OWN_TREES))


def check_needs(needs: Needs, facts: BaseFacts, base: str) -> None:
    """BaseError where programs of the folder cannot run on this base."""
    if needs.machines and facts.arch not in needs.machines:  # some packages bring several
        machine, path = min(needs.machines.items())
        raise BaseError(
            f"The folder has programs for {machine}, and the base is for {facts.arch}.",
            why=f"One of them is {path}.",
        )
    if not needs.glibc or facts.libc is None:
        return
    if facts.libc.family != "glibc":
        raise BaseError(
            f"The folder needs glibc, and the base {base} has {facts.libc.family}.",
            why=f"{needs.of} asks for glibc {needs.glibc}.",
            now="Take a base with glibc: --base debian:trixie.",
        )
    if numbers(needs.glibc) > numbers(facts.libc.version):
        raise BaseError(
            f"The folder needs glibc {needs.glibc}, and the base {base} has {facts.libc.version}.",
            why=f"{needs.of} asks for it.",
            now="Take a newer base, or one of the system that it was built on: --base REF.",
        )


# ---- findings: what cannot be known or does not come along --------------------------------------


def _shown(names: Iterable[str]) -> tuple[str, ...]:
    listed = sorted(names)
    more = [f"… and {len(listed) - SHOWN} more"] if len(listed) > SHOWN else []
    return (*listed[:SHOWN], *more)


def _finding(
    code: str, severity: Literal["warning", "note"], what: str, names: Iterable[str], cure: str = ""
) -> list[Finding]:
    """At most one finding: none where there is nothing to name."""
    listed = sorted(names)
    if not listed:
        return []
    said = what.format(n=len(listed))
    return [
        Finding(
            code=f"pack/{code}", severity=severity, what=said, evidence=_shown(listed), cure=cure
        )
    ]


def find_package_caches(trees: Sequence[Tree]) -> list[Finding]:
    """What conda keeps of packages beside its environments, and no environment shares with it."""
    kept = []
    for tree in trees:
        if not tree.has_package_cache:
            continue
        outside = {(one.device, one.inode) for one in tree.seen if not is_cached(one.path)}
        alone = {
            (one.device, one.inode): one.size_bytes
            for one in tree.seen
            if one.is_file and is_cached(one.path) and (one.device, one.inode) not in outside
        }
        kept.append(f"{tree.place}/{CONDA_CACHE}: {sum(alone.values()) / 1e6:.1f} MB of its own")
    return _finding(
        "package-cache",
        "note",
        "conda's package cache comes along; no program needs it.",
        kept,
        cure="conda clean --all beforehand leaves it out.",
    )


def is_cached(path: str) -> bool:
    """Whether something is conda's package cache, or in it."""
    return path.partition("/")[0] == CONDA_CACHE


def _is_plain(one: Seen) -> bool:
    """Whether there is nothing to be said of it: most are folders, links and files like this."""
    kind = S_IFMT(one.mode)
    if kind != S_IFREG:
        return kind in (S_IFDIR, S_IFLNK)
    return bool(one.mode & 0o044) and not one.mode & 0o6000 and not one.is_sparse


def find_in_trees(trees: Sequence[Tree]) -> list[Finding]:
    """What can be said of the things in the folders by their `lstat` alone."""
    every = [
        (f"{tree.place}/{one.path}", one)
        for tree in trees
        for one in tree.seen
        if not _is_plain(one)
    ]
    closed = [p for p, one in every if one.is_file and not one.mode & 0o044 and one.mode & 0o400]
    return [
        *_finding(
            "special-file",
            "note",
            "{n} pipes, sockets or devices come along as they are.",
            (p for p, one in every if one.is_special),
        ),
        *_finding(
            "sparse",
            "note",
            "{n} files have holes, which stay holes in the image.",
            (p for p, one in every if one.is_sparse),
        ),
        *_finding(
            "modes",
            "note",
            "{n} files that only their owner can read are readable by all who can read the image.",
            closed,
        ),
        *_finding(
            "set-id",
            "warning",
            "{n} programs lose their set-user-id or set-group-id bit.",
            (p for p, one in every if one.is_file and one.mode & 0o6000),
        ),
    ]


def find_links(dangling: Mapping[str, str], outside: Mapping[str, str]) -> list[Finding]:
    """Symbolic links that lead nowhere, or to what neither the image nor its base has."""
    return [
        *_finding(
            "dangling-link",
            "note",
            "{n} symbolic links lead nowhere; they come along as they are.",
            (f"{path} → {target}" for path, target in dangling.items()),
        ),
        *_finding(
            "outside-link",
            "warning",
            "{n} symbolic links lead out of the folder, to what the image does not have.",
            (f"{path} → {target}" for path, target in outside.items()),
            cure="--also FOLDER takes it along at its own path.",
        ),
    ]


def find_outside(metadata: Metadata, needs: Needs) -> list[Finding]:
    """Packages and libraries that are used from elsewhere."""
    return [
        *_finding(
            "editable",
            "warning",
            "{n} editable installs point at folders that the image does not have.",
            (f"{name} → {place}" for name, place in metadata.editable.items()),
            cure="Install them without -e, or take the folders along: --also FOLDER.",
        ),
        *_finding(
            "outside-library",
            "warning",
            "{n} programs or libraries are linked with libraries that the image does not have.",
            (f"{path} → {library}" for path, library in needs.elsewhere.items()),
            cure="--also FOLDER takes them along at their own path.",
        ),
    ]


def find_changed(changed: Iterable[str], missing: Iterable[str]) -> list[Finding]:
    """Files that are not as their packages brought them."""
    return [
        *_finding(
            "changed-file",
            "warning",
            "{n} files are not as their package brought them; the image has them as they are.",
            changed,
        ),
        *_finding(
            "missing-file",
            "warning",
            "{n} files are not there although their package says so.",
            missing,
        ),
    ]


def find_unlocked(found: Sequence[FoundPackage]) -> list[Finding]:
    """Packages of which is known what they are, and not where from."""
    names = (f"{one.name} {one.version} ({one.kind})" for one in found if not one.is_exact)
    return _finding(
        "unlocked",
        "note",
        "{n} packages do not say where they came from: the lock has names and versions only.",
        names,
    )
