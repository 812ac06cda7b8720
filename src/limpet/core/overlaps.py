"""Paths that two packages of one environment bring: whose file is there, and how that is said.

conda and its kin let the package win that is linked last, and warn. Packages are linked after what
they need, those of pip after those of conda; so the winner is the same in each build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence

import msgspec
from packaging.utils import canonicalize_name

MOST_LINES = 5
_METADATA = re.compile(
    r"(?P<site>.*/site-packages)/(?P<info>(?P<name>[^/]+?)-(?P<version>[^/-]+)"
    r"(-py[\d.]+)?\.(dist-info|egg-info))/(METADATA|PKG-INFO)"
)


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """A path that both bring, with other content: `last` is whose file stays."""

    path: str
    first: str
    last: str


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """A Python distribution as it is installed: its folders, without a slash in front."""

    name: str
    version: str
    site: str
    info: str


class Replaced(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution of a conda package that gives way to pip's, as pip would have it.

    `removed` are its paths in the image that pip's does not have.
    """

    package: str
    old: Distribution
    new: Distribution
    removed: tuple[str, ...]


def parse_distribution(path: str) -> Distribution | None:
    """The distribution whose metadata this path is."""
    found = _METADATA.fullmatch(path)
    if not found:
        return None
    return Distribution(
        name=canonicalize_name(found["name"]),
        version=found["version"],
        site=found["site"],
        info=f"{found['site']}/{found['info']}",
    )


def recorded_paths(record: str, distribution: Distribution) -> tuple[str, ...]:
    """The paths that a RECORD names, in the image."""
    names = (line.rsplit(",", 2)[0].strip('"') for line in record.splitlines())
    return tuple(posixpath.normpath(f"{distribution.site}/{name}") for name in names if name)


def say_overlaps(overlaps: Sequence[Overlap]) -> list[str]:
    """A line for each two packages, the first few."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for one in sorted(overlaps, key=lambda one: (one.first, one.last, one.path)):
        pairs.setdefault((one.first, one.last), []).append(one.path)
    lines = []
    for (first, last), paths in list(pairs.items())[:MOST_LINES]:
        more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
        lines.append(f"{first} and {last} both bring /{paths[0]}{more}: {last} wins.")
    rest = list(pairs.values())[MOST_LINES:]
    if rest:
        count = sum(map(len, rest))
        lines.append(f"{len(rest)} more pairs of packages bring the same {count} paths.")
    return lines


def say_replaced(replaced: Iterable[Replaced]) -> list[str]:
    """A line for each distribution that was there twice."""
    return [
        f"{one.old.name} {one.old.version} of conda's {one.package} gives way to pip's "
        f"{one.new.version}. Name it once: leave it out of the pip section, or of dependencies."
        for one in replaced
    ]
