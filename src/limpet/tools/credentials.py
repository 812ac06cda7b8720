"""Credentials for our own downloads, from the places where uv and pip users keep them."""

from __future__ import annotations

import base64
import binascii
import json
import netrc
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from limpet.core.errors import HostError
from limpet.tools.process import find_program, run

Credentials = tuple[str, str]

_INDEX_VARIABLES = (
    *("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"),
    *("UV_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HELPER_TIMEOUT_S = 30
_SHORTEST_TOKEN = 16


def find_credentials(
    url: str,
    *,
    urls: Sequence[str] = (),
    named: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    uv_program: Path | None = None,
) -> Credentials | None:
    """User and password for a URL, or None.

    `urls` are those of the recipe and the flags, with credentials in them; `named` are indexes by
    name, for which UV_INDEX_<NAME>_USERNAME and _PASSWORD count. Looked for in this
    order: the URL itself, those, the environment's indexes, netrc, uv's own store, keyring.
    """
    environ = os.environ if environ is None else environ
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return None
    if parts.username and parts.password:
        return unquote(parts.username), unquote(parts.password)
    own = [_with_named(index, name, environ) for name, index in (named or {}).items()]
    known = [*urls, *own, *_index_urls(environ)]
    return (
        _from_urls(url, known)
        or _from_netrc(parts.hostname or "", environ)
        or (_from_uv(url, uv_program, environ) if uv_program else None)
        or _from_keyring(url, known, environ)
    )


def _index_urls(environ: Mapping[str, str]) -> Iterator[str]:
    for variable in _INDEX_VARIABLES:
        for word in environ.get(variable, "").split():
            name, found, url = word.partition("=")
            # `name=url`; an unnamed URL may have `=` of its own in its query.
            if found and re.fullmatch(r"[A-Za-z0-9._-]+", name):
                yield _with_named(url, name, environ)
            else:
                yield word


def _with_named(url: str, name: str, environ: Mapping[str, str]) -> str:
    """The index's URL with what UV_INDEX_<NAME>_USERNAME and _PASSWORD say put in."""
    key = re.sub(r"[^A-Za-z0-9]", "_", name).upper()
    user = environ.get(f"UV_INDEX_{key}_USERNAME", "")
    password = environ.get(f"UV_INDEX_{key}_PASSWORD", "")
    if not user and not password:
        return url
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(
        parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{place}")
    )


def _from_urls(url: str, known: Sequence[str]) -> Credentials | None:
    """Of the URLs with credentials for the same host, the one whose path is nearest."""
    best: tuple[int, Credentials] | None = None
    for candidate in known:
        parts = _split(candidate)
        if not parts or parts.username is None or not _same_realm(url, candidate):
            continue
        if not parts.password and 0 < len(parts.username) < _SHORTEST_TOKEN:
            continue  # a bare user name waits for keyring; a token may stand alone
        depth = _common_depth(urlsplit(url).path, parts.path)
        if best is None or depth > best[0]:
            best = (depth, (unquote(parts.username), unquote(parts.password or "")))
    return best[1] if best else None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _same_realm(url: str, other: str) -> bool:
    return _realm(url) == _realm(other) != ("", "", None)


def _realm(url: str) -> tuple[str, str, int | None]:
    parts = _split(url)
    if parts is None:
        return ("", "", None)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def _common_depth(path: str, prefix: str) -> int:
    depth = 0
    for one, other in zip(path.split("/")[1:], prefix.rstrip("/").split("/")[1:], strict=False):
        if one != other:
            break
        depth += 1
    return depth


def _from_netrc(host: str, environ: Mapping[str, str]) -> Credentials | None:
    named = environ.get("NETRC")
    home = Path(environ.get("HOME", "~")).expanduser()
    places = [Path(named)] if named else [home / ".netrc", home / "_netrc"]
    for place in places:
        try:
            found = netrc.netrc(str(place)).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            continue
        if found and found[2]:
            return found[0] or found[1] or "", found[2]
    return None


def _from_uv(url: str, program: Path, environ: Mapping[str, str]) -> Credentials | None:
    """What `uv auth login` stored. A uv without the helper (0.9.0) says nothing."""
    asked = json.dumps({"uri": url}).encode()
    words: list[str | Path] = [program, "auth", "helper", "--protocol=bazel", "get", "--no-config"]
    words += ["--preview-features", "auth-helper"]
    try:
        done = run(words, env=environ, input_bytes=asked, timeout_s=_HELPER_TIMEOUT_S)
        header = json.loads(done.stdout)["headers"]["Authorization"][0] if not done.code else ""
    except (HostError, ValueError, LookupError, TypeError):
        return None
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return "__token__", value
    try:
        user, _, password = base64.b64decode(value).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if password else None


def _from_keyring(url: str, known: Sequence[str], environ: Mapping[str, str]) -> Credentials | None:
    program = find_program("keyring", path=environ.get("PATH"))
    if environ.get("UV_KEYRING_PROVIDER") != "subprocess" or not program:
        return None
    parts = urlsplit(url)
    users = (
        unquote(other.username or "")
        for other in map(_split, known)
        if other and other.username and _same_realm(url, other.geturl())
    )
    user = next(users, "")
    for service in (f"{parts.scheme}://{parts.netloc}{parts.path}", parts.netloc):
        words = ["get", service, user] if user else ["--mode", "creds", "get", service]
        try:
            done = run([program, *words], env=environ, timeout_s=_HELPER_TIMEOUT_S)
        except HostError:
            return None
        said = done.text.splitlines()
        if not done.code and len(said) == (1 if user else 2):
            return (user or said[0]), said[-1]
    return None
