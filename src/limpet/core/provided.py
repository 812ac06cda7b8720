"""What a base's Python already has: counted in when resolving, never installed again."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import msgspec
from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from limpet.core.facts import Distribution

# Tools that put packages there; they belong to no environment's contents.
INSTALLERS = frozenset(
    ("pip", "setuptools", "wheel", "uv", "distribute", "pkg-resources", "ensurepip")
)


class Stub(msgspec.Struct, frozen=True, kw_only=True):
    """Stands in for a distribution of the base while uv resolves: a wheel of metadata alone."""

    name: str
    version: str
    metadata: str

    @property
    def filename(self) -> str:
        """The wheel's file name."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


def plan_stubs(
    distributions: Sequence[Distribution],
    markers: Mapping[str, str],
    *,
    passed_over: Collection[str] = INSTALLERS,
) -> tuple[Stub, ...]:
    """A stub for everything that the base has, but for what is passed over.

    A requirement that the base itself does not satisfy is left out: vendor images are not always
    consistent, they work as they are, and nothing that they have is to be replaced.
    """
    present: dict[str, str] = {}
    requires: dict[str, tuple[str, ...]] = {}
    for distribution in distributions:
        name = canonicalize_name(distribution.name)
        if name in passed_over or name in present or not _is_version(distribution.version):
            continue  # the first on sys.path is the one that is imported
        present[name] = str(Version(distribution.version))
        requires[name] = distribution.requires
    known = {str(canonicalize_name(one.name)): one.version for one in distributions}
    return tuple(
        Stub(
            name=name,
            version=present[name],
            metadata=_metadata(name, present[name], requires[name], known, markers),
        )
        for name in sorted(present)
    )


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _metadata(
    name: str,
    version: str,
    requires: Sequence[str],
    present: Mapping[str, str],
    markers: Mapping[str, str],
) -> str:
    kept = [line for line in requires if _holds(line, present, markers)]
    extras = sorted({extra for line in kept for extra in _extras(line)})
    return "".join(
        (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            *(f"Provides-Extra: {extra}\n" for extra in extras),
            *(f"Requires-Dist: {line}\n" for line in kept),
        )
    )


def _extras(line: str) -> list[str]:
    return re.findall(r"extra\s*==\s*[\"']([^\"']+)[\"']", line)


def _holds(line: str, present: Mapping[str, str], markers: Mapping[str, str]) -> bool:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return False
    if "\n" in line:
        return False
    if _extras(line):
        return True  # nobody installed it by itself; asked for, it must be resolved
    if requirement.marker and not _applies(requirement.marker, markers):
        return False
    has = present.get(canonicalize_name(requirement.name))
    return bool(
        has
        and _is_version(has)
        and not requirement.url
        and requirement.specifier.contains(has, prereleases=True)
    )


def _applies(marker: Marker, markers: Mapping[str, str]) -> bool:
    return marker.evaluate(dict(markers))


def find_mentioned(text: str, provided: Mapping[str, str]) -> tuple[str, ...]:
    """Which of the base's distributions a solver's explanation speaks of."""
    words = {
        canonicalize_name(word.rstrip(".-_"))
        for word in re.findall(r"[A-Za-z0-9][A-Za-z0-9._-]*", text)
    }
    return tuple(name for name in sorted(provided) if name in words)
