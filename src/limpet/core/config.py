"""Config: what a site and a user set once, in place of saying it at each command."""

from __future__ import annotations

import msgspec

from limpet.core.errors import UsageError
from limpet.core.mpi import SiteSet

DEFAULT_BASE = "docker://python:{python}-slim"


class System(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[systems.NAME]`: a machine's preset, chosen by `--system NAME`.

    `cuda` and `rocm` are the versions that its GPUs' drivers allow.
    """

    base: str = ""
    bind: tuple[str, ...] = ()
    cuda: str = ""
    rocm: str = ""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. `base` may hold `{python}`, which the wanted version takes the place of.

    `images` are folders with images for everybody; `advice` is a site's own table of advice.
    `cache_max` is a size (`20G`) that the cache is brought down to after each build.
    """

    cache_dir: str = ""
    cache_max: str = ""
    build_dir: str = ""
    state_dir: str = ""
    base: str = DEFAULT_BASE
    insecure_registries: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    answers: bool = True
    images: tuple[str, ...] = ()
    advice: str = ""
    systems: dict[str, System] = msgspec.field(default_factory=dict)
    mpi: dict[str, SiteSet] = msgspec.field(default_factory=dict)

    def system(self, name: str) -> System:
        """The preset of that name (none for an empty one); UsageError where there is none."""
        if not name:
            return System()
        if name not in self.systems:
            known = ", ".join(sorted(self.systems)) or "none"
            raise UsageError(
                f"--system {name}: the configuration has no such preset.",
                why=f"There are: {known}.",
            )
        return self.systems[name]
