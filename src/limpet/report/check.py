"""Findings as text."""

from __future__ import annotations

from collections.abc import Sequence

from limpet.core.findings import Finding
from limpet.core.writes import ImportsReport
from limpet.report.text import safe


def render_imports(report: ImportsReport) -> str:
    """The findings, then one line in sum."""
    count = len(report.modules)
    sum_up = f"{count} import{'' if count == 1 else 's'} with Python {report.python}: "
    errors = sum(finding.severity == "error" for finding in report.findings)
    sum_up += f"{errors} of them broken." if errors else "all work."
    if not report.layered:
        sum_up += (
            "\nNo folder can be laid over an image here: what native code writes was not seen."
        )
    return render_findings(report.findings) + sum_up + "\n"


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
