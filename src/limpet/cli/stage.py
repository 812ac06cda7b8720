"""`limpet stage`."""

from __future__ import annotations

import sys

import click

from limpet.cli.session import Session, pass_session
from limpet.core.errors import UsageError


@click.command()
@click.argument("image", metavar="IMAGE|DIR", default="")
@click.option("--compress", is_flag=True, help="On the way: for images that are not compressed.")
@click.option("--clean", is_flag=True, help="Remove this job's copies from its nodes.")
@click.option(
    "--path", is_flag=True, help="Print what to use from now on: the copy of DIR or IMAGE."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@pass_session
def stage(
    session: Session, image: str, compress: bool, clean: bool, path: bool, as_json: bool
) -> None:
    """Copy IMAGE, or launchers in DIR and their image, to the disks of all nodes of this Slurm job.

    Later starts of the image in the job use the copy of their node; the copy of the launchers is
    where --path says. A node whose disk is too small goes on with the shared file, and a line says
    so.
    """
    from limpet.actions.stage import clean_stage, stage_folder
    from limpet.report.slurm import render_path, render_staged

    if clean == bool(image):
        raise UsageError("Name an image, or say --clean.", now="limpet stage --help")
    if clean:
        clean_stage()
        return
    staged = stage_folder(image, compress=compress)
    if as_json:
        from limpet.report.result import render_json

        sys.stdout.write(render_json(staged))
        return
    if path:
        sys.stdout.write(render_path(staged))
    if staged.fallback or staged.launchers_fallback or session.verbosity >= 0:
        sys.stderr.write(render_staged(staged))
