"""Why each package is there: the edges between packages, and the ways from what was asked for."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from limpet.core.contents import Contents, Software

MOST_ROUNDS = 50  # extras that ask for extras; a hostile image may do so for ever


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """`source` requires `target`; `wish` is the version that it wants, empty for any."""

    source: str
    target: str
    wish: str = ""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """`asked`: packages that the recipe names, and how. `loose`: those that no package requires."""

    edges: tuple[Edge, ...] = ()
    asked: dict[str, str] = msgspec.field(default_factory=dict)
    loose: tuple[str, ...] = ()

    def needed_by(self, name: str) -> tuple[Edge, ...]:
        """Who requires it."""
        return tuple(edge for edge in self.edges if edge.target == name)


class _Wish(msgspec.Struct, frozen=True, kw_only=True):
    target: str
    version: str
    extras: frozenset[str]
    marker: Requirement | None = None


def plan_graph(contents: Contents) -> Graph:
    """The graph of an image's packages; a requirement that nothing installed meets has no edge."""
    packages = contents.packages
    names = _names(packages)
    wishes = {one.name: tuple(_wishes(one, names)) for one in packages}
    roots = [
        wish
        for line in contents.requested
        if (wish := _pip_wish(line, names)) and _applies(wish, set(), contents.markers)
    ]
    extras: dict[str, set[str]] = {one.name: set() for one in packages}
    for wish in roots:
        extras[wish.target] |= wish.extras
    edges: dict[tuple[str, str], Edge] = {}
    for _ in range(MOST_ROUNDS):
        before = sum(map(len, extras.values()))
        for source, told in wishes.items():
            for wish in told:
                if _applies(wish, extras[source], contents.markers):
                    extras[wish.target] |= wish.extras
                    edges[source, wish.target] = Edge(
                        source=source, target=wish.target, wish=wish.version
                    )
        if sum(map(len, extras.values())) == before:
            break
    needed = {edge.target for edge in edges.values() if edge.source != edge.target}
    asked = {wish.target: wish.version for wish in roots}
    return Graph(
        edges=tuple(edge for _, edge in sorted(edges.items()) if edge.source != edge.target),
        asked=dict(sorted(asked.items())),
        loose=tuple(
            sorted(one.name for one in packages if one.name not in needed and one.name not in asked)
        ),
    )


def find_ways(graph: Graph, name: str) -> tuple[tuple[str, ...], ...]:
    """The shortest way to a package from each of those that were asked for, shortest first.

    Where nothing is known of what was asked for, or none of it leads there, from the loose ones.
    """
    below: dict[str, list[str]] = {}
    for edge in graph.edges:
        below.setdefault(edge.source, []).append(edge.target)
    for roots in (tuple(graph.asked), graph.loose):
        ways = [way for root in roots if (way := _way(below, root, name))]
        if ways:
            return tuple(sorted(ways, key=lambda way: (len(way), way)))
    return ()


def _way(below: Mapping[str, Sequence[str]], root: str, name: str) -> tuple[str, ...]:
    came: dict[str, str] = {root: ""}
    queue = deque([root])
    while queue:
        here = queue.popleft()
        if here == name:
            way = [here]
            while came[way[-1]]:
                way.append(came[way[-1]])
            return tuple(reversed(way))
        for target in below.get(here, ()):
            if target not in came:
                came[target] = here
                queue.append(target)
    return ()


def plan_requested(lines: Iterable[str], conda: Iterable[str] = ()) -> tuple[str, ...]:
    """Requirements as they may be written down: without hashes, options, URLs and their logins.

    Lines without a name (a path) are left out; of conda's match specs only the name is kept where
    they are no requirement of pip's, too.
    """
    kept = []
    for line in lines:
        with contextlib.suppress(InvalidRequirement):
            wanted = Requirement(re.split(r"\s+--?[a-z]", line.strip())[0])
            wanted.url = None
            kept.append(str(wanted))
    for spec in conda:
        bare = spec.rpartition("::")[2].strip()
        with contextlib.suppress(InvalidRequirement):
            kept.append(str(Requirement(re.split(r"[\s=<>!~\[]", bare)[0])))
    return tuple(dict.fromkeys(kept))


def _names(packages: Sequence[Software]) -> dict[str, str]:
    """Every name by which a package can be required → its own name; the package's own wins."""
    names = {alias: one.name for one in packages for alias in one.provides}
    names |= {canonicalize_name(one.name): one.name for one in packages}
    return names | {one.name: one.name for one in packages}


def _wishes(one: Software, names: Mapping[str, str]) -> Iterator[_Wish]:
    for line in one.requires:
        wish = _conda_wish(line, names) if one.manager == "conda" else _pip_wish(line, names)
        if wish:
            yield wish


def _conda_wish(line: str, names: Mapping[str, str]) -> _Wish | None:
    name, _, rest = line.strip().partition(" ")
    if name not in names:
        return None
    return _Wish(target=names[name], version=rest.split(" ")[0], extras=frozenset())


def _pip_wish(line: str, names: Mapping[str, str]) -> _Wish | None:
    try:
        wanted = Requirement(line)
    except InvalidRequirement:
        return None
    target = names.get(canonicalize_name(wanted.name), "")
    if not target:
        return None
    return _Wish(
        target=target,
        version=str(wanted.specifier),
        extras=frozenset(canonicalize_name(extra) for extra in wanted.extras),
        marker=wanted if wanted.marker else None,
    )


def _applies(wish: _Wish, extras: set[str], markers: Mapping[str, str]) -> bool:
    marker = wish.marker.marker if wish.marker else None
    if marker is None:
        return True
    try:
        return any(marker.evaluate({**markers, "extra": extra}) for extra in ("", *extras))
    except (UndefinedComparison, UndefinedEnvironmentName, InvalidVersion):
        return False
