"""`limpet bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from limpet.cli.session import Session, pass_session


@click.command()
@click.argument("targets", metavar="IMAGE|PREFIX...", nargs=-1, required=True)
@click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="NAME",
    help="What a start imports; otherwise the packages that were asked for.",
)
@click.option("--rounds", default=5, metavar="N", help="How often each start is timed (5).")
@click.option("--processes", default=8, metavar="N", help="And so many at once (8).")
@click.option("-o", "--output", default="", metavar="FILE", help="A picture: .svg or .html.")
@click.option("--force", is_flag=True, help="Replace the output if it is there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@pass_session
def bench(
    session: Session, /, targets: tuple[str, ...], output: str, as_json: bool, **flags: Any
) -> None:
    """Count and time starts of an image or an environment's folder, or of several in turn."""
    from limpet.actions.bench import BenchRequest, check_output, write_picture
    from limpet.actions.bench import bench as do
    from limpet.report.bench import PICTURES, render_bench, render_json

    picture, force = Path(output), flags.pop("force")
    if output:
        check_output(picture, tuple(PICTURES), force=force)
    request = BenchRequest(
        targets=targets,
        config_file=session.config_file,
        cache_dir=session.cache_dir,
        **flags,
    )
    shows = session.verbosity >= 0 and sys.stderr.isatty()
    report = do(request, _tell if shows else lambda _: None)
    sys.stdout.write(render_json(report) if as_json else render_bench(report))
    if output:
        write_picture(picture, PICTURES[picture.suffix](report), force=force)


def _tell(text: str) -> None:
    from limpet.report.text import safe

    sys.stderr.write(f"limpet: {safe(text)}\n")
