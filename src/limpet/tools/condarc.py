"""The host's `.condarc` files, read as conda reads them: later ones win, lists are joined.

And the logins that the engine keeps: `RATTLER_AUTH_FILE`, or its own file in the home; and those of
`anaconda login`: a file a server, named by its URL, in which conda looks for a token.

Places and keys: https://docs.conda.io/projects/conda/en/stable/user-guide/configuration/
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from limpet.core.conda_channels import Condarc, StoredLogin
from limpet.core.conda_text import Node
from limpet.core.errors import UsageError
from limpet.tools.yaml_text import parse_yaml

_NAMES = (".condarc", "condarc")
_OFF = ("false", "no", "off", "0")
_API = re.compile(r"(?<=[./])api(?=[./]|$)")  # conda: the channels' server is "conda" there


def read_condarc(environ: Mapping[str, str] | None = None) -> Condarc:
    """What all of this host's `.condarc` files say together."""
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    for path in _places(environ):
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if text.strip():
            _merge(merged, _plain(parse_yaml(text, str(path)), environ), path)
    keys = ("add_anaconda_token", "add_binstar_token")
    wanted = not any(str(merged.get(key, "")).lower() in _OFF for key in keys)
    return msgspec.structs.replace(_condarc(merged), tokens=_tokens(environ) if wanted else {})


def _tokens(environ: Mapping[str, str]) -> dict[str, str]:
    """What `anaconda login` left, by the server's URL: the API's, and the channels' beside it."""
    tokens: dict[str, str] = {}
    for folder in _token_folders(environ):
        for file in sorted(folder.glob("*.token")):
            try:
                token = file.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError):
                continue
            url = unquote_plus(file.stem)
            if token:
                tokens.setdefault(url, token)
                tokens.setdefault(_API.sub("conda", url, count=1), token)
    return tokens


def _token_folders(environ: Mapping[str, str]) -> Iterator[Path]:
    """Where conda and anaconda-client look, the newest place first."""
    if environ.get("BINSTAR_CONFIG_DIR"):
        yield Path(environ["BINSTAR_CONFIG_DIR"]) / "data"
        return
    home = Path(environ.get("HOME") or "/")
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "binstar"
    yield Path(environ.get("XDG_DATA_HOME") or home / ".local/share") / "binstar"
    yield home / ".continuum/anaconda-client/tokens"


def _places(environ: Mapping[str, str]) -> Iterator[Path]:
    home = Path(environ.get("HOME") or "/")
    folders = [Path("/etc/conda"), Path("/var/lib/conda")]
    folders += [
        Path(environ[name]) for name in ("CONDA_ROOT", "MAMBA_ROOT_PREFIX") if environ.get(name)
    ]
    xdg = environ.get("XDG_CONFIG_HOME") or str(home / ".config")
    folders += [Path(xdg) / "conda", home / ".conda"]
    for folder in folders:
        yield from (folder / name for name in _NAMES)
        try:
            yield from sorted((folder / "condarc.d").glob("*.y*ml"))
        except OSError:
            continue
    yield home / ".mambarc"
    yield home / ".condarc"
    if environ.get("CONDA_PREFIX"):
        yield Path(environ["CONDA_PREFIX"]) / ".condarc"
    for name in ("CONDARC", "MAMBARC"):
        if environ.get(name):
            yield Path(environ[name]).expanduser()


def _plain(node: Node, environ: Mapping[str, str]) -> Any:
    if isinstance(node.value, str):
        return _expanded(node.value, environ)
    if isinstance(node.value, tuple):
        return [_plain(item, environ) for item in node.value]
    return {key: _plain(value, environ) for key, value in node.value.items()}


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    for name, value in environ.items():
        text = text.replace(f"${{{name}}}", value)
    return text


def _merge(merged: dict[str, Any], table: Any, path: Path) -> None:
    if not isinstance(table, dict):
        raise UsageError(f"{path} is no table of settings.")
    for key, value in table.items():
        there = merged.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            merged[key] = {**there, **value}
        elif isinstance(value, list) and isinstance(there, list):
            merged[key] = list(dict.fromkeys([*value, *there]))
        elif value != "":
            merged[key] = value


def _condarc(merged: dict[str, Any]) -> Condarc:
    verify = str(merged.get("ssl_verify", "true"))
    file = verify if verify.lower() not in (*_OFF, "true", "yes", "on", "1", "truststore") else ""
    told = {
        "channels": merged.get("channels", merged.get("channel", [])),
        "custom_channels": merged.get("custom_channels", {}),
        "multi": merged.get("custom_multichannels", {}),
        "strict": merged.get("channel_priority", "strict") not in ("disabled", *_OFF),
        "verify": verify.lower() not in _OFF,
        "ca_file": file,
        "proxies": merged.get("proxy_servers", {}),
        "mirrors": merged.get("mirrors", {}),
    }
    for key, name in (("channel_alias", "alias"), ("default_channels", "default_channels")):
        if key in merged:
            told[name] = merged[key]
    # mamba's word for it: a channel's name, and the URLs of its mirrors.
    for name, urls in merged.get("mirrored_channels", {}).items():
        told["mirrors"] = {**told["mirrors"], f"{told.get('alias', Condarc().alias)}/{name}": urls}
    try:
        return msgspec.convert(told, Condarc)
    except msgspec.ValidationError as error:
        raise UsageError("A .condarc file has a wrong value.", why=f"{error}.") from error


def read_store(environ: Mapping[str, str] | None = None) -> dict[str, StoredLogin]:
    """The engine's file of logins by host; nothing where there is none that can be read."""
    environ = os.environ if environ is None else environ
    own = Path(environ.get("HOME") or "/") / ".rattler" / "credentials.json"
    path = Path(environ.get("RATTLER_AUTH_FILE") or own).expanduser()
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}  # a broken file of another program: the channel will say that a login is needed
    found = raw.items() if isinstance(raw, dict) else ()
    return {name: _stored(told) for name, told in found if isinstance(told, dict)}


def _stored(told: Mapping[str, Any]) -> StoredLogin:
    basic = told.get("BasicHTTP")
    basic = basic if isinstance(basic, dict) else {}
    return StoredLogin(
        token=str(told.get("CondaToken", "")),
        bearer=str(told.get("BearerToken", "")),
        user=str(basic.get("username", "")),
        password=str(basic.get("password", "")),
    )
