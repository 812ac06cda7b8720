"""`limpet kept`."""

from __future__ import annotations

import sys

import click

from limpet.cli.main import Group
from limpet.cli.session import Session, pass_session


@click.group(cls=Group)
def kept() -> None:
    """Images that stay mounted on this node for further starts."""


@kept.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@pass_session
def list_(session: Session, /, as_json: bool) -> None:
    """Which they are, and how long each stays after its last program."""
    from limpet.actions.keep import list_kept
    from limpet.report.kept import render_json, render_kept

    found = list_kept(config_file=session.config_file)
    sys.stdout.write(render_json(found) if as_json else render_kept(found))


@kept.command()
@click.argument("images", nargs=-1)
@pass_session
def end(session: Session, /, images: tuple[str, ...]) -> None:
    """End those of IMAGES, or all; programs that run in them are ended too."""
    from limpet.actions.keep import end_kept
    from limpet.report.kept import render_ended

    sys.stdout.write(render_ended(end_kept(images, config_file=session.config_file)))
