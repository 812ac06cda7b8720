"""`limpet inspect` and `limpet diff`."""

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
@click.option("--why", default="", metavar="NAME", help="Why the package NAME is there.")
@click.option("--all", "all_packages", is_flag=True, help="Every package, not the largest only.")
def inspect(image: str, why: str, all_packages: bool, **flags: bool) -> None:
    """Say what is in IMAGE, from what, and how big. Nothing is started."""
    chosen: list[Any] = [name for name, given in flags.items() if given]
    if len(chosen) + bool(why) > 1:
        raise UsageError("--json, --lock, --sbom, --recipe, --labels and --why exclude each other.")
    from limpet.actions.inspect import inspect_image, read_object

    if chosen and chosen[0] in ("lock", "sbom", "recipe"):
        sys.stdout.flush()
        sys.stdout.buffer.write(read_object(image, chosen[0]))
    elif flags["as_json"]:
        _write_json(inspect_image(image, contents=True))
    elif flags["labels"]:
        from limpet.report.text import safe

        facts = inspect_image(image).facts
        labels = facts.labels if facts else {}
        sys.stdout.write("".join(safe(f"{k}={v}") + "\n" for k, v in sorted(labels.items())))
    elif why:
        from limpet.actions.inspect import explain_package
        from limpet.report.inspect import render_why

        sys.stdout.write(render_why(*explain_package(image, why)))
    else:
        from limpet.report.inspect import render_inspection

        seen = inspect_image(image, contents=True)
        sys.stdout.write(render_inspection(seen, all_packages=all_packages, width=_width()))


@click.command()
@click.argument("image")
@click.argument("image2")
@click.option("--json", "as_json", is_flag=True, help="The difference as one JSON object.")
def diff(image: str, image2: str, as_json: bool) -> int:
    """Say what is other in IMAGE2 than in IMAGE; exit code 1 where something is.

    Packages and their versions, sizes, licences, base and settings. Nothing is started.
    """
    from limpet.actions.inspect import compare_images

    told = compare_images(image, image2)
    if as_json:
        _write_json(told)
    else:
        from limpet.report.difference import render_difference

        sys.stdout.write(render_difference(told, width=_width()))
    return int(bool(told.changes or told.settings))


def _write_json(value: Any) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def _width() -> int:
    """The terminal's columns; 0 where the output is no terminal, or is to be plain."""
    import os
    import shutil

    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return shutil.get_terminal_size().columns if sys.stdout.isatty() and not plain else 0
