"""`limpet run` and `limpet shell`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from limpet.cli.launch_options import launch_options, read_request
from limpet.cli.session import Session, pass_session
from limpet.core.errors import UsageError

if TYPE_CHECKING:
    from limpet.core.launch import Launch
    from limpet.core.seen import Request


@click.command(context_settings={"allow_interspersed_args": False})
@launch_options()
@click.option("--keep", is_flag=True, help="Leave the image mounted here for further starts.")
@click.option("--keep-for", default="", metavar="TIME", help="The same, for 90s, 15m, 2h …")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_session
def run(session: Session, /, image: str, command: tuple[str, ...], **flags: Any) -> None:
    """Run COMMAND in IMAGE; its exit code is passed on.

    Options stand before IMAGE: what follows it is the command's own.
    """
    command = command[1:] if command[:1] == ("--",) else command
    if command and command[0].startswith("-"):
        raise UsageError(
            f"{command[0]} stands where the command should.",
            now="Options stand before the image: limpet run --home none IMAGE COMMAND…",
        )
    start_in(session, image, flags, command=command)


@click.command()
@launch_options()
@click.argument("image")
@pass_session
def shell(session: Session, /, image: str, **flags: Any) -> None:
    """An interactive shell in IMAGE."""
    start_in(session, image, flags, shell=True)


def start_in(session: Session, image: str, flags: dict[str, Any], **what: Any) -> None:
    """Plan a start, say what there is to say of it, and become it."""
    from limpet.actions.launch import make_ready, plan_start, start, wants_answers
    from limpet.actions.settle import settle

    lifetime_s = _lifetime_s(flags)
    request = read_request(flags, alone=lifetime_s > 0, verbose=session.verbosity > 0, **what)
    launch = plan_start(image, request, config_file=session.config_file, system=flags["system"])
    if flags["dry_run"] or flags.get("explain"):
        from limpet.report.launch import render_command, render_explanation

        if flags.get("explain"):
            sys.stdout.write(render_explanation(launch, _loaded(session, image, request, launch)))
        if flags["dry_run"]:
            sys.stdout.write(render_command(launch, os.environ))
        return
    told = settle(launch)
    make_ready(launch)
    if not lifetime_s and "keep" in flags and os.environ.get("LIMPET_KEEP"):
        from limpet.actions.keep import wished_lifetime

        lifetime_s = wished_lifetime(launch)
    if lifetime_s:
        from limpet.actions.keep import keep

        launch = keep(launch, lifetime_s)
    notes = (*launch.notes, *told)
    if notes and session.verbosity >= 0:
        from limpet.report.text import safe

        for note in notes:
            sys.stderr.write(f"limpet: {safe(note)}\n")
    sys.stderr.flush()
    quiet = flags.get("no_answers") or session.verbosity < 0
    start(launch, answers=not quiet and wants_answers(launch, request))


def _lifetime_s(flags: dict[str, Any]) -> int:
    """How long the command line wants the image kept mounted; 0: it does not say."""
    if not (flags.get("keep") or flags.get("keep_for")):
        return 0
    from limpet.core.keep import DEFAULT_LIFETIME_S, parse_lifetime

    return parse_lifetime(flags["keep_for"]) if flags["keep_for"] else DEFAULT_LIFETIME_S


def _loaded(session: Session, image: str, request: Request, launch: Launch) -> str:
    """What a look inside says that mpi4py loads, where MPI plays a part in this start."""
    if not launch.mpi.loads:
        return ""
    from limpet.actions.mpi import ask_loaded

    return ask_loaded(image, request, config_file=session.config_file)
