"""Which channel a name means: what a recipe writes, read with what `.condarc` says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from limpet.core.conda import DEFAULT_CHANNEL, hide_login
from limpet.core.recipe import Packages
from limpet.core.requirements import expand

_ALIAS = "https://conda.anaconda.org"
_SUBDIRS = ("noarch", "linux-64", "linux-aarch64", "osx-64", "osx-arm64", "win-64")
_DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")


class Condarc(msgspec.Struct, frozen=True, kw_only=True):
    """What the host's `.condarc` files say about channels and the way to them.

    `custom_channels` maps a channel's name (or its first part) to the place it lies at, `multi` a
    name to several channels, `mirrors` a URL to those that stand in for it. `ca_file` is a bundle
    of certificate authorities; without `verify` none is asked. `tokens` are those that `anaconda
    login` left, by the URL of the server that each is for.
    """

    channels: tuple[str, ...] = ()
    alias: str = _ALIAS
    default_channels: tuple[str, ...] = _DEFAULTS
    custom_channels: dict[str, str] = msgspec.field(default_factory=dict)
    multi: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    strict: bool = True
    verify: bool = True
    ca_file: str = ""
    proxies: dict[str, str] = msgspec.field(default_factory=dict)
    mirrors: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    tokens: dict[str, str] = msgspec.field(default_factory=dict)


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel: as it was written, and where it lies. The URL may hold a login: never to show."""

    name: str
    url: str

    @property
    def shown(self) -> str:
        """As it may be written down: the name, or the URL without its login."""
        return hide_login(self.name)


class StoredLogin(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine's own store has for a host: a token in the path, a header, or a password."""

    token: str = ""
    bearer: str = ""
    user: str = ""
    password: str = ""


Store = Mapping[str, StoredLogin]


def find_stored(url: str, store: Store) -> StoredLogin | None:
    """The login for a URL's host: its own, else that of the nearest `*.domain`."""
    host = urlsplit(url).hostname or ""
    parts = host.split(".")
    domains = (f"*.{'.'.join(parts[i:])}" for i in range(len(parts)))
    return next((store[name] for name in (host, *domains) if name in store), None)


def with_token(url: str, token: str) -> str:
    """A URL with the token where conda's servers look for it; one that has a token stays."""
    parts = urlsplit(url)
    if not token or parts.path.startswith("/t/"):
        return url
    return parts._replace(path=f"/t/{token}{parts.path}").geturl()


def with_login(url: str, condarc: Condarc) -> str:
    """A URL with the token that `anaconda login` left for it; one with a login of its own stays.

    conda puts it behind the alias, and where the alias does not fit behind the host.
    """
    parts = urlsplit(url)
    if hide_login(url) != url or parts.scheme not in ("http", "https"):
        return url
    for server, token in condarc.tokens.items():
        known = urlsplit(server)
        if (known.scheme, known.netloc) == (parts.scheme, parts.netloc) and (
            f"{parts.path}/".startswith(f"{known.path.rstrip('/')}/")
        ):
            alias = condarc.alias.rstrip("/")
            if url.startswith(f"{alias}/"):
                return f"{alias}/t/{token}{url.removeprefix(alias)}"
            return with_token(url, token)
    return url


def said_channels(
    packages: Packages, condarc: Condarc, folder: Path, environ: Mapping[str, str]
) -> tuple[Channel, ...]:
    """The channels of a recipe, those of its match specs among them.

    `${NAME}` in them stands for a variable, as a token's usual way into an environment.yml.
    """
    names = [expand(name, environ) for name in packages.channels]
    return resolve_channels(names, condarc, folder, specs=said_specs(packages, environ))


def said_specs(packages: Packages, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The match specs of a recipe with their variables replaced."""
    return tuple(expand(spec, environ) for spec in packages.conda)


def resolve_channels(
    names: Iterable[str], condarc: Condarc, folder: Path, *, specs: Iterable[str] = ()
) -> tuple[Channel, ...]:
    """The channels of a recipe in its order; without any, `.condarc`'s, else conda-forge.

    Those that only a match spec names (`channel::package`) come last.
    """
    asked = tuple(names) or condarc.channels or (DEFAULT_CHANNEL,)
    asked += tuple(channel for spec in specs if (channel := split_spec(spec)[0]))
    found = [one for name in asked for one in _resolve(name, condarc, folder)]
    return tuple({one.url: one for one in reversed(found)}.values())[::-1]


def channel_of_archive(url: str) -> str:
    """The channel of a package's own URL; nothing for anything else."""
    if "://" not in url or not url.endswith((".conda", ".tar.bz2")):
        return ""
    return url.rpartition("/")[0].rpartition("/")[0]


def split_spec(spec: str) -> tuple[str, str, str]:
    """`channel/subdir::package` as its three parts, the first two perhaps empty."""
    place, found, rest = spec.rpartition("::")
    if not found:
        return "", "", spec
    channel, _, last = place.rpartition("/")
    return (channel, last, rest) if channel and last in _SUBDIRS else (place, "", rest)


def _resolve(name: str, condarc: Condarc, folder: Path) -> list[Channel]:
    several = condarc.default_channels if name == "defaults" else condarc.multi.get(name, ())
    if several:
        return [_channel(one, condarc, folder) for one in several]
    return [_channel(name, condarc, folder)]


def _channel(name: str, condarc: Condarc, folder: Path) -> Channel:
    return Channel(name=name, url=with_login(_url(name, condarc, folder), condarc))


def _url(name: str, condarc: Condarc, folder: Path) -> str:
    if "://" in name:
        return name.rstrip("/")
    if name.startswith((".", "/", "~")):
        return file_channel(os.path.normpath(folder / Path(name).expanduser()))
    first, _, _ = name.partition("/")
    for known in (name, first):
        if known in condarc.custom_channels:
            place = condarc.custom_channels[known].rstrip("/")
            # conda: the custom channel's own name comes after its place
            return f"{_placed(place)}/{name}"
    return f"{_placed(condarc.alias.rstrip('/'))}/{name}"


def _placed(place: str) -> str:
    return place if "://" in place else file_channel(place)


def file_channel(path: str) -> str:
    """The URL of a channel's folder."""
    return f"file://{quote(path)}"


def channel_of(url: str, condarc: Condarc) -> Channel:
    """The channel that lies at a URL, by its short name where it has one."""
    alias = f"{condarc.alias.rstrip('/')}/"
    bare = hide_login(url).rstrip("/")
    name = bare.removeprefix(alias)
    return Channel(name=name if "://" not in name else bare, url=url.rstrip("/"))
