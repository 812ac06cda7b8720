"""What images keep on the disk for their user: each has a folder, named by what is in the image."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

RECORD = "image.json"
Whereabouts = Literal["there", "replaced", "gone", "unknown"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder says of its image: where it was started from, and what became of it."""

    title: str
    paths: tuple[str, ...] = ()
    python: str = ""
    base: str = ""
    superseded: str = ""


class PersonalPackage(msgspec.Struct, frozen=True, kw_only=True):
    """An installed personal package. `asked`: the user named it; it is not only a dependency.

    `origin` is a URL where it came from no index. `tags` are those of its wheel.
    """

    name: str
    version: str
    asked: bool = False
    origin: str = ""
    requires: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One image's folder: how much there is, when it was last used, and where the image is."""

    identity: str
    folder: str
    record: Record
    whereabouts: Whereabouts
    size_bytes: int
    files: int
    used_s: float
    packages: tuple[PersonalPackage, ...] = ()

    @property
    def title(self) -> str:
        """For people."""
        return self.record.title or self.identity


class Cleaned(msgspec.Struct, frozen=True, kw_only=True):
    """What `clean` removed, or would remove."""

    kept: tuple[Kept, ...]
    dry_run: bool = False


def parse_age(text: str) -> float | None:
    """`30d`, `12h`, `2w` in seconds; None for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip())
    return float(found[1]) * {"h": 3600, "d": 86400, "w": 604800}[found[2]] if found else None
