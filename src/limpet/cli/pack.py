"""`limpet pack`."""

from __future__ import annotations

import sys
from typing import Any

import click

from limpet.cli.build import name_pairs, progress_form
from limpet.cli.session import Session, pass_session


@click.command()
@click.argument("prefix", metavar="PREFIX")
@click.option("-o", "--output", required=True, metavar="IMAGE", help="The image to write.")
@click.option("--base", default="", metavar="REF", help="The base image: docker://…, a SIF, …")
@click.option(
    "--layout",
    type=click.Choice(["auto", "merged", "layered"]),
    default="auto",
    help="One part or two.",
)
@click.option("--also", multiple=True, metavar="DIR", help="Take this folder along, at its place.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set in the image.")
@click.option("--wrap", default="", metavar="DIR", help="Make launchers in DIR/bin.")
@click.option("--name", default="", metavar="NAME", help="What the image calls itself.")
@click.option("--offline", is_flag=True, help="Use only what the cache has.")
@click.option("--force", is_flag=True, help="Replace the output if it is there.")
@click.option("--dry-run", is_flag=True, help="Print the plan, change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Progress and result as JSON lines.")
@click.option("--system", default="", metavar="NAME", help="A preset of the configuration.")
@click.option("--build-dir", default="", metavar="DIR", help="Where passing files are put.")
@pass_session
def pack(session: Session, /, as_json: bool, **flags: Any) -> None:
    """Put PREFIX, an environment or other software on the disk, into one IMAGE at its own path."""
    from limpet.actions.pack import pack as do
    from limpet.core.pack import PackRequest
    from limpet.report.progress import shown

    flags["env"] = name_pairs("--env", flags["env"])
    request = PackRequest(**flags, cache_dir=session.cache_dir, config_file=session.config_file)
    form, stream = progress_form(session, as_json=as_json)
    with shown(form, stream) as notify:
        report = do(request, notify)
    if as_json:
        from limpet.report.result import render_json

        sys.stdout.write(render_json(report))
    elif session.verbosity >= 0:
        from limpet.report.pack import render_pack

        sys.stdout.write(render_pack(report))
