"""Recipe: what the user asked for, from whatever description it came."""

from __future__ import annotations

from typing import Literal

import msgspec

Layout = Literal["auto", "merged", "layered"]
HomePolicy = Literal["isolated", "private", "none", "host"]
VariablePolicy = Literal["clean", "host", "strict"]
GpuPolicy = Literal["auto", "none", "nvidia", "amd"]
MpiPolicy = Literal["auto", "image", "host", "none"]


class Image(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[image]`: what stands below the packages, and how the file is laid out.

    `on` is a Python of the host in the place of a base: read as `base = "host:PATH"`.
    `cuda` is the newest CUDA that the driver of the target allows, for conda packages to rely on;
    `rocm` the ROCm that it has. Packages for a newer one are told.
    """

    base: str = ""
    on: str = ""
    python: str = ""
    cuda: str = ""
    rocm: str = ""
    apt: tuple[str, ...] = ()
    post: str = ""
    args: dict[str, str] = msgspec.field(default_factory=dict)
    layout: Layout = "auto"
    compression: str = "zstd"
    isolated_from_base: bool = False
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class Packages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[packages]`: requirement lines, and description files to read beside them.

    `conda` are match specs, and `channels` where they are looked for, the first one first.
    `files` are paths relative to the recipe; `extras` and `groups` select from pyproject.toml,
    uv.lock and pylock files, `environment` one of a pixi workspace; `constraints` are requirement
    lines that only limit versions. Index
    options mean what uv's flags of the same names mean.
    """

    pip: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    environment: str = ""
    constraints: tuple[str, ...] = ()
    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    exclude_newer: str = ""


class Warm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[warm]`: run once at build time so that caches are born inside the image.

    `entry` is what users start most, as a shell reads it: what it opens lies first in the image.
    Without it `imports` say what does.
    """

    imports: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    entry: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[run]`: how the image wants to be started; the command line can say otherwise."""

    variables: VariablePolicy = "clean"
    home: HomePolicy = "isolated"
    gpu: GpuPolicy = "auto"
    mpi: MpiPolicy = "auto"
    bind: tuple[str, ...] = ()
    pass_variables: tuple[str, ...] = ()
    answers: bool = True


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of a limpet.toml; every other description is turned into one.

    `files` maps a source (relative to the recipe, or absolute) to an absolute path in the image.
    """

    image: Image = msgspec.field(default_factory=Image)
    packages: Packages = msgspec.field(default_factory=Packages)
    files: dict[str, str] = msgspec.field(default_factory=dict)
    env: dict[str, str] = msgspec.field(default_factory=dict)
    warm: Warm = msgspec.field(default_factory=Warm)
    run: Run = msgspec.field(default_factory=Run)
