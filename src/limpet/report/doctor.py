"""What `limpet doctor` found, as text."""

from __future__ import annotations

from collections.abc import Sequence

from limpet.core.findings import Finding
from limpet.core.machine import Difference, MachineSeen, Place, list_facts
from limpet.report.check import render_findings
from limpet.report.text import format_size, safe


def render_machine(seen: MachineSeen) -> str:
    """The facts, one a line."""
    rows = list(list_facts(seen))
    space = {place.role: _space(place) for place in seen.places}
    width = max(len(what) for what, _ in rows)
    lines = [f"{seen.user} on {seen.host}", ""]
    lines += [
        f"  {what:<{width}}  {said}{'; ' + space[what] if space.get(what) else ''}"
        for what, said in rows
    ]
    lines += [
        f"  {'quota':<{width}}  {quota.place}: {format_size(quota.used_bytes)} of "
        f"{format_size(quota.limit_bytes) if quota.limit_bytes else 'any'}, {quota.used_files} of "
        f"{quota.limit_files or 'any number of'} files"
        for quota in seen.quotas
    ]
    return "".join(safe(line) + "\n" for line in lines)


def _space(place: Place) -> str:
    if not place.size_bytes:
        return ""
    inodes = f", {place.free_inodes} inodes free" if place.inodes else ""
    return f"{format_size(place.free_bytes)} free{inodes}"


def render_differences(node: str, differences: Sequence[Difference]) -> str:
    """What is another on the node; a line where nothing is."""
    if not differences:
        return safe(f"{node} is like this machine.") + "\n"
    lines = [f"Different on {node}:"]
    for one in differences:
        lines += [f"  {one.what}", f"    here   {one.here}", f"    there  {one.there}"]
    return "".join(safe(line) + "\n" for line in lines)


def render_verdict(findings: Sequence[Finding], fixed: Sequence[str] = ()) -> str:
    """The findings and how many there are."""
    text = "".join(f"Set right: {safe(line)}\n" for line in fixed)
    text += render_findings(findings)
    return text + sum_up(findings) + "\n"


def sum_up(findings: Sequence[Finding]) -> str:
    """`1 error, 2 warnings, 1 note.`"""
    counts = [(sum(f.severity == s for f in findings), s) for s in ("error", "warning", "note")]
    words = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts if count]
    return (", ".join(words) + ".") if words else "Nothing was found that is wrong."
