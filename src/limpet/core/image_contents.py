"""What was read in an image: its Pythons with their packages, its libraries, what lies around."""

from __future__ import annotations

import msgspec

from limpet.core.contents import Software
from limpet.core.elf import Elf
from limpet.core.package_files import Metadata


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """A Python and what it sees: its folders in the order of its path, and the packages in them.

    `virtual`: a virtual environment, which looks into no home. `sources` are its modules,
    `compiled` those with byte code, `unused` those whose byte code has another time than they.
    """

    prefix: str
    python: str
    virtual: bool
    folders: tuple[str, ...]
    packages: tuple[Software, ...] = ()
    sources: int = 0
    compiled: int = 0
    unused: int = 0


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled module or library, and what it asks of the loader."""

    path: str
    elf: Elf


class Heap(msgspec.Struct, frozen=True, kw_only=True):
    """Files of one kind that nobody needs, and the largest of their folders."""

    kind: str
    size_bytes: int
    files: int
    largest: tuple[tuple[str, int], ...]


class ImageContents(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `variables` are what the image sets, `odd_names` those with control characters.

    `loader` are the folders that the image's loader looks into, `found` the names of all shared
    libraries with their paths. `troubles` are what could not be read.
    """

    arch: str = ""
    libc: str = ""
    files: int = 0
    size_bytes: int = 0
    environments: tuple[Environment, ...] = ()
    conda: tuple[Metadata, ...] = ()
    libraries: tuple[Library, ...] = ()
    loader: tuple[str, ...] = ()
    found: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    heaps: tuple[Heap, ...] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    odd_names: tuple[str, ...] = ()
    signed: bool | None = None
    troubles: tuple[str, ...] = ()
