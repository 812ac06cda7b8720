"""The table of advice: limpet's own, and a site's."""

from __future__ import annotations

import tomllib
from importlib.resources import files as resources
from pathlib import Path

from limpet.core.advice import Table, join_tables, parse_table
from limpet.core.errors import UsageError

OWN = "limpet/data/advice.toml"


def read_table(site: str = "") -> Table:
    """limpet's rows, with those of the site's file before them or in their place."""
    text = (resources("limpet") / "data" / "advice.toml").read_text("utf-8")
    own = parse_table(tomllib.loads(text), OWN)
    return join_tables(own, [_read(Path(site).expanduser())] if site else [])


def _read(path: Path) -> Table:
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The table of advice {path} cannot be read.", why=str(error)) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The table of advice {path} is no TOML.", why=str(error)) from error
    return parse_table(raw, str(path))
