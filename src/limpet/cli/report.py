"""`limpet report`."""

from __future__ import annotations

from pathlib import Path

import click

from limpet.cli.session import Session, pass_session


@click.command()
@click.argument("image")
@click.argument("image2", required=False, default="")
@click.option("-o", "--output", default="", metavar="FILE", help="The page; IMAGE.html by default.")
@click.option(
    "--imports", "statement", default="", metavar="CODE", help="Time this: 'import numpy, scipy'."
)
@click.option("--no-start", is_flag=True, help="Only read the file; start nothing in it.")
@click.option("--timeout", default=300.0, metavar="SECONDS", help="For what is started.")
@click.option("--force", is_flag=True, help="Replace the page if it is there.")
@pass_session
def report(
    session: Session,
    image: str,
    image2: str,
    output: str,
    statement: str,
    no_start: bool,
    timeout: float,
    force: bool,
) -> None:
    """Write one page on IMAGE: sizes, import time, reasons, licences; with IMAGE2 the difference.

    The page is one HTML file that needs no network. Python packages that the recipe asks for are
    imported in the image to time and check them, unless --no-start is given.
    """
    from limpet.actions.report import check_output, make_report, write_page

    place = Path(output or f"{Path(image.rstrip('/')).name.removesuffix('.sif')}.html").absolute()
    check_output(place, force=force)
    if session.verbosity >= 0 and not no_start:
        click.echo(
            "Starting the image to time and check its imports (--no-start: don't).", err=True
        )
    made = make_report(
        [image, image2] if image2 else [image],
        statement=statement,
        starts=not no_start,
        timeout_s=timeout,
        config_file=session.config_file,
    )
    from limpet.report.page import render_page

    write_page(render_page(made), place, force=force)
    if session.verbosity >= 0:
        from limpet.report.text import safe

        click.echo(safe(f"Wrote {place}"), err=True)
