"""Reads configuration files: the site's, the one that $LIMPET_CONFIG names, the user's own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from limpet.core.cache import parse_size
from limpet.core.config import Config, System
from limpet.core.errors import UsageError
from limpet.core.mpi import SiteSet

SITE_FILE = Path("/etc/limpet/config.toml")
_TABLES: dict[str, type] = {"systems": System, "mpi": SiteSet}
_VARIABLES = {"cache_dir": "LIMPET_CACHE_DIR", "build_dir": "LIMPET_BUILD_DIR"}
_VARIABLES |= {"cache_max": "LIMPET_CACHE_MAX"}
_VARIABLES |= {"state_dir": "LIMPET_STATE_DIR", "base": "LIMPET_BASE"}


def read_config(chosen: str = "", *, site_file: Path = SITE_FILE) -> Config:
    """The settings in force: a later file's word wins, then `LIMPET_*` variables.

    `chosen` (`--config FILE`) is read last and must exist, as must $LIMPET_CONFIG.
    """
    merged: dict[str, Any] = {}
    for path, required in _files(chosen, site_file):
        found = _read(path, required=required)
        tables = {name: merged.get(name, {}) | found.get(name, {}) for name in _TABLES}
        merged |= found | {name: table for name, table in tables.items() if table}
    for key, variable in _VARIABLES.items():
        if os.environ.get(variable):
            merged[key] = os.environ[variable]
    return msgspec.convert(merged, Config)


def _files(chosen: str, site_file: Path) -> Iterator[tuple[Path, bool]]:
    yield site_file, False
    if os.environ.get("LIMPET_CONFIG"):
        yield Path(os.environ["LIMPET_CONFIG"]).expanduser(), True
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    own = Path(folder) if folder.startswith("/") else Path(os.environ.get("HOME") or "/", ".config")
    yield own / "limpet" / "config.toml", False
    if chosen:
        yield Path(chosen), True


def _read(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if required:
            raise UsageError(f"There is no configuration file {path}.") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, PermissionError) and not required:
            return {}
        raise UsageError(
            f"The configuration file {path} cannot be read.", why=str(error)
        ) from error
    import tomllib  # most users have no configuration file

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The configuration file {path} is no TOML.", why=str(error)) from error
    _check_keys(path, "", values, Config)
    for kind, known in _TABLES.items():
        tables = values.get(kind, {})
        for name, table in tables.items() if isinstance(tables, dict) else ():
            if isinstance(table, dict):
                _check_keys(path, f"{kind}.{name}.", table, known)
    if values.get("cache_max") and isinstance(values["cache_max"], str):
        parse_size(values["cache_max"], f"The configuration file {path}: cache_max")
    try:
        msgspec.convert(values, Config)
    except msgspec.ValidationError as error:
        why = re.sub(r"\$\.?", "", str(error))
        raise UsageError(f"The configuration file {path} has a wrong value.", why=why) from error
    return values


def _check_keys(path: Path, prefix: str, values: dict[str, Any], known: type) -> None:
    names = known.__struct_fields__  # type: ignore[attr-defined]
    for key in values:
        if key in names:
            continue
        import difflib  # only on the way to an error

        near = difflib.get_close_matches(key, names, n=1)
        raise UsageError(
            f"The configuration file {path} has an unknown key: {prefix}{key}.",
            why=f"The keys are: {', '.join(names)}.",
            now=f"Did you mean {prefix}{near[0]}?" if near else "",
        )
