"""BuildRequest: what a `build` or `lock` command asks for, as one value."""

from __future__ import annotations

from typing import Literal

import msgspec

from limpet.core.recipe import Layout


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Flags as given; an empty one leaves the word to the recipe, then to the configuration.

    `recipes` are the descriptions as typed. `output` is the image (`build`) or the lock (`lock`).
    `upgrade` re-resolves all, `upgrade_packages` only these. `on` is a Python of the host to build
    on, by path or name. `freeze` is an image whose contents become the lock. `profile` is a command
    whose files go first in the image; `no_profile` leaves them in their usual order. `small` takes
    time for a smaller image. `cache_dir`, `build_dir` and `config_file` are passed on as given.
    """

    recipes: tuple[str, ...] = ()
    output: str = ""
    lock: str = ""
    freeze: str = ""
    name: str = ""
    base: str = ""
    on: str = ""
    python: str = ""
    cuda: str = ""
    rocm: str = ""
    pip: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    environment: str = ""
    build_args: dict[str, str] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    profile: str = ""
    no_profile: bool = False
    layout: Layout | None = None
    compression: Literal["zstd", "gzip"] | None = None
    small: bool = False
    isolated_from_base: bool = False
    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    exclude_newer: str = ""
    frozen: bool = False
    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    offline: bool = False
    force: bool = False
    dry_run: bool = False
    jobs: int = 0
    system: str = ""
    cache_dir: str = ""
    build_dir: str = ""
    config_file: str = ""
