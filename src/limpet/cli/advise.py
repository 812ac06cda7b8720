"""`limpet advise`."""

from __future__ import annotations

import sys

import click

from limpet.cli.build import progress_form
from limpet.cli.session import Session, pass_session
from limpet.core.errors import UsageError

ROWS = 50


@click.command()
@click.argument("subject", nargs=-1, metavar="[PATH|RECIPE|IMAGE]")
@click.option("--scan", is_flag=True, help="Find the environments below the folders instead.")
@click.option("--all", "show_all", is_flag=True, help=f"--scan: more than the {ROWS} largest.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@pass_session
def advise(
    session: Session, subject: tuple[str, ...], scan: bool, show_all: bool, as_json: bool
) -> None:
    """Say which way to install is right for this case, and why.

    For an environment on the disk, a recipe, an image or the present folder. With --scan, list the
    environments below DIRs by their number of files.
    """
    if scan:
        _scan(session, subject or (".",), show_all=show_all, as_json=as_json)
        return
    if len(subject) > 1:
        raise UsageError("Advice is for one case at a time.", now="--scan takes several folders.")
    from limpet.actions.advise import give_advice

    advice = give_advice(*subject, config_file=session.config_file)
    if as_json:
        from limpet.report.result import render_json

        sys.stdout.write(render_json(advice))
    else:
        from limpet.report.advise import render_advice

        sys.stdout.write(render_advice(advice))


def _scan(session: Session, folders: tuple[str, ...], *, show_all: bool, as_json: bool) -> None:
    from limpet.actions.advise import scan_folders
    from limpet.report.progress import shown

    form, stream = progress_form(session, as_json=as_json)
    with shown(form, stream) as notify:
        found = scan_folders(folders, notify)
    if as_json:
        from limpet.report.result import render_json

        sys.stdout.write(render_json(found))
    else:
        from limpet.report.advise import render_scan

        sys.stdout.write(render_scan(found, most=0 if show_all else ROWS))
