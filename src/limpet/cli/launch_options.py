"""How a start is asked for: the options of `run`, `shell`, `pip` and `wrap`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from limpet.core.seen import Request

Command = Callable[..., Any]

_OPTIONS = {
    "home": click.option(
        "--home",
        type=click.Choice(["isolated", "private", "none", "host"]),
        help="What is seen as the home; isolated: yours, but with caches and settings apart.",
    ),
    "variables": click.option(
        "--variables",
        type=click.Choice(["clean", "host", "strict"]),
        help="Which environment variables pass; clean: what a job needs.",
    ),
    "gpu": click.option(
        "--gpu",
        type=click.Choice(["auto", "none", "nvidia", "amd"]),
        help="Which GPUs are handed in; auto: those that are here.",
    ),
    "mpi": click.option(
        "--mpi",
        default="",
        metavar="auto|image|host|none|NAME",
        help="Whose MPI is used; auto: the image's where it fits the launcher, else the host's.",
    ),
    "bind": click.option(
        "-B", "--bind", multiple=True, metavar="SRC[:DST[:ro]]", help="Mount inside."
    ),
    "env": click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Pass or set."),
    "overlay": click.option(
        "--overlay", multiple=True, metavar="NAME|PATH[:ro]", help="Lay over the image, to write."
    ),
    "writable_tmpfs": click.option(
        "--writable-tmpfs", is_flag=True, help="Let writes go to memory (a few MB)."
    ),
    "pwd": click.option("--pwd", default="", metavar="DIR", help="Start in this folder inside."),
    "system": click.option(
        "--system", default="", metavar="NAME", help="A preset of the configuration."
    ),
    "no_answers": click.option("--no-answers", is_flag=True, help="Say nothing about failures."),
    "dry_run": click.option(
        "--dry-run", is_flag=True, help="Print the exact command, start nothing."
    ),
    "explain": click.option(
        "--explain", is_flag=True, help="Say what would be done and why; start nothing."
    ),
}


def launch_options(*names: str) -> Callable[[Command], Command]:
    """Give a command these options of a start; all of them if none is named."""

    def decorate(command: Command) -> Command:
        for name in reversed(names or tuple(_OPTIONS)):
            command = _OPTIONS[name](command)
        return command

    return decorate


def read_request(flags: Mapping[str, Any], **what: Any) -> Request:
    """The start that these flags ask for; `what` adds to them, or says otherwise."""
    from limpet.core.seen import Request

    given = {
        "home": flags.get("home"),
        "variables": flags.get("variables"),
        "gpu": flags.get("gpu"),
        "mpi": flags.get("mpi", ""),
        "env": flags["env"],
        "binds": flags["bind"],
        "overlays": flags.get("overlay", ()),
        "writable_tmpfs": flags.get("writable_tmpfs", False),
        "pwd": flags.get("pwd", ""),
    }
    return Request(**{**given, **what})
