"""`limpet doctor`."""

from __future__ import annotations

import sys

import click

from limpet.cli.session import Session, pass_session
from limpet.core.errors import UsageError


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--node", is_flag=True, help="Look at a compute node as well, through srun.")
@click.option("--fix", is_flag=True, help="Set right what is safe; asks nothing.")
@click.option("--timeout", default=5.0, metavar="SECONDS", help="For each look.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.argument("srun_options", nargs=-1, metavar="[SRUN-OPTION]...", type=click.UNPROCESSED)
@pass_session
def doctor(
    session: Session,
    node: bool,
    fix: bool,
    timeout: float,
    as_json: bool,
    srun_options: tuple[str, ...],
) -> int:
    """Look at this machine and account for what will not work; exit code 1 where something won't.

    Every look is given up after --timeout, and said. With --node, other options go to srun.
    """
    if timeout <= 0:
        raise UsageError(f"--timeout {timeout:g}: it must be more than 0 seconds.")
    if srun_options and not node:
        raise UsageError(
            f"There is no option {srun_options[0]}.", now="Options of srun need --node."
        )
    from limpet.actions.doctor import examine, examine_node

    settings = {"config_file": session.config_file, "cache_dir": session.cache_dir, "fix": fix}
    if node:
        report = examine_node(srun_options, timeout_s=timeout, **settings)
    else:
        report = examine(timeout_s=timeout, **settings)  # type: ignore[arg-type]
    if as_json:
        from limpet.report.json_text import to_json

        sys.stdout.write(to_json(report))
    else:
        from limpet.report.doctor import render_differences, render_machine, render_verdict

        sys.stdout.write(render_machine(report.machine) + "\n")
        if report.node:
            sys.stdout.write(render_differences(report.node.host, report.differences) + "\n")
        sys.stdout.write(render_verdict(report.findings, report.fixed))
    return int(any(finding.severity == "error" for finding in report.findings))
