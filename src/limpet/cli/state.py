"""`limpet state`."""

from __future__ import annotations

import sys

import click

from limpet.cli.main import Group
from limpet.cli.session import Session, pass_session


@click.group(cls=Group)
def state() -> None:
    """What images keep for you on the disk: personal packages, caches, settings."""


@state.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@pass_session
def list_(session: Session, /, as_json: bool) -> None:
    """All images that keep something: how much, how old, and whether the image is still there."""
    from limpet.actions.state import list_state
    from limpet.report.state import render_json, render_list

    kept = list_state(config_file=session.config_file)
    sys.stdout.write(render_json(kept) if as_json else render_list(kept))


@state.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@pass_session
def show(session: Session, /, images: tuple[str, ...], as_json: bool) -> None:
    """All there is to say of what IMAGES (paths or names) keep."""
    from limpet.actions.state import list_state
    from limpet.report.state import render_json, render_kept

    kept = list_state(images, config_file=session.config_file)
    sys.stdout.write(render_json(kept) if as_json else "\n".join(map(render_kept, kept)))


@state.command()
@click.argument("images", nargs=-1)
@click.option("--older-than", default="", metavar="AGE", help="Not used for 30d, 12h, 2w …")
@click.option("--gone", is_flag=True, help="Where the image is no longer where it was.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, remove nothing.")
@pass_session
def clean(
    session: Session, /, images: tuple[str, ...], older_than: str, gone: bool, dry_run: bool
) -> None:
    """Remove what IMAGES keep. Nothing is removed that was not asked for."""
    from limpet.actions.state import clean_state
    from limpet.report.state import render_cleaned

    cleaned = clean_state(
        images,
        older_than=older_than,
        gone=gone,
        dry_run=dry_run,
        config_file=session.config_file,
    )
    sys.stdout.write(render_cleaned(cleaned))
