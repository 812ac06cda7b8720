"""Advisories in the OSV format (https://ossf.github.io/osv-schema/) against installed packages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from limpet.core.contents import Software
from limpet.core.findings import Finding


class Advisory(msgspec.Struct, frozen=True, kw_only=True):
    """One record for one package of PyPI. `ranges` are (introduced, fixed, last affected)."""

    id: str
    package: str
    summary: str = ""
    aliases: tuple[str, ...] = ()
    severity: str = ""
    versions: frozenset[str] = frozenset()
    ranges: tuple[tuple[str, str, str], ...] = ()


def parse_records(document: Any) -> Iterator[Advisory]:
    """The advisories of a JSON document: a record, a list of them, or `{"vulns": […]}`.

    What is not of PyPI, withdrawn, or not of this form is passed over.
    """
    if isinstance(document, dict) and isinstance(document.get("vulns"), list):
        document = document["vulns"]
    for record in document if isinstance(document, list) else [document]:
        if isinstance(record, dict) and not record.get("withdrawn"):
            yield from _parse_record(record)


def _parse_record(record: Mapping[str, Any]) -> Iterator[Advisory]:
    affected = record.get("affected")
    for one in affected if isinstance(affected, list) else []:
        package = one.get("package") if isinstance(one, dict) else None
        if not isinstance(package, dict) or package.get("ecosystem") != "PyPI":
            continue
        yield Advisory(
            id=str(record.get("id", "?")),
            package=canonicalize_name(str(package.get("name", ""))),
            summary=str(record.get("summary") or record.get("details") or "")[:300],
            aliases=tuple(map(str, _listed(record, "aliases"))),
            severity=_severity(record, one),
            versions=frozenset(map(str, _listed(one, "versions"))),
            ranges=tuple(r for found in _listed(one, "ranges") for r in _parse_range(found)),
        )


def _listed(record: Mapping[str, Any], name: str) -> list[Any]:
    value = record.get(name)
    return value if isinstance(value, list) else []


def _severity(record: Mapping[str, Any], affected: Mapping[str, Any]) -> str:
    for place in (record, affected):
        told = place.get("database_specific")
        if isinstance(told, dict) and told.get("severity"):
            return str(told["severity"]).lower()
    return ""


def _parse_range(found: Any) -> Iterator[tuple[str, str, str]]:
    if not isinstance(found, dict) or found.get("type") not in ("ECOSYSTEM", "SEMVER"):
        return
    introduced: str | None = None
    for event in _listed(found, "events"):
        if not isinstance(event, dict):
            continue
        if "introduced" in event:
            introduced = str(event["introduced"])
        elif introduced is not None and ("fixed" in event or "last_affected" in event):
            yield introduced, str(event.get("fixed", "")), str(event.get("last_affected", ""))
            introduced = None
    if introduced is not None:
        yield introduced, "", ""


def is_affected(advisory: Advisory, version: str) -> bool:
    """Whether the record names this version, by its list or by its ranges."""
    if version in advisory.versions:
        return True
    try:
        here = Version(version)
        for introduced, fixed, last in advisory.ranges:
            if introduced != "0" and here < Version(introduced):
                continue
            if (fixed and here >= Version(fixed)) or (last and here > Version(last)):
                continue
            return True
    except InvalidVersion:
        pass
    return False


def judge_advisories(
    packages: Iterable[Software], advisories: Mapping[str, Iterable[Advisory]]
) -> Iterator[Finding]:
    """A finding for each package and record; `advisories` are by package."""
    told = set()
    for package in packages:
        name = canonicalize_name(package.name)
        for advisory in advisories.get(name, ()):
            key = (name, package.version, advisory.id)
            if key not in told and is_affected(advisory, package.version):
                told.add(key)
                yield _finding(package, advisory)


def _finding(package: Software, advisory: Advisory) -> Finding:
    fixes = sorted({fixed for _, fixed, _ in advisory.ranges if fixed}, key=_order)
    newer = [fix for fix in fixes if _order(fix) > _order(package.version)]
    named = [one for one in (advisory.id, *advisory.aliases) if one]
    serious = advisory.severity in ("critical", "high")
    return Finding(
        code="LMP711",
        severity="error" if serious else "warning",
        what=f"{package.name} {package.version} has a known vulnerability ({advisory.id}).",
        evidence=tuple(filter(None, (advisory.summary, ", ".join(named), package.folder))),
        cure=f'Add to the description: "{package.name}>={newer[0]}"' if newer else "",
    )


def _order(version: str) -> tuple[bool, Version]:
    try:
        return True, Version(version)
    except InvalidVersion:
        return False, Version("0")
