"""`limpet sbatch`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from limpet.cli.session import Session, pass_session


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="",
)
@click.argument("image", metavar="IMAGE|DIR")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS] -- COMMAND…")
@pass_session
def sbatch(session: Session, /, image: str, words: tuple[str, ...]) -> None:
    """Write a job script that starts COMMAND in IMAGE (or by the launchers in DIR) with srun.

    Options, after IMAGE:

    \b
      -o, --script FILE      Write the script here; else it is printed.
      --submit               Submit it.
      --stage, --no-stage    Copy the image to the nodes' disks first; from 3 nodes on by default.
      --stage-to DIR         A folder on each node, where the site names none.
      --mpi KIND             srun's --mpi; else what the image's MPI needs.
      --force                Replace FILE.

    All others are sbatch's: --nodes 4 --ntasks-per-node 16 --time 1:00:00 …
    """
    from limpet.actions.sbatch import make_script, submit, write_script
    from limpet.core.sbatch import parse_batch

    batch = parse_batch(words)
    text = make_script(image, batch, config_file=session.config_file, cache_dir=session.cache_dir)
    if batch.script:
        write_script(Path(batch.script), text, force=batch.force)
    if batch.submit:
        sys.stdout.write(f"{submit(text)}\n")
    elif not batch.script:
        sys.stdout.write(text)
