"""`limpet build` and `limpet lock`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from limpet.cli.session import Session, pass_session
from limpet.core.errors import UsageError

if TYPE_CHECKING:
    from limpet.core.request import BuildRequest
    from limpet.report.progress import Form

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


def _many(*names: str, metavar: str, help: str) -> Decorator:  # noqa: A002
    return click.option(*names, multiple=True, metavar=metavar, help=help)


def _one(*names: str, metavar: str, help: str) -> Decorator:  # noqa: A002
    return click.option(*names, default="", metavar=metavar, help=help)


# What both commands know: where the packages come from, and how they are chosen.
_LOCK_OPTIONS = (
    _many("--pip", metavar="SPEC", help="A requirement, as pip writes it."),
    _many("--conda", metavar="SPEC", help="A conda package, as conda writes it."),
    _many("--channel", "channels", metavar="NAME|URL", help="Where conda packages come from."),
    _one("--cuda", metavar="X.Y", help="The CUDA that the target's driver allows."),
    _one("--rocm", metavar="X.Y", help="The ROCm that the target has."),
    _one("--base", metavar="REF", help="The base image: docker://…, a SIF, debian:SUITE, …"),
    _one("--on", metavar="PYTHON", help="Build on this Python of the host, which stays there."),
    _one("--python", metavar="X.Y", help="Which of the base's Pythons."),
    _many("--apt", metavar="NAME", help="A package of the base's distribution."),
    _many("--extra", "extras", metavar="NAME", help="An extra of pyproject.toml or uv.lock."),
    _many("--group", "groups", metavar="NAME", help="A dependency group."),
    _one("--environment", metavar="NAME", help="An environment of a pixi workspace."),
    _many("--build-arg", "build_args", metavar="NAME=VALUE", help="Sets ${NAME} of the recipe."),
    click.option("--isolated-from-base", is_flag=True, help="Use none of the base's packages."),
    _one("--index-url", metavar="URL", help="The package index."),
    _many("--extra-index-url", "extra_index_urls", metavar="URL", help="A further index."),
    _many("--find-links", metavar="PATH|URL", help="A folder or page of packages."),
    _one("--exclude-newer", metavar="DATE", help="Nothing published after this date."),
    click.option("--upgrade", is_flag=True, help="Choose all versions anew."),
    _many("--upgrade-package", "upgrade_packages", metavar="NAME", help="Choose this one anew."),
    click.option("--offline", is_flag=True, help="Use only what the cache has."),
    click.option("--dry-run", is_flag=True, help="Print the plan, change nothing."),
    click.option("--json", "as_json", is_flag=True, help="Progress and result as JSON lines."),
    click.option(
        "-j", "--jobs", type=click.IntRange(0), default=0, metavar="N", help="Processes at once."
    ),
    _one("--system", metavar="NAME", help="A preset of the configuration."),
    _one("--build-dir", metavar="DIR", help="Where passing files are put."),
)


_force = click.option("--force", is_flag=True, help="Replace the output if it is there.")


def lock_options(command: Command) -> Command:
    """Everything that a lock depends on."""
    for option in reversed(_LOCK_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@click.option("-o", "--output", required=True, metavar="FILE", help="The image to write.")
@lock_options
@_force
@_one("--name", metavar="NAME", help="What the image calls itself.")
@_many("--label", "labels", metavar="NAME=VALUE", help="A label for the image.")
@click.option("--layout", type=click.Choice(["auto", "merged", "layered"]), help="One part or two.")
@click.option("--compression", type=click.Choice(["zstd", "gzip"]), help="How it is compressed.")
@_one("--profile", metavar="COMMAND|auto", help="What is started most: its files lie first.")
@click.option("--no-profile", is_flag=True, help="Leave files in their usual order.")
@click.option("--small", is_flag=True, help="A smaller file for archives, slower to make.")
@_one("--lock", metavar="FILE", help="The lock to read and write.")
@click.option("--frozen", is_flag=True, help="Exactly as locked, or fail.")
@pass_session
def build(session: Session, /, **flags: Any) -> None:
    """Build an image from RECIPEs: requirements, pyproject.toml, a lock, limpet.toml."""
    if flags["profile"] and flags["no_profile"]:
        raise UsageError("--profile and --no-profile exclude each other.")
    _do(session, "build", flags)


@click.command()
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@_one("-o", "--output", metavar="FILE", help="The lock to write.")
@lock_options
@_force
@_one("--freeze", metavar="IMAGE|PREFIX", help="Lock what is in this image or conda environment.")
@pass_session
def lock(session: Session, /, **flags: Any) -> None:
    """Choose exact versions and artifacts for RECIPEs, and write them down."""
    if flags["freeze"] and (flags["recipes"] or flags["pip"] or flags["conda"]):
        raise UsageError("--freeze locks what is there: it takes no recipe, --pip or --conda.")
    _do(session, "lock", flags)


def _do(session: Session, verb: str, flags: dict[str, Any]) -> None:
    as_json = flags.pop("as_json")
    sources = ("recipes", "pip", "conda", "freeze", "lock", "base", "on", "apt")
    if not any(flags.get(source) for source in sources):
        raise UsageError(
            "There is nothing to build from.",
            now="Name a recipe (requirements.in, pyproject.toml, limpet.toml …) or use --pip.",
        )
    request = make_request(session, flags)

    from limpet.actions import build as actions
    from limpet.report.progress import shown

    form, stream = progress_form(session, as_json=as_json)
    with shown(form, stream) as notify:
        report = getattr(actions, verb)(request, notify)
    if as_json:
        from limpet.report.result import render_json

        sys.stdout.write(render_json(report))
    elif session.verbosity >= 0:
        from limpet.report.result import render_result

        sys.stdout.write(render_result(report))


def make_request(session: Session, flags: dict[str, Any]) -> BuildRequest:
    """The flags as one value."""
    from limpet.core.request import BuildRequest

    given = {
        **flags,
        "build_args": name_pairs("--build-arg", flags["build_args"]),
        "labels": name_pairs("--label", flags.get("labels", ())),
        "cache_dir": session.cache_dir,
        "config_file": session.config_file,
    }
    return BuildRequest(**given)


def name_pairs(option: str, words: tuple[str, ...]) -> dict[str, str]:
    """What `NAME=VALUE` words say; UsageError for another word."""
    pairs = {}
    for word in words:
        name, given, value = word.partition("=")
        if not given or not name:
            raise UsageError(f"{option} {word}: it must be NAME=VALUE.")
        pairs[name] = value
    return pairs


def progress_form(session: Session, *, as_json: bool) -> tuple[Form, Any]:
    """How progress is shown, and where."""
    if as_json:
        return "json", sys.stdout
    if session.verbosity < 0:
        return "none", sys.stderr
    return ("bars" if sys.stderr.isatty() else "lines"), sys.stderr
