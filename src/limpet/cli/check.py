"""`limpet check`."""

from __future__ import annotations

import sys

import click

from limpet.cli.session import Session, pass_session
from limpet.core.errors import UsageError


@click.command()
@click.argument("image")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--imports", is_flag=True, help="Import every package, or those named, and see what it writes."
)
@click.option("--timeout", default=60.0, metavar="SECONDS", help="For each import.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@pass_session
def check(
    session: Session,
    image: str,
    names: tuple[str, ...],
    imports: bool,
    timeout: float,
    as_json: bool,
) -> int:
    """Look for what will not work in IMAGE; exit code 1 where something will not."""
    if not imports:
        raise UsageError("There is nothing to check.", now="Add --imports.")
    from limpet.actions.check import check_imports

    report = check_imports(
        image,
        names,
        timeout_s=timeout,
        config_file=session.config_file,
        cache_dir=session.cache_dir,
    )
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    else:
        from limpet.report.check import render_imports

        sys.stdout.write(render_imports(report))
    return int(any(finding.severity == "error" for finding in report.findings))
