"""`limpet wrap`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from limpet.cli.launch_options import launch_options, read_request
from limpet.cli.session import Session, pass_session

if TYPE_CHECKING:
    from limpet.core.wrap import WrapReport


@click.command()
@click.argument("image")
@click.argument("folder", metavar="DIR")
@click.option("--only", multiple=True, metavar="NAME", help="These programs alone (or patterns).")
@click.option("--except", "excluded", multiple=True, metavar="NAME", help="All but these.")
@click.option("--folder", "folders", multiple=True, metavar="PATH", help="Programs of this folder.")
@click.option("--host", is_flag=True, help="Let the host's folders and commands be seen inside.")
@click.option("--copy", is_flag=True, help="Keep the image in DIR (a hard link where possible).")
@click.option("--sources", is_flag=True, help="Put the Python sources in DIR, for editors.")
@click.option(
    "--kernel", is_flag=False, flag_value="-", default="", metavar="[NAME]", help="For Jupyter."
)
@click.option(
    "--module", is_flag=False, flag_value="-", default="", metavar="[FILE]", help="Lmod or Tcl."
)
@launch_options("home", "variables")
@click.option("--mpi", default="", metavar="host|none|NAME", help="As in run, decided now.")
@launch_options("gpu", "bind", "env", "overlay", "writable_tmpfs", "pwd", "system")
@click.option("--force", is_flag=True, help="Also into a folder that holds something else.")
@click.option("--dry-run", is_flag=True, help="Say what would be made.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@pass_session
def wrap(session: Session, /, image: str, folder: str, **flags: Any) -> None:
    """Make launchers in DIR/bin for the programs in IMAGE."""
    from limpet.actions.wrap import wrap_image
    from limpet.core.wrap import WrapRequest

    default = "".join(c if c.isascii() and c.isalnum() else "-" for c in Path(image).stem)
    title = default.strip("-") or "limpet"
    request = WrapRequest(
        only=flags["only"],
        excluded=flags["excluded"],
        folders=flags["folders"],
        host=flags["host"],
        copy=flags["copy"],
        sources=flags["sources"],
        kernel=title if flags["kernel"] == "-" else flags["kernel"],
        module=_module(flags["module"], title),
        launch=read_request(
            flags, variables=flags["variables"] or ("host" if flags["host"] else None)
        ),
    )
    report = wrap_image(
        image,
        Path(folder),
        request,
        config_file=session.config_file,
        system=flags["system"],
        force=flags["force"],
        dry_run=flags["dry_run"],
    )
    tell_wrap(session, report, as_json=flags["as_json"])


def _module(given: str, title: str) -> str:
    """Without a name, in DIR itself: `module use DIR/modules` finds it there."""
    if given == "-":
        return f"modules/{title}.lua"
    return str(Path(given).absolute()) if given else ""


def tell_wrap(session: Session, report: WrapReport, *, as_json: bool) -> None:
    """Say what was made."""
    from limpet.report.wrap import render_wrap, render_wrap_json

    if as_json:
        sys.stdout.write(render_wrap_json(report))
    elif session.verbosity >= 0:
        sys.stdout.write(render_wrap(report))
