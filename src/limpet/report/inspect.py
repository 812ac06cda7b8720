"""An inspection as text."""

from __future__ import annotations

from limpet.core.inspection import Inspection, Package
from limpet.report.text import format_size, safe


def render_inspection(seen: Inspection) -> str:
    """Name, base, Python, policies, parts with sizes, packages with versions."""
    rows = [("file", seen.path), ("kind", seen.kind), ("machine", seen.arch or "unknown")]
    if seen.size_bytes:
        rows.append(("size", format_size(seen.size_bytes)))
    rows += fact_rows(seen)
    rows += [(part.kind, f"{format_size(part.size_bytes):>10}  {part.name}") for part in seen.parts]
    lines = [f"{name:<20}{value}".rstrip() for name, value in rows]
    if seen.packages:
        lines += ["", f"{len(seen.packages)} packages"]
        lines += [_package_line(package) for package in seen.packages]
    return "\n".join(safe(line) for line in lines) + "\n"


def _package_line(package: Package) -> str:
    source = " (conda)" if package.source == "conda" else ""
    return f"  {package.name} {package.version}".rstrip() + source


def fact_rows(seen: Inspection) -> list[tuple[str, str]]:
    """What limpet's own description of the image says, a line each."""
    facts = seen.facts
    if facts is None:
        return [("made by", "not limpet: variables, home and GPU policies apply all the same")]
    run = facts.run
    rows = [
        ("name", facts.name),
        ("made by", f"limpet {facts.limpet}"),
        ("layout", facts.layout),
        ("base", f"{facts.base.reference} ({facts.base.digest})"),
        ("python", f"{facts.python} in {facts.prefix}"),
        ("variables", run.variables),
        ("home", run.home),
        ("gpu", run.gpu),
        ("mpi", run.mpi),
        ("binds", " ".join(run.bind)),
        ("passes", " ".join(run.pass_variables)),
        ("lock", f"sha256:{facts.lock_sha256}" if facts.lock_sha256 else ""),
        *(("sets", f"{name}={value}") for name, value in sorted(facts.env.items())),
        *(("label", f"{name}={value}") for name, value in sorted(facts.labels.items())),
    ]
    return [(name, value) for name, value in rows if value]
