"""`limpet overlay …`."""

from __future__ import annotations

import sys

import click

from limpet.cli.main import Group
from limpet.cli.session import Session, pass_session


@click.group(cls=Group)
def overlay() -> None:
    """Writable layers over images: kept between runs, laid over by `run --overlay NAME`.

    An overlay is named, and kept with the image's other personal folders, or lies at a PATH of your
    own, on a scratch file system for instance.
    """


@overlay.command()
@click.argument("image")
@click.argument("name", metavar="[NAME|PATH]", default="")
@click.option("--size", default="", metavar="SIZE", help="A file that can hold this much: 4G.")
@click.option("--dir", "folder", is_flag=True, help="A folder, with no limit of its own.")
@pass_session
def create(session: Session, image: str, name: str, size: str, folder: bool) -> None:
    """Make an overlay for IMAGE; without a name it is called `default`."""
    from limpet.actions.overlay import create_overlay
    from limpet.report.overlay import render_created

    made = create_overlay(image, name, size=size, folder=folder, config_file=session.config_file)
    if session.verbosity >= 0:
        sys.stdout.write(render_created(made, image))


@overlay.command()
@click.argument("image")
@click.argument("name", metavar="[NAME|PATH]", default="")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
@pass_session
def info(session: Session, image: str, name: str, as_json: bool) -> None:
    """Say which overlays IMAGE has, how full they are, and whether they are in use."""
    from limpet.actions.overlay import list_overlays

    found = list_overlays(image, name, config_file=session.config_file)
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    else:
        from limpet.report.overlay import render_overlays

        sys.stdout.write(render_overlays(found))


@overlay.command()
@click.argument("image")
@click.argument("name", metavar="NAME|PATH")
@click.option("--size", required=True, metavar="SIZE", help="The new size: 8G, or +4G more.")
@pass_session
def grow(session: Session, image: str, name: str, size: str) -> None:
    """Make an overlay file larger; what is in it stays."""
    from limpet.actions.overlay import grow_overlay
    from limpet.report.overlay import render_overlays

    grown = grow_overlay(image, name, size=size, config_file=session.config_file)
    sys.stdout.write(render_overlays([grown]))


@overlay.command()
@click.argument("image")
@click.argument("name", metavar="NAME|PATH")
@click.option("--repair", is_flag=True, help="Mend even where that may lose something.")
@pass_session
def check(session: Session, image: str, name: str, repair: bool) -> None:
    """Check an overlay file that is not in use, and mend what is safe to mend."""
    from limpet.actions.overlay import check_overlay
    from limpet.report.overlay import render_checked

    found, mended, said = check_overlay(image, name, repair=repair, config_file=session.config_file)
    sys.stdout.write(render_checked(found, said if mended else ""))


@overlay.command()
@click.argument("image")
@click.argument("name", metavar="NAME|PATH")
@pass_session
def remove(session: Session, image: str, name: str) -> None:
    """Remove an overlay of IMAGE with all that was written to it."""
    from limpet.actions.overlay import remove_overlay
    from limpet.report.text import safe

    gone = remove_overlay(image, name, config_file=session.config_file)
    sys.stdout.write(f"Removed {safe(gone.path)}.\n")
