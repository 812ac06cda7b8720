"""What was observed of a base and of this machine: plain values, filled in by `tools`."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from limpet.core.host_python import HostPython

PREFIX = "/opt/env"  # where an image has its environment

Arch = Literal["x86_64", "aarch64"]


class Libc(msgspec.Struct, frozen=True, kw_only=True):
    """A C library: family and `major.minor` version."""

    family: Literal["glibc", "musl"]
    version: str


def parse_glibc(library: bytes) -> str:
    """The version that glibc's own file has in it; empty for another library."""
    said = re.search(rb"release version (\d+\.\d+)", library)
    return said[1].decode() if said else ""


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """An installed Python distribution, as `importlib.metadata` sees it.

    `requires` are its `Requires-Dist` lines; with them a stub wheel can stand in for it.
    """

    name: str
    version: str
    requires: tuple[str, ...] = ()
    location: str = ""


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """A Python found in a base, asked about itself.

    `path` is the executable inside the base; `prefix` its `sys.prefix`; `magic` the hexadecimal
    `importlib.util.MAGIC_NUMBER`, which names the byte code format.
    """

    path: str
    version: str
    implementation: str = "cpython"
    prefix: str
    magic: str
    distributions: tuple[Distribution, ...] = ()
    externally_managed: bool = False
    markers: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def cache_tag(self) -> str:
        """What CPython calls its byte code files by: `cpython-313`."""
        return f"cpython-{self.minor.replace('.', '')}"

    @property
    def minor(self) -> str:
        """`3.13` of `3.13.5`."""
        return ".".join(self.version.split(".")[:2])


# Of an environment that has none: C libraries, R, tools.
NO_PYTHON = Interpreter(path="", version="", prefix="", magic="")


class BaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What limpet knows of a base: learned once per digest, without unpacking it.

    `digest` is `sha256:…` and names the content: of the manifest for registries and OCI layouts,
    of the root partition for everything else. `variables` are what the base itself sets.
    `host` is set where the base is a Python of this machine's.
    """

    digest: str
    arch: Arch
    os_id: str = ""
    os_version: str = ""
    os_name: str = ""
    libc: Libc | None = None
    interpreters: tuple[Interpreter, ...] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    programs: tuple[str, ...] = ()
    compressor: str = "zstd"
    size_bytes: int = 0
    host: HostPython | None = None
