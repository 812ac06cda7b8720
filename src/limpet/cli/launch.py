"""`limpet run` and `limpet shell`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from limpet.cli.session import Session, pass_session

if TYPE_CHECKING:
    from limpet.core.launch import Launch
    from limpet.core.seen import Request

Command = Callable[..., Any]

_OPTIONS = (
    click.option(
        "--home",
        type=click.Choice(["isolated", "private", "none", "host"]),
        help="What is seen as the home; isolated: yours, but with caches and settings apart.",
    ),
    click.option(
        "--variables",
        type=click.Choice(["clean", "host", "strict"]),
        help="Which environment variables pass; clean: what a job needs.",
    ),
    click.option(
        "--gpu",
        type=click.Choice(["auto", "none", "nvidia", "amd"]),
        help="Which GPUs are handed in; auto: those that are here.",
    ),
    click.option(
        "--mpi",
        default="",
        metavar="auto|image|host|none|NAME",
        help="Whose MPI is used; auto: the image's where it fits the launcher, else the host's.",
    ),
    click.option("-B", "--bind", multiple=True, metavar="SRC[:DST[:ro]]", help="Mount inside."),
    click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Pass or set."),
    click.option(
        "--overlay", multiple=True, metavar="NAME|PATH[:ro]", help="Lay over the image, to write."
    ),
    click.option("--writable-tmpfs", is_flag=True, help="Let writes go to memory (a few MB)."),
    click.option("--pwd", default="", metavar="DIR", help="Start in this folder inside."),
    click.option("--system", default="", metavar="NAME", help="A preset of the configuration."),
    click.option("--no-answers", is_flag=True, help="Say nothing about failures."),
    click.option("--dry-run", is_flag=True, help="Print the exact command, start nothing."),
    click.option("--explain", is_flag=True, help="Say what would be done and why; start nothing."),
)


def _launch_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_launch_options
@click.option("--keep", is_flag=True, help="Leave the image mounted here for further starts.")
@click.option("--keep-for", default="", metavar="TIME", help="The same, for 90s, 15m, 2h …")
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_session
def run(session: Session, /, image: str, command: tuple[str, ...], **flags: Any) -> None:
    """Run COMMAND in IMAGE; its exit code is passed on."""
    start_in(session, image, flags, command=command)


@click.command()
@_launch_options
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
    request = _request(session, flags, {**what, "keep": lifetime_s > 0})
    launch = plan_start(image, request, config_file=session.config_file, system=flags["system"])
    if flags["dry_run"] or flags["explain"]:
        from limpet.report.launch import render_command, render_explanation

        if flags["explain"]:
            sys.stdout.write(render_explanation(launch, _loaded(session, image, request, launch)))
        if flags["dry_run"]:
            sys.stdout.write(render_command(launch, os.environ))
        return
    told = settle(launch)
    make_ready(launch)
    if lifetime_s:
        from limpet.actions.keep import keep

        launch = keep(launch, lifetime_s)
    notes = (*launch.notes, *told)
    if session.verbosity >= 0:
        from limpet.report.text import safe

        for note in notes:
            sys.stderr.write(f"limpet: {safe(note)}\n")
    sys.stderr.flush()
    quiet = flags.get("no_answers") or session.verbosity < 0
    start(launch, answers=not quiet and wants_answers(launch, request))


def _lifetime_s(flags: dict[str, Any]) -> int:
    """How long the image is to be kept mounted; 0: not at all."""
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


def _request(session: Session, flags: dict[str, Any], what: dict[str, Any]) -> Request:
    from limpet.core.seen import Request

    return Request(
        home=flags["home"],
        variables=flags["variables"],
        gpu=flags["gpu"],
        mpi=flags["mpi"],
        env=flags["env"],
        binds=flags["bind"],
        overlays=flags["overlay"],
        writable_tmpfs=flags["writable_tmpfs"],
        pwd=flags["pwd"],
        verbose=session.verbosity > 0,
        **what,
    )
