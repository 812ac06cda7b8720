"""Advice and scans as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from limpet.core.advice import Advice, Facts
from limpet.core.environments import Environment, Scan
from limpet.report.text import quote, safe

WIDTH = 96
_IN = "    "

_VERDICTS = {
    "recommended": "Recommended",
    "possible": "Also possible",
    "discouraged": "Not recommended",
}
IMAGE_OPERATIONS = 12  # of a cold start of one image, measured with a file system that counts


def render_advice(advice: Advice) -> str:
    """What was seen, then the answers with reasons and commands."""
    lines = [*_seen(advice.facts)]
    for verdict, title in _VERDICTS.items():
        for number, answer in enumerate(a for a in advice.answers if a.verdict == verdict):
            if not number:
                lines += ["", title]
            lines.append(f"  {answer.title}")
            lines += textwrap.wrap(answer.why, WIDTH, initial_indent=_IN, subsequent_indent=_IN)
            lines += [f"    $ {line}" for line in answer.do]
    return "\n".join(safe(line) for line in lines).lstrip("\n") + "\n"


def _seen(facts: Facts) -> Iterator[str]:
    what = {"": facts.kind}.get(facts.manager, f"{facts.manager} environment")
    if facts.kind != "nothing":
        yield f"{facts.recipe or facts.path}: {what}"
    direct = "" if facts.all_packages else " named, those they need not counted"
    rows = [
        ("packages", f"{facts.packages:,}{direct}" if facts.packages else ""),
        ("files", f"{facts.files:,} in {facts.folders:,} folders" if facts.folders else ""),
        ("a start", _cost(facts)),
        ("disk", f"{facts.filesystem}{', shared' if facts.shared else ''}"),
        ("GPU", facts.gpu_of),
        ("MPI", facts.mpi_of),
        ("host", f"its scripts call {facts.host_commands}" if facts.host_commands else ""),
        ("base", facts.base),
        ("modules", ", ".join(filter(None, (facts.module_python, facts.site_stack)))),
    ]
    yield from (f"  {name:<10}{value}" for name, value in rows if value)


def _cost(facts: Facts) -> str:
    if not facts.operations:
        return ""
    return (
        f"{facts.operations:,} metadata operations ({facts.operations_how}); "
        f"from one image, about {IMAGE_OPERATIONS}"
    )


def render_scan(scan: Scan, *, most: int = 0) -> str:
    """A table, largest first; `most` 0 for all rows."""
    rows = scan.environments[:most] if most else scan.environments
    lines = [f"{'files':>12}  {'folders':>10}  {'kind':<10}{'owner':<14}path"]
    lines += [
        f"{one.files:>12,}  {one.folders:>10,}  {one.manager:<10}{one.owner:<14}{one.path}"
        for one in rows
    ]
    if len(rows) < len(scan.environments):
        lines.append(f"{'…':>12}  and {len(scan.environments) - len(rows):,} smaller ones")
    inside = sum(one.files for one in scan.environments)
    share = f" ({100 * inside / scan.files:.0f} %)" if scan.files else ""
    lines += [
        "",
        f"{len(scan.environments):,} environments with {inside:,} of {scan.files:,} files{share}, "
        f"{scan.folders:,} folders read in {scan.elapsed_s:.1f} s",
    ]
    lines += _unreadable(scan)
    if rows and (first := _packable(rows)):
        lines.append(f"One file of the largest: limpet pack {quote(first.path)} -o environment.sif")
    return "\n".join(safe(line) for line in lines) + "\n"


def _unreadable(scan: Scan) -> Iterator[str]:
    if scan.unreadable_count:
        yield f"Not counted, since they cannot be read: {scan.unreadable_count:,} folders"
        yield from (f"  {place}" for place in scan.unreadable)
        if scan.unreadable_count > len(scan.unreadable):
            yield "  …"


def _packable(rows: tuple[Environment, ...]) -> Environment | None:
    return next((one for one in rows if one.manager in ("conda", "venv")), None)
