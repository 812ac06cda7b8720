"""`limpet mpi`."""

from __future__ import annotations

import sys

import click

from limpet.cli.session import Session, pass_session


@click.command()
@click.argument("image")
@click.option("--probe", is_flag=True, help="Start two ranks with each MPI of this machine.")
@click.option(
    "--set", "names", multiple=True, metavar="NAME", help="Probe this one, whatever is thought."
)
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@pass_session
def mpi(session: Session, image: str, probe: bool, names: tuple[str, ...], as_json: bool) -> int:
    """Say which MPI IMAGE has and this machine has, what goes together, and what would be used.

    With --probe, print a host set for the configuration for each MPI that two ranks met with; the
    exit code is 1 where there was none.
    """
    from limpet.actions.mpi import examine, probe_sets

    report = examine(image, config_file=session.config_file, cache_dir=session.cache_dir)
    probes = (
        probe_sets(image, report, config_file=session.config_file, names=names)
        if probe or names
        else ()
    )
    if as_json:
        import msgspec

        bare = msgspec.to_builtins(report) | {"probes": msgspec.to_builtins(probes)}
        for part in (*bare["sets"], *bare["mpi"]["consumers"]):
            part.pop("exports", None)  # thousands of symbols
        for consumer in bare["mpi"]["consumers"]:
            consumer["needs"] = sorted(consumer["needs"])
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(bare)).decode() + "\n")
    elif probes:
        from limpet.report.mpi import render_probes

        sys.stdout.write(render_probes(probes, report.sets))
    else:
        from limpet.report.mpi import render_mpi

        sys.stdout.write(render_mpi(report))
    return int(bool(probes) and not any(one.met for one in probes))
