"""`limpet cache`."""

from __future__ import annotations

import sys
from typing import Any

import click

from limpet.cli.main import Group
from limpet.cli.session import Session, pass_session

_as_json = click.option("--json", "as_json", is_flag=True, help="As one JSON object.")


@click.group(cls=Group)
def cache() -> None:
    """What builds keep on the disk: bases, pieces, downloads."""


@cache.command()
@_as_json
@pass_session
def info(session: Session, /, as_json: bool) -> None:
    """How much there is of each kind, and the bound."""
    from limpet.actions.cache import see_cache
    from limpet.report.cache import render_info, render_json

    seen = see_cache(**_where(session))
    sys.stdout.write(render_json(seen) if as_json else render_info(seen))


@cache.command(name="list")
@_as_json
@pass_session
def list_(session: Session, /, as_json: bool) -> None:
    """Everything in the cache, the largest first, and when it was last used."""
    from limpet.actions.cache import see_cache
    from limpet.report.cache import render_json, render_list

    seen = see_cache(**_where(session))
    sys.stdout.write(render_json(seen) if as_json else render_list(seen))


@cache.command()
@click.argument("kinds", nargs=-1, metavar="[base|piece|download|order|other]...")
@click.option("--max-size", default="", metavar="SIZE", help="Keep that much: 500M, 20G.")
@click.option("--older-than", default="", metavar="AGE", help="Not used for 30d, 12h, 2w …")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, remove nothing.")
@_as_json
@pass_session
def clean(session: Session, /, kinds: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Remove what was not used for longest. Images do not need the cache."""
    from limpet.actions.cache import clean_cache
    from limpet.report.cache import render_cleaned, render_json

    cleaned = clean_cache(kinds, **_where(session), **flags)
    sys.stdout.write(render_json(cleaned) if as_json else render_cleaned(cleaned))


@cache.command()
@_as_json
@pass_session
def verify(session: Session, /, as_json: bool) -> None:
    """Read everything and remove what is damaged; the next build makes it again."""
    from limpet.actions.cache import verify_cache
    from limpet.report.cache import render_json, render_verified

    verified = verify_cache(**_where(session))
    sys.stdout.write(render_json(verified) if as_json else render_verified(verified))


def _where(session: Session) -> dict[str, Any]:
    return {"cache_dir": session.cache_dir, "config_file": session.config_file}
