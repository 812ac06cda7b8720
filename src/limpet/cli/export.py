"""`limpet export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

# Not taken from limpet.core.conda_export: `limpet --help` must not load that.
FORMS = ("conda-explicit", "environment", "conda-lock", "pixi", "requirements")


@click.command()
@click.argument("source", metavar="RECIPE|LOCK|IMAGE")
@click.option("--to", "form", type=click.Choice(FORMS), required=True, help="Whose format.")
@click.option("-o", "--output", default="", metavar="FILE", help="Write it there, not to stdout.")
@click.option("--force", is_flag=True, help="Replace the output if it is there.")
def export(source: str, form: Any, output: str, force: bool) -> None:
    """Write what is locked in the format of conda, conda-lock, pixi or pip."""
    from limpet.actions.export import export_lock, write_export

    text = export_lock(source, form)
    if output:
        write_export(text, Path(output).absolute(), force=force)
    else:
        sys.stdout.write(text)
