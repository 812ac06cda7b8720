"""Findings: what a check found, on what grounds, and what to do about it."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`code` is stable and says which kind it is; `cure` is text that can be pasted, or empty."""

    code: str
    severity: Severity
    what: str
    evidence: tuple[str, ...] = ()
    cause: str = ""
    cure: str = ""
