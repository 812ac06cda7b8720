"""`limpet check`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from limpet.cli.session import Session, pass_session
from limpet.core.errors import UsageError

if TYPE_CHECKING:
    from limpet.core.findings import Finding


@click.command()
@click.argument("image")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--imports",
    is_flag=True,
    help="Start it as well: import every package, or those named, and see what that writes.",
)
@click.option("--timeout", default=60.0, metavar="SECONDS", help="For each import.")
@click.option(
    "--advisories",
    default="",
    metavar="PATH",
    help="Known vulnerabilities: OSV records as a file, folder or zip.",
)
@click.option("--only", multiple=True, metavar="CODE", help="Tell findings of this code only.")
@click.option("--fix", is_flag=True, help="Set right what is safe; asks nothing.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@pass_session
def check(
    session: Session,
    image: str,
    names: tuple[str, ...],
    imports: bool,
    timeout: float,
    advisories: str,
    only: tuple[str, ...],
    fix: bool,
    as_json: bool,
) -> int:
    """Look for what will not work in IMAGE; exit code 1 where something will not.

    The image is read, not started, unless --imports is given.
    """
    _check_codes(only)
    if names and not imports:
        raise UsageError("Names are for imports.", now="Add --imports.")
    from limpet.actions.check import check_imports
    from limpet.actions.check_image import check_image, reach
    from limpet.report.check import render_findings, render_imports_sum, render_sizes
    from limpet.report.doctor import sum_up
    from limpet.report.text import safe

    if timeout <= 0:
        raise UsageError(f"--timeout {timeout:g}: it must be more than 0 seconds.")
    reach(image, timeout)
    tried = None
    if imports:
        tried = check_imports(
            image,
            names,
            timeout_s=timeout,
            config_file=session.config_file,
            cache_dir=session.cache_dir,
        )
    seen = check_image(image, advisories=advisories, fix=fix) if not names else None
    told = (*(tried.findings if tried else ()), *(seen.findings if seen else ()))
    findings = _chosen(told, only)
    if as_json:
        sys.stdout.write(_as_json(seen, tried, findings))
    else:
        for line in seen.fixed if seen else ():
            sys.stdout.write(f"Set right: {safe(line)}\n")
        if seen and not only:
            sys.stdout.write(render_sizes(seen.packages, seen.heaps) + "\n")
        sys.stdout.write(render_findings(findings))
        sys.stdout.write(render_imports_sum(tried) if tried else "")
        sys.stdout.write(sum_up(findings) + "\n" if seen else "")
    return int(any(finding.severity == "error" for finding in findings))


def _check_codes(only: tuple[str, ...]) -> None:
    from limpet.core.finding_codes import CODES

    for code in only:
        if code.upper() not in CODES:
            raise UsageError(f"There is no finding {code}.", now="The documentation lists them.")


def _chosen(found: tuple[Finding, ...], only: tuple[str, ...]) -> tuple[Finding, ...]:
    from limpet.core.doctor import sort_findings

    wanted = {code.upper() for code in only}
    return sort_findings(one for one in found if not wanted or one.code in wanted)


def _as_json(seen: object, tried: object, findings: tuple[Finding, ...]) -> str:
    import msgspec

    from limpet.report.json_text import to_json

    report: dict[str, object] = {}
    for part in (seen, tried):
        if part is not None:
            report |= msgspec.to_builtins(part)
    return to_json({**report, "findings": findings})
