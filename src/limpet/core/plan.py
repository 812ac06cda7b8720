"""BuildPlan: what a build will do, decided before it does any of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

import msgspec

from limpet.core.conda import CondaPackage
from limpet.core.facts import BaseFacts
from limpet.core.lock import Lock, LockedPackage
from limpet.core.recipe import Layout

# A base in another compression has to be written anew to be merged; above this size the copy
# costs more than the second mount of a layered image at each start.
LARGEST_REWRITTEN_BYTES = 2 * 1024**3

# Measured on wheels of scientific packages: unpacked they take three times their own size, with
# byte code four; as zstd-compressed pieces about the size of the wheel and a fifth more.
PIECE_BYTES_PER_WHEEL_BYTE = 1.2
# conda's archives are compressed harder: a Python with its byte code takes 1.8 times the archive.
PIECE_BYTES_PER_CONDA_BYTE = 1.8
UNKNOWN_WHEEL_BYTES = 5_000_000

Way = Literal["kept", "fetched", "built"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One package and how it comes in: from the cache, by download, or built in the base."""

    name: str
    version: str
    way: Way
    filename: str
    size_bytes: int = 0


class BuildPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Ordered: the base, the packages, then one file in this layout at `output`."""

    output: Path
    base: str
    digest: str
    python: str
    layout: Literal["merged", "layered"]
    rewrites_base: bool
    packages: tuple[Step, ...]
    provided: dict[str, str]
    image_bytes: int

    @property
    def new_pieces(self) -> int:
        """How many packages have no piece in the cache yet."""
        return sum(step.way != "kept" for step in self.packages)

    @property
    def fetched_bytes(self) -> int:
        """What is still to be downloaded, as far as the lock knows sizes."""
        return sum(step.size_bytes for step in self.packages if step.way != "kept")


class BuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a build did; without a size, what it would do."""

    plan: BuildPlan
    lock_file: Path | None = None
    size_bytes: int = 0
    elapsed_s: float = 0.0


class LockReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a lock command gave: the lock, and where it was written (nowhere in a dry run)."""

    lock: Lock
    lock_file: Path | None = None
    elapsed_s: float = 0.0


def plan_build(
    lock: Lock,
    facts: BaseFacts,
    *,
    output: Path,
    layout: Layout,
    compression: str,
    kept: Collection[str],
    kept_conda: Collection[str] = (),
) -> BuildPlan:
    """The steps from a lock to an image; `kept` are the names of packages with a cached piece."""
    chosen = choose_layout(layout, facts, compression)
    conda = tuple(_conda_step(package, package.name in kept_conda) for package in lock.conda)
    steps = tuple(_step(package, package.name in kept) for package in lock.packages)
    conda_bytes = sum(step.size_bytes or UNKNOWN_WHEEL_BYTES for step in conda)
    wheels_bytes = sum(step.size_bytes or UNKNOWN_WHEEL_BYTES for step in steps)
    return BuildPlan(
        output=output,
        base=lock.base.reference,
        digest=lock.base.digest,
        python=lock.python,
        layout=chosen,
        rewrites_base=chosen == "merged" and facts.compressor != compression,
        packages=(*conda, *steps),
        provided=lock.provided,
        image_bytes=facts.size_bytes
        + int(wheels_bytes * PIECE_BYTES_PER_WHEEL_BYTE)
        + int(conda_bytes * PIECE_BYTES_PER_CONDA_BYTE),
    )


def choose_layout(
    wanted: Layout, facts: BaseFacts, compression: str
) -> Literal["merged", "layered"]:
    """`merged` wherever it is cheap: it starts faster and runs under every runtime."""
    if wanted != "auto":
        return wanted
    rewritten = facts.compressor != compression
    return "layered" if rewritten and facts.size_bytes > LARGEST_REWRITTEN_BYTES else "merged"


def _step(package: LockedPackage, is_kept: bool) -> Step:
    way: Way = "kept" if is_kept else "fetched" if package.artifact.kind == "wheel" else "built"
    return Step(
        name=package.name,
        version=package.version,
        way=way,
        filename=package.artifact.filename,
        size_bytes=package.artifact.size_bytes or 0,
    )


def _conda_step(package: CondaPackage, is_kept: bool) -> Step:
    return Step(
        name=package.name,
        version=package.version,
        way="kept" if is_kept else "fetched",
        filename=package.filename,
        size_bytes=package.size_bytes or 0,
    )
