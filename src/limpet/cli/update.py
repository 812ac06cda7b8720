"""`limpet update`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from limpet.cli.build import lock_options, make_request, progress_form
from limpet.cli.session import Session, pass_session
from limpet.core.errors import UsageError, no_image

_CHANGES = (
    "add",
    "remove",
    "pip",
    "conda",
    "apt",
    "upgrade",
    "upgrade_packages",
    "base",
    "on",
    "python",
)


@click.command()
@click.argument("target", metavar="IMAGE|DIR")
@click.argument("source", required=False, default="", metavar="[RECIPE|IMAGE]")
@click.option("--add", multiple=True, metavar="SPEC", help="Add a package, or another version.")
@click.option("--remove", multiple=True, metavar="NAME", help="Take a package out.")
@click.option("--back", is_flag=True, help="DIR: the version before this one again.")
@lock_options
@pass_session
def update(session: Session, /, target: str, source: str, **flags: Any) -> None:
    """Change what is in IMAGE, or in the image behind the launchers in DIR.

    A new image is built and takes the old one's place in one step; programs that run keep the old.
    With --add, --remove or --upgrade, the recipe in the image counts, or RECIPE, which is changed
    with it. DIR alone makes its launchers again for the rebuilt image, or for another IMAGE.
    """
    changing = any(flags[name] for name in _CHANGES)
    add, remove = flags.pop("add"), flags.pop("remove")
    back, as_json = flags.pop("back"), flags.pop("as_json")
    is_folder = Path(target).is_dir()
    if back and (source or changing or flags["dry_run"] or not is_folder):
        raise UsageError("--back takes a folder of launchers, and nothing else.")
    if is_folder and not changing:
        _update_wrap(session, target, source, back=back, dry_run=flags["dry_run"], as_json=as_json)
        return
    if not Path(target).exists():
        raise no_image(Path(target).absolute())
    if not is_folder and not (changing or source):
        raise UsageError(
            "There is nothing to change.",
            now="Use --add, --remove or --upgrade, or name the changed recipe.",
        )
    from limpet.actions import update as actions
    from limpet.core.update import UpdateRequest
    from limpet.report.progress import shown

    flags["recipes"] = (source,) if source else ()
    request = UpdateRequest(add=add, remove=remove, build=make_request(session, flags))
    form, stream = progress_form(session, as_json=as_json)
    with shown(form, stream) as notify:
        if is_folder:
            report = actions.update_launchers(Path(target), request, notify)
        else:
            report = actions.update_image(target, request, notify)
    if as_json:
        from limpet.report.result import render_json

        sys.stdout.write(render_json(report))
    elif session.verbosity >= 0:
        from limpet.report.update import render_update

        sys.stdout.write(render_update(report))


def _update_wrap(
    session: Session, folder: str, image: str, *, back: bool, dry_run: bool, as_json: bool
) -> None:
    from limpet.actions.wrap import bring_back, update_wrap
    from limpet.cli.wrap import tell_wrap

    if back:
        report = bring_back(Path(folder))
    else:
        file = session.config_file
        report = update_wrap(Path(folder), image, config_file=file, dry_run=dry_run)
    tell_wrap(session, report, as_json=as_json)
