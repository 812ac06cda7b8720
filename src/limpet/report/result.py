"""What an action did, or would do, in a few lines; and the same as JSON."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from limpet.core.lock import Lock
from limpet.core.plan import BuildPlan, BuildReport, LockReport
from limpet.report.text import format_size, safe

WAYS = {"kept": "in the cache", "fetched": "to fetch", "built": "to build"}


def render_result(report: BuildReport | LockReport) -> str:
    """A few lines for a person; everything of the image's making that is not in `inspect`."""
    rows = _lock_rows(report) if isinstance(report, LockReport) else _build_rows(report)
    return "".join(f"{name:<10}{safe(value)}\n" for name, value in rows if value)


def render_json(report: msgspec.Struct) -> str:
    """One JSON object on one line."""
    return (
        msgspec.json.encode({"kind": "result", "result": report}, enc_hook=_plain).decode() + "\n"
    )


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value).__name__)


def _build_rows(report: BuildReport) -> list[tuple[str, str]]:
    plan = report.plan
    done = report.size_bytes > 0
    size = format_size(report.size_bytes) if done else f"about {format_size(plan.image_bytes)}"
    rows = [
        ("image", f"{plan.output} ({size}, {plan.layout})"),
        ("base", f"{plan.base} ({plan.digest})"),
        ("python", plan.python),
        ("packages", _count(plan, done=done)),
        ("", ""),
    ]
    if not done:
        rows += [("", f"{s.name} {s.version} ({WAYS[s.way]})") for s in plan.packages]
    rows.append(("of base", ", ".join(f"{n} {v}" for n, v in sorted(plan.provided.items()))))
    rows.append(("lock", str(report.lock_file or "")))
    rows.append(("time", f"{report.elapsed_s:.1f} s" if done else ""))
    return rows


def _count(plan: BuildPlan, *, done: bool) -> str:
    if done:
        return str(len(plan.packages))
    ways = Counter(step.way for step in plan.packages)
    told = ", ".join(f"{n} {WAYS[way]}" for way, n in ways.items())
    return f"{len(plan.packages)} ({told})" if told else "0"


def _lock_rows(report: LockReport) -> list[tuple[str, str]]:
    lock: Lock = report.lock
    rows = [
        ("lock", str(report.lock_file or "(not written)")),
        ("base", f"{lock.base.reference} ({lock.base.digest})"),
        ("python", lock.python),
        ("conda", str(len(lock.conda)) if lock.conda else ""),
    ]
    rows += [("", f"{package.name} {package.version} {package.build}") for package in lock.conda]
    rows.append(("packages", str(len(lock.packages))))
    rows += [("", f"{package.name} {package.version}") for package in lock.packages]
    rows.append(("of base", ", ".join(f"{n} {v}" for n, v in sorted(lock.provided.items()))))
    return rows
