"""Conda archives into the cache: from a channel, a mirror, or this machine, by their hash."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from limpet.actions.wheels import OnBytes, Site, has_file
from limpet.core.conda import CondaPackage, show_login
from limpet.core.conda_channels import (
    Condarc,
    StoredLogin,
    channel_of_archive,
    find_stored,
    resolve_channels,
    said_channels,
    said_specs,
    with_login,
    with_token,
)
from limpet.core.conda_text import parse_explicit
from limpet.core.errors import FetchError
from limpet.tools.condarc import read_condarc, read_store
from limpet.tools.recipes import LoadedRecipe

if TYPE_CHECKING:
    from limpet.tools.download import Credentials, Fetcher, Login


class Channels(msgspec.Struct, frozen=True, kw_only=True):
    """The way to what a lock names: logins, which no lock has, mirrors, proxies, certificates."""

    logins: tuple[str, ...] = ()
    condarc: Condarc = msgspec.field(default_factory=Condarc)
    store: dict[str, StoredLogin] = msgspec.field(default_factory=dict)

    def places(self, url: str) -> tuple[str, ...]:
        """Where to fetch a locked URL from, in this order."""
        for channel, mirrors in self.condarc.mirrors.items():
            start = f"{channel.rstrip('/')}/"
            if mirrors and url.startswith(start):
                return tuple(f"{one.rstrip('/')}/{url.removeprefix(start)}" for one in mirrors)
        shown = show_login(url, self.logins)
        stored = find_stored(url, self.store)
        if shown == url and stored:
            shown = with_token(url, stored.token)
        return (with_login(shown, self.condarc),)

    def fetcher(self, credentials: Credentials) -> Fetcher:
        from limpet.tools.download import Fetcher

        verify = self.condarc.ca_file or (None if self.condarc.verify else False)
        known = partial(self._login, credentials)
        return Fetcher(known, verify=verify, proxies=self.condarc.proxies)

    def _login(self, credentials: Credentials, url: str) -> Login | None:
        stored = find_stored(url, self.store) or StoredLogin()
        in_store = (stored.user, stored.password) if stored.user else stored.bearer
        return credentials(url) or in_store or None


def find_channels(loaded: LoadedRecipe, locked: Sequence[CondaPackage] = ()) -> Channels:
    """The way to all channels that a recipe or its lock names, as this host knows it."""
    condarc = read_condarc()
    found = said_channels(loaded.recipe.packages, condarc, loaded.folder, os.environ)
    others = resolve_channels((one.channel for one in locked), condarc, loaded.folder)
    logins = (*(one.url for one in (*found, *others)), *_named_in_files(loaded))
    return Channels(logins=tuple(dict.fromkeys(logins)), condarc=condarc, store=read_store())


def _named_in_files(loaded: LoadedRecipe) -> Iterator[str]:
    """The channels of archives that specs and explicit lists name by their whole URL."""
    urls = [*said_specs(loaded.recipe.packages, os.environ)]
    for one in loaded.inputs:
        if one.kind == "conda_explicit":
            lines = parse_explicit(one.path.read_text("utf-8"), str(one.path))
            urls += [line.url for line in lines]
    yield from filter(None, map(channel_of_archive, urls))


def check_conda_offline(site: Site, packages: Sequence[CondaPackage]) -> None:
    """FetchError that names everything that only the network could give."""
    absent = [
        package.filename
        for package in packages
        if not _archive(site, package).exists() and _local_path(site, package) is None
    ]
    if absent:
        raise FetchError(
            f"Offline, and not in the cache: {', '.join(absent)}.",
            now="Build once with the network, or copy the cache folder of a machine that has it.",
        )


def obtain_archive(
    site: Site, channels: Channels, package: CondaPackage, fetcher: Fetcher, on_bytes: OnBytes
) -> Path:
    """The package's archive in the cache, with the hash that the lock says."""
    from limpet.tools.download import copy_file

    target = _archive(site, package)
    sha256, size_bytes = package.sha256, package.size_bytes
    if has_file(target, size_bytes):
        return target
    if local := _local_path(site, package):
        copy_file(local, target, sha256=sha256, size_bytes=size_bytes)
        on_bytes(target.stat().st_size)
        return target
    *others, last = channels.places(package.url)
    for url in others:
        try:
            fetcher.fetch(url, target, sha256=sha256, size_bytes=size_bytes, on_bytes=on_bytes)
            return target
        except FetchError:
            continue
    fetcher.fetch(last, target, sha256=sha256, size_bytes=size_bytes, on_bytes=on_bytes)
    return target


def _archive(site: Site, package: CondaPackage) -> Path:
    return site.cache / "conda" / package.sha256 / Path(package.filename).name


def _local_path(site: Site, package: CondaPackage) -> Path | None:
    if package.path:
        return site.lock_folder / package.path
    if package.url.startswith("file:"):
        return Path(unquote(urlsplit(package.url).path))
    return None
