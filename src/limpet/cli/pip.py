"""`limpet pip`."""

from __future__ import annotations

import sys
from typing import Any

import click

from limpet.cli.build import lock_options, make_request, progress_form
from limpet.cli.launch import start_in
from limpet.cli.session import Session, pass_session
from limpet.core.errors import UsageError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--home",
    type=click.Choice(["isolated", "private", "none", "host"]),
    help="As with limpet run.",
)
@click.option("-B", "--bind", multiple=True, metavar="SRC[:DST[:ro]]", help="Mount inside.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Pass or set.")
@click.option("--system", default="", metavar="NAME", help="A preset of the configuration.")
@click.option("--dry-run", is_flag=True, help="Print the exact command, start nothing.")
@click.argument("image")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND [ARGUMENT]...")
@pass_session
def pip(session: Session, /, image: str, words: tuple[str, ...], **flags: Any) -> None:
    """Add packages to IMAGE for yourself alone, without changing it.

    COMMAND is pip's: install, uninstall, list, freeze, show … The packages go into this image's own
    folder and are held to the versions that the image has (install --override lifts that).
    `promote [RECIPE]` writes them into the recipe and its lock, for the next build.
    """
    if not words:
        raise UsageError(
            "There is no command for pip.", now="Write: limpet pip IMAGE install NAME."
        )
    if words[0] == "promote":
        session.command = "promote"
        name = f"limpet pip {image} promote"
        promote.main([image, *words[1:]], prog_name=name, standalone_mode=False, obj=session)
        return
    from limpet.actions.pip import plan_words

    given: dict[str, Any] = {
        "variables": None,
        "gpu": "none",
        "mpi": "none",
        "overlay": (),
        "pwd": "",
    }
    given |= {"writable_tmpfs": False, "explain": False}
    start_in(session, image, {**given, **flags}, command=plan_words(words))


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
