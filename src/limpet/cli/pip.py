"""`limpet pip`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from limpet.cli.build import lock_options, make_request, progress_form
from limpet.cli.launch import start_in
from limpet.cli.launch_options import launch_options
from limpet.cli.session import Session, pass_session
from limpet.core.errors import UsageError


@click.command(context_settings={"allow_interspersed_args": False})
@launch_options("home", "bind", "env", "system", "dry_run")
@click.argument("image")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND [ARGUMENT]...")
@pass_session
def pip(session: Session, /, image: str, words: tuple[str, ...], **flags: Any) -> None:
    """Add packages to IMAGE for yourself alone, without changing it.

    COMMAND is pip's: install, uninstall, list, freeze, show … The packages go into this image's own
    folder and are held to the versions that the image has (install --override lifts that).
    `promote [RECIPE]` writes them into the recipe and its lock, for the next build.
    """
    if not words or (image in ("install", "uninstall", "list") and not Path(image).exists()):
        what = f"{image} is no image." if words else "There is no command for pip."
        raise UsageError(what, now="Write: limpet pip IMAGE install NAME.")
    if words[0] == "promote":
        session.command = "promote"
        name = f"limpet pip {image} promote"
        promote.main([image, *words[1:]], prog_name=name, standalone_mode=False, obj=session)
        return
    from limpet.actions.pip import plan_words

    without = {"gpu": "none", "mpi": "none"}
    start_in(session, image, {**without, **flags}, command=plan_words(words))


@click.command()
@click.argument("image", metavar="")
@click.argument("recipes", nargs=-1, metavar="[RECIPE]")
@lock_options
@pass_session
def promote(session: Session, /, image: str, **flags: Any) -> None:
    """Write the image's personal packages into RECIPE and lock it anew."""
    as_json = flags.pop("as_json")
    request = make_request(session, flags)
    from limpet.actions.promote import promote as act
    from limpet.report.pip import render_promoted
    from limpet.report.progress import shown
    from limpet.report.result import render_json

    form, stream = progress_form(session, as_json=as_json)
    with shown(form, stream) as notify:
        done = act(image, request, notify)
    if as_json:
        sys.stdout.write(render_json(done))
    elif session.verbosity >= 0:
        sys.stdout.write(render_promoted(done))
