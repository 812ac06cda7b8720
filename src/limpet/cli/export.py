"""`limpet export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from limpet.cli.session import Session, pass_session
from limpet.core.errors import UsageError

# Not taken from limpet.core.conda_export: `limpet --help` must not load that.
LISTS = ("conda-explicit", "environment", "conda-lock", "pixi", "requirements")
CONTAINER_FILES = ("dockerfile", "def")
FORMS = (*LISTS, *CONTAINER_FILES, "oci", "docker://HOST/NAME:TAG")


@click.command()
@click.argument("source", metavar="RECIPE|LOCK|IMAGE")
@click.option("--to", "form", required=True, metavar="FORM", help=f"One of {', '.join(FORMS)}.")
@click.option("-o", "--output", default="", metavar="FILE|DIR", help="Where, if not to stdout.")
@click.option("--force", is_flag=True, help="Replace the output if it is there.")
@click.option("--base", default="", metavar="REF", help="dockerfile, def: start from this image.")
@click.option(
    "--mpi", type=click.Choice(["mpich", "openmpi"]), help="dockerfile, def: bring this MPI."
)
@click.option(
    "--compression",
    type=click.Choice(["gzip", "zstd"]),
    default="gzip",
    show_default=True,
    help="oci, docker://: of the layer that is added.",
)
@pass_session
def export(session: Session, /, **flags: Any) -> None:
    """Write an environment for other tools.

    For conda, conda-lock, pixi or pip; as a Dockerfile or a definition file; or, from an IMAGE, as
    an OCI image: its base's layers as they are, and the environment on top as one layer.
    """
    form = flags["form"]
    if "://" in form or form == "oci":
        _export_image(session, flags)
    elif form in (*LISTS, *CONTAINER_FILES):
        _export_text(session, flags)
    else:
        import difflib

        near = difflib.get_close_matches(form, FORMS, n=1)
        raise UsageError(
            f"--to {form}: limpet does not know that form.",
            why=f"It knows {', '.join(FORMS)}.",
            now=f"Did you mean {near[0]}?" if near else "",
        )


def _export_text(session: Session, flags: dict[str, Any]) -> None:
    form = flags["form"]
    output = Path(flags["output"]).absolute() if flags["output"] else None
    if form in CONTAINER_FILES:
        from limpet.actions.export_container import export_container

        text = export_container(
            flags["source"],
            form,
            output=output,
            base=flags["base"],
            mpi=flags["mpi"] or "",
            cache_dir=session.cache_dir,
            config_file=session.config_file,
        )
    else:
        from limpet.actions.export import export_lock

        for name in ("base", "mpi"):
            if flags[name]:
                raise UsageError(f"--{name} is for --to dockerfile and --to def.")
        text = export_lock(flags["source"], form)
    if output:
        from limpet.actions.export import write_export

        write_export(text, output, force=flags["force"])
    else:
        sys.stdout.write(text)


def _export_image(session: Session, flags: dict[str, Any]) -> None:
    from limpet.cli.transfer import push_container, write_layout

    if flags["form"] == "oci":
        if not flags["output"]:
            raise UsageError("--to oci writes a folder.", now="Name it: -o DIR.")
        write_layout(session, flags)
    else:
        if flags["output"]:
            raise UsageError(f"--to {flags['form']} writes to a registry, not to -o.")
        push_container(session, flags["source"], flags["form"], flags["compression"])
