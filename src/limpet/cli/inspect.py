"""`limpet inspect`."""

from __future__ import annotations

import sys
from typing import Any

import click

from limpet.core.errors import UsageError


@click.command()
@click.argument("image")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option("--lock", is_flag=True, help="The lock in it, as it is.")
@click.option("--sbom", is_flag=True, help="The SBOM in it, as it is.")
@click.option("--recipe", is_flag=True, help="The recipe in it, as it is.")
@click.option("--labels", is_flag=True, help="Its labels.")
def inspect(image: str, **flags: bool) -> None:
    """Say what is in IMAGE, from what, and how big."""
    from limpet.actions.inspect import inspect_image, read_object

    chosen: list[Any] = [name for name, given in flags.items() if given]
    if len(chosen) > 1:
        raise UsageError("--json, --lock, --sbom, --recipe and --labels exclude each other.")
    if chosen and chosen[0] in ("lock", "sbom", "recipe"):
        sys.stdout.flush()
        sys.stdout.buffer.write(read_object(image, chosen[0]))
        return
    seen = inspect_image(image)
    if flags["as_json"]:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(seen)).decode() + "\n")
    elif flags["labels"]:
        from limpet.report.text import safe

        labels = seen.facts.labels if seen.facts else {}
        sys.stdout.write("".join(safe(f"{k}={v}") + "\n" for k, v in sorted(labels.items())))
    else:
        from limpet.report.inspect import render_inspection

        sys.stdout.write(render_inspection(seen))
