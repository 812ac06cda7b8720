"""ImageFacts: what a limpet image says of itself (the SIF object `limpet.json`)."""

from __future__ import annotations

from typing import Literal

import msgspec

from limpet.core.facts import PREFIX, Libc
from limpet.core.gpu import GpuNeeds
from limpet.core.host_python import HostPython
from limpet.core.lock import LockedBase
from limpet.core.module_archive import Modules
from limpet.core.mpi import ImageMpi
from limpet.core.recipe import Run

FACTS_OBJECT = "limpet.json"
LOCK_OBJECT = "pylock.toml"
SBOM_OBJECT = "sbom.cdx.json"
RECIPE_OBJECT = "limpet.toml"
AHEAD_OBJECT = "ahead.json"


class Ahead(msgspec.Struct, frozen=True, kw_only=True):
    """What a start reads first: `(start, length)` in bytes of the image's file, in its order."""

    ranges: tuple[tuple[int, int], ...] = ()

    @property
    def size_bytes(self) -> int:
        """All ranges together."""
        return sum(length for _, length in self.ranges)


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Read at every start, so small: where the environment lies and how it wants to be started.

    `identity` names what is in it (empty: an older limpet did not say), `prefix` is the
    environment's place inside, `python` its interpreter's full version, `layout` how it was laid
    out, `libc` its C library, `gpu` what its packages need of a GPU's driver,
    `mpi` the MPI in it, without symbols' names (None: an older limpet did not look). `host` is the
    Python of the host that the packages are for, where the image has none of its own. `env` is what
    the recipe sets, `base_env` what the base sets of the variables that a start sets. `places` are
    folders inside that a home or working folder of the host's may cover. `modules` is the archive
    that Python may import from, where the image has one.
    `format` counts changes that an older limpet cannot run.
    """

    format: int = 1
    limpet: str
    name: str = ""
    identity: str = ""
    layout: Literal["merged", "layered"]
    arch: str
    prefix: str = PREFIX
    places: tuple[str, ...] = ()
    python: str = ""
    base: LockedBase
    run: Run = msgspec.field(default_factory=Run)
    env: dict[str, str] = msgspec.field(default_factory=dict)
    base_env: dict[str, str] = msgspec.field(default_factory=dict)
    libc: Libc | None = None
    host: HostPython | None = None
    gpu: GpuNeeds = GpuNeeds()
    mpi: ImageMpi | None = None
    modules: Modules | None = None
    lock_sha256: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)

    def identify(self) -> str:
        """`identity`; found anew where it is none, for folders are named by it."""
        if len(self.identity) == 64 and not self.identity.strip("0123456789abcdef"):
            return self.identity
        return identity_of(self.lock_sha256, self.base, self.prefix, self.name)


def identity_of(lock_sha256: str, base: LockedBase, prefix: str, name: str) -> str:
    """The name of what is in an image: the same packages on the same base, in every copy."""
    import hashlib  # not at each start: the image says it

    return hashlib.sha256("\n".join((lock_sha256, base.digest, prefix, name)).encode()).hexdigest()
