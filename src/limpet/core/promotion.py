"""Promoted: personal packages that became part of a recipe."""

from __future__ import annotations

from pathlib import Path

import msgspec

from limpet.core.plan import LockReport


class Promoted(msgspec.Struct, frozen=True, kw_only=True):
    """What went into which recipe; `lock` is that of the recipe as it is now."""

    image: str
    recipe: Path
    requirements: tuple[str, ...]
    lock: LockReport
