"""An inspection as text: what limpet notes of an image, and what is in its file systems."""

from __future__ import annotations

from collections.abc import Iterator

from limpet.core.contents import MANAGERS, Contents, Software
from limpet.core.dependencies import Graph, find_ways
from limpet.core.inspection import Inspection, Package
from limpet.report.table import Align, Cell, Table, render_table
from limpet.report.text import format_size, safe

MOST_ROWS = 15
MOST_WAYS = 10
_COLUMNS: tuple[tuple[str, Align], ...] = (
    ("package", "left"),
    ("version", "left"),
    ("size", "right"),
    ("files", "right"),
    ("licence", "left"),
)


def render_inspection(seen: Inspection, *, all_packages: bool = False, width: int = 0) -> str:
    """Name, base, Python, policies, parts with sizes, packages with versions.

    `width` is that of the terminal in columns, 0 where there is none: the text is plain then.
    """
    rows = [("file", seen.path), ("kind", seen.kind), ("machine", seen.arch or "unknown")]
    if seen.size_bytes:
        rows.append(("size", format_size(seen.size_bytes)))
    rows += fact_rows(seen)
    rows += [(part.kind, f"{format_size(part.size_bytes):>10}  {part.name}") for part in seen.parts]
    lines = [f"{name:<20}{safe(value)}".rstrip() for name, value in rows]
    contents = seen.contents
    if contents and contents.software:
        lines += ["", *_sums(contents), "", *_software(contents, all_packages, width)]
    elif seen.packages:
        lines += ["", f"{len(seen.packages)} packages"]
        lines += [safe(_package_line(package)) for package in seen.packages]
    lines += [f"not read: {safe(note)}" for note in (contents.unreadable if contents else ())]
    return "\n".join(lines) + "\n"


def _sums(contents: Contents) -> Iterator[str]:
    for manager, text in MANAGERS.items():
        items = [one for one in contents.software if one.manager == manager]
        if items:
            size = format_size(sum(one.size_bytes for one in items))
            count = sum(one.files for one in items)
            yield f"{text:<28}{size:>10}  {count:>7} files"


def _software(contents: Contents, all_packages: bool, width: int) -> Iterator[str]:
    items = contents.packages
    if not items:
        yield "no packages of pip or conda"
        return
    shown = items if all_packages else items[:MOST_ROWS]
    yield f"{len(items)} packages"
    yield from render_table(
        Table(columns=_COLUMNS, rows=tuple(_row(one) for one in shown)), width=width
    )
    if len(items) > len(shown):
        yield f"… and {len(items) - len(shown)} smaller: limpet inspect --all"


def _row(one: Software) -> tuple[Cell, ...]:
    name = f"{one.name} (conda)" if one.manager == "conda" else one.name
    if one.manager == "base":
        name += " (base)"
    return (
        Cell(text=name, style="bold"),
        Cell(text=one.version),
        Cell(text=format_size(one.size_bytes)),
        Cell(text=str(one.files)),
        Cell(text=one.license, style="dim"),
    )


def render_why(graph: Graph, package: Software) -> str:
    """Why a package is there: what asks for it, on which ways, and what it needs itself."""
    name = package.name
    lines = [f"{name} {package.version}".strip()]
    if name in graph.asked:
        lines.append(f"  the recipe asks for it {graph.asked[name]}".rstrip())
    ways = [way for way in find_ways(graph, name) if len(way) > 1]
    lines += [f"  {' → '.join(way)}" for way in ways[:MOST_WAYS]]
    if len(ways) > MOST_WAYS:
        lines.append(f"  … and {len(ways) - MOST_WAYS} more ways")
    if len(lines) == 1:
        lines.append("  no other package needs it, and the recipe does not name it")
    needed = [f"{edge.source} {edge.wish}".strip() for edge in graph.needed_by(name)]
    needs = [f"{edge.target} {edge.wish}".strip() for edge in graph.edges if edge.source == name]
    lines += [f"needed by  {', '.join(needed) or '-'}", f"needs      {', '.join(needs) or '-'}"]
    return "\n".join(map(safe, lines)) + "\n"


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
        ("python", f"{facts.python or 'none'} in {facts.prefix}"),
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
