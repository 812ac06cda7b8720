"""Findings as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from limpet.core.contents import Software
from limpet.core.findings import Finding
from limpet.core.writes import ImportsReport
from limpet.report.text import format_size, safe

if TYPE_CHECKING:
    from limpet.core.image_contents import Heap

MOST_PACKAGES = 12


def render_imports_sum(report: ImportsReport) -> str:
    """How many imports there were, and how many went wrong."""
    count = len(report.modules)
    sum_up = f"{count} import{'' if count == 1 else 's'} with Python {report.python}: "
    errors = sum(finding.severity == "error" for finding in report.findings)
    sum_up += f"{errors} of them broken." if errors else "all work."
    if not report.layered:
        sum_up += (
            "\nNo folder can be laid over an image here: what native code writes was not seen."
        )
    return sum_up + "\n"


def render_sizes(packages: Sequence[Software], heaps: Sequence[Heap]) -> str:
    """The largest packages, and what of them nobody needs."""
    lines = ["Largest packages:"] if packages else ["No packages of Python were found."]
    for package in packages[:MOST_PACKAGES]:
        useless = package.useless_bytes
        lines.append(
            f"  {format_size(package.size_bytes):>9}  {package.name} {package.version}"
            + (f" (tests and static libraries: {format_size(useless)})" if useless > 1e5 else "")
        )
    if len(packages) > MOST_PACKAGES:
        rest = sum(package.size_bytes for package in packages[MOST_PACKAGES:])
        lines.append(f"  {format_size(rest):>9}  {len(packages) - MOST_PACKAGES} more")
    spare = sum(heap.size_bytes for heap in heaps)
    lines += [f"  {format_size(spare):>9}  of the image nobody needs (see below)"] if spare else []
    return "".join(safe(line) + "\n" for line in lines)


def render_findings(findings: Sequence[Finding]) -> str:
    """Each with its grounds, cause and cure, and an empty line after it."""
    return "".join(_render(finding) + "\n" for finding in findings)


def _render(finding: Finding) -> str:
    lines = [f"{finding.severity}: {finding.what} [{finding.code}]"]
    lines += [f"    {line}" for line in finding.evidence]
    lines += [f"  {finding.cause}"] if finding.cause else []
    if finding.cure:
        lines += ["  Cure:", *(f"    {line}".rstrip() for line in finding.cure.splitlines())]
    return "\n".join(safe(line) for line in lines) + "\n"
