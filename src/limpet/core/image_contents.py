"""What was read in an image: its Pythons with their packages, its libraries, what lies around."""

from __future__ import annotations

import msgspec


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An installed distribution. `useless_bytes` are its tests and static libraries."""

    name: str
    version: str
    folder: str
    requires: tuple[str, ...] = ()
    size_bytes: int = 0
    files: int = 0
    useless_bytes: int = 0
    trouble: str = ""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """A Python and what it sees: its folders in the order of its path, and the packages in them.

    `virtual`: a virtual environment, which looks into no home. `sources` are its modules,
    `compiled` those with byte code, `unused` those whose byte code has another time than they.
    """

    prefix: str
    python: str
    virtual: bool
    folders: tuple[str, ...]
    packages: tuple[Package, ...] = ()
    sources: int = 0
    compiled: int = 0
    unused: int = 0


class CondaPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A package of a conda environment, as conda-meta has it."""

    name: str
    version: str
    build: str = ""
    prefix: str = ""
    depends: tuple[str, ...] = ()


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """What an ELF file asks of the loader. `search` is its RUNPATH, else its RPATH.

    `glibc` is the newest version that it asks for.
    """

    path: str
    soname: str = ""
    needed: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    glibc: str = ""


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
    conda: tuple[CondaPackage, ...] = ()
    libraries: tuple[Library, ...] = ()
    loader: tuple[str, ...] = ()
    found: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    heaps: tuple[Heap, ...] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    odd_names: tuple[str, ...] = ()
    signed: bool | None = None
    troubles: tuple[str, ...] = ()
