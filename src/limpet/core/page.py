"""Report: everything that one page shows of an image, or of two."""

from __future__ import annotations

import msgspec

from limpet.core.dependencies import Graph
from limpet.core.difference import Difference
from limpet.core.findings import Finding
from limpet.core.importtime import ImportTime
from limpet.core.inspection import Inspection


class ImageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One image. `imports` are None where it was not started, `findings` where it was not checked;
    `notes` say why.
    """

    seen: Inspection
    graph: Graph
    imports: ImportTime | None = None
    findings: tuple[Finding, ...] | None = None
    notes: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One or two images, and from the first to the second the difference."""

    limpet: str
    images: tuple[ImageReport, ...]
    difference: Difference | None = None
