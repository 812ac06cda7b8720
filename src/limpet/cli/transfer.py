"""`limpet push`, `limpet pull`, and the part of `limpet export` that makes container images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from limpet.cli.build import progress_form
from limpet.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.core.transfer import Transfer

_COMPRESSION = click.option(
    "--compression",
    type=click.Choice(["gzip", "zstd"]),
    default="gzip",
    show_default=True,
    help="docker://: of the layer that is added.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Progress and result as JSON lines.")


@click.command()
@click.argument("image", metavar="IMAGE")
@click.argument("reference", metavar="REF")
@_COMPRESSION
@_JSON
@pass_session
def push(session: Session, image: str, reference: str, compression: str, as_json: bool) -> None:
    """Push IMAGE to a registry.

    To oras://HOST/NAME:TAG as the SIF that it is; to docker://HOST/NAME:TAG as a container image.
    """
    if reference.startswith("docker://"):
        push_container(session, image, reference, compression, as_json=as_json)
        return
    from limpet.actions.transfer import push_sif

    def work(notify: Any) -> Transfer:
        return push_sif(image, reference, config_file=session.config_file, notify=notify)

    _do(session, work, as_json=as_json)


@click.command()
@click.argument("reference", metavar="REF")
@click.option("-o", "--output", required=True, metavar="FILE", help="The image to write.")
@click.option("--key", default="", metavar="FILE", help="A public key (PEM) it must be signed by.")
@click.option("--force", is_flag=True, help="Replace the output if it is there.")
@_JSON
@pass_session
def pull(
    session: Session, reference: str, output: str, key: str, force: bool, as_json: bool
) -> None:
    """Fetch the SIF at oras://HOST/NAME:TAG, with its digest and its signature checked."""
    from limpet.actions.build import check_output
    from limpet.actions.transfer import pull_sif

    path = Path(output).absolute()
    check_output(path, force=force)

    def work(notify: Any) -> Transfer:
        return pull_sif(
            reference,
            path,
            key=key,
            force=force,
            config_file=session.config_file,
            notify=notify,
        )

    _do(session, work, as_json=as_json)


def push_container(
    session: Session, image: str, reference: str, compression: Any, *, as_json: bool = False
) -> None:
    """Push an image for container engines."""
    from limpet.actions.container_image import push_image

    def work(notify: Any) -> Transfer:
        return push_image(
            image,
            reference,
            compression=compression,
            cache_dir=session.cache_dir,
            config_file=session.config_file,
            notify=notify,
        )

    _do(session, work, as_json=as_json)


def write_layout(session: Session, flags: dict[str, Any]) -> None:
    """`limpet export IMAGE --to oci -o DIR`."""
    from limpet.actions import container_image

    def work(notify: Any) -> Transfer:
        return container_image.write_layout(
            flags["source"],
            Path(flags["output"]).absolute(),
            compression=flags["compression"],
            force=flags["force"],
            cache_dir=session.cache_dir,
            config_file=session.config_file,
            notify=notify,
        )

    _do(session, work, as_json=False)


def _do(session: Session, work: Callable[[Any], Transfer], *, as_json: bool) -> None:
    from limpet.report.progress import shown

    form, stream = progress_form(session, as_json=as_json)
    with shown(form, stream) as notify:
        done = work(notify)
    if as_json:
        from limpet.report.result import render_json

        sys.stdout.write(render_json(done))
    elif session.verbosity >= 0:
        from limpet.report.transfer import render_transfer

        sys.stdout.write(render_transfer(done))
