"""Inspection: what can be seen of an image without starting it."""

from __future__ import annotations

from typing import Literal

import msgspec

from limpet.core.contents import Contents
from limpet.core.image import ImageFacts


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One object in an image's file."""

    name: str
    kind: str
    size_bytes: int


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An installed package, and whose: `pip`, `conda`, or another tool's."""

    name: str
    version: str
    source: Literal["pip", "conda", "other"] = "pip"


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What is in an image. `facts` is None, and `packages` empty, where limpet did not make it.

    `packages` are those of the lock; `contents` what the image's own file systems have, None where
    nobody asked.
    """

    path: str
    kind: str
    arch: str
    size_bytes: int
    identity: str
    facts: ImageFacts | None = None
    parts: tuple[Part, ...] = ()
    packages: tuple[Package, ...] = ()
    contents: Contents | None = None
