"""What was packed, or would be, as text."""

from __future__ import annotations

from collections.abc import Iterator

from limpet.core.pack import PackPlan, PackReport
from limpet.report.text import format_size, quote, safe

_KINDS = {"conda": "conda environment", "venv": "virtual environment", "folder": "folder"}


def render_pack(report: PackReport) -> str:
    """A few lines, then what did not come along as it might be thought to."""
    rows = [*_plan_rows(report.plan, done=report.size_bytes > 0), *_done_rows(report)]
    lines = [f"{name:<10}{value}" for name, value in rows if value]
    for finding in report.findings:
        lines += ["", f"{finding.severity}: {finding.what} [{finding.code}]"]
        lines += [f"  {word}" for word in finding.evidence]
        lines += [f"  {finding.cure}"] if finding.cure else []
    return "\n".join(safe(line) for line in lines) + "\n"


def _plan_rows(plan: PackPlan, *, done: bool) -> Iterator[tuple[str, str]]:
    python = f" with Python {plan.python}" if plan.python else ""
    yield "prefix", f"{plan.prefix} ({_KINDS[plan.kind]}{python})"
    for tree in plan.trees:
        yield "folder", f"{tree.folder}: {tree.files} files, {format_size(tree.size_bytes)}"
    yield from (("link", f"{place} → {target}") for place, target in plan.links.items())
    yield "packages", _packages(plan)
    yield "base", f"{plan.base} ({plan.digest})"
    yield "glibc", f"{plan.glibc} or newer is needed" if plan.glibc else ""
    yield "layout", "" if done else plan.layout


def _packages(plan: PackPlan) -> str:
    words = [f"{plan.conda} of conda's, locked"] if plan.conda else []
    words += [f"{plan.packages} by name and version"] if plan.packages else []
    return ", ".join(words)


def _done_rows(report: PackReport) -> Iterator[tuple[str, str]]:
    plan, code = report.plan, report.byte_code
    if not report.size_bytes:
        return
    yield (
        "image",
        f"{plan.output} ({format_size(report.size_bytes)}, {plan.layout}): "
        f"1 file instead of {plan.files} with {format_size(plan.size_bytes)}",
    )
    yield "verified", f"{report.verified} files read back and compared"
    words = [
        (code.rewritten, "set to hold without its source's time"),
        (code.stale, "older than its source and left out"),
        (code.compiled, "compiled"),
    ]
    yield "byte code", ", ".join(f"{count} {what}" for count, what in words if count)
    if plan.served:
        yield (
            "start",
            f"limpet run {quote(str(plan.output))} …, or launchers: "
            "a bare apptainer exec may mount the home over it",
        )
    if report.wrap:
        yield "launchers", f"{len(report.wrap.programs)} in {report.wrap.folder}/bin"
    yield "time", f"{report.elapsed_s:.1f} s"
