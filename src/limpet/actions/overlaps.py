"""What conda's and pip's packages of one environment both bring: looked for in their pieces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec

from limpet.actions.assemble import Parts
from limpet.core.events import Event, Notify
from limpet.core.overlaps import (
    Distribution,
    Overlap,
    Replaced,
    parse_distribution,
    recorded_paths,
    say_overlaps,
    say_replaced,
)
from limpet.core.piece import Piece
from limpet.core.staging import stale_byte_code
from limpet.formats.squashfs import Node, Squashfs
from limpet.formats.squashfs.difference import Comparison
from limpet.tools import answers

FORMAT = 1  # raise it when the same packages are to be settled otherwise


@dataclass(frozen=True)
class _Brought:
    """The files of one package, by path, and the Python distributions among them by name."""

    name: str
    image: Squashfs
    by_pip: bool
    files: dict[str, Node] = field(default_factory=dict)
    distributions: dict[str, Distribution] = field(default_factory=dict)


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a set of packages, and which paths none of them may bring."""

    lines: tuple[str, ...]
    removed: tuple[str, ...]


def settle_overlaps(
    parts: Parts,
    conda: Sequence[Piece],
    wheels: Sequence[Piece],
    *,
    compiled: Collection[str],
    minor: str,
    cache: Path,
    notify: Notify,
) -> Parts:
    """The parts without what pip's packages replace of conda's; all that overlaps is said.

    `conda` and `wheels` are in their order of installation, `compiled` the conda packages that have
    byte code. What was found is kept: a walk over all paths costs a build some tenths of a second.
    """
    told = [
        FORMAT,
        [one.key for one in conda],
        [one.key for one in wheels],
        sorted(compiled),
        minor,
    ]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    settled = answers.kept_answer(
        cache / "overlaps" / f"{key}.json",
        Settled,
        lambda: _settle(conda, wheels, compiled, minor),
    )
    for line in settled.lines:
        notify(Event(stage="packages", kind="note", message=line))
    return msgspec.structs.replace(parts, removed=(*parts.removed, *settled.removed))


def _settle(
    conda: Sequence[Piece], wheels: Sequence[Piece], compiled: Collection[str], minor: str
) -> Settled:
    with ExitStack() as stack:
        brought = [_look(piece, stack, by_pip=False) for piece in conda]
        brought += [_look(piece, stack, by_pip=True) for piece in wheels]
        replaced = list(_find_replaced(brought, minor))
        gone = {path for one in replaced for path in one.removed}
        told = {(one.package, one.new.name) for one in replaced}
        overlaps = [one for one in _find_overlaps(brought) if (one.first, one.last) not in told]
    bare = {one.name for one in conda} - set(compiled)
    stale = (
        _byte_code(one.path, minor)
        for one in overlaps
        if one.last in bare and one.path.endswith(".py")
    )
    return Settled(
        lines=(*say_replaced(replaced), *say_overlaps(overlaps)),
        removed=(*sorted(gone), *stale),
    )


def _look(piece: Piece, stack: ExitStack, *, by_pip: bool) -> _Brought:
    image = Squashfs(stack.enter_context(piece.path.open("rb")))
    found = _Brought(piece.name, image, by_pip)
    for path, node in image.walk():
        if node.kind == "dir" or path.endswith(".pyc"):
            continue
        found.files[path] = node
        if one := parse_distribution(path):
            found.distributions[one.name] = one
    return found


def _find_replaced(brought: Sequence[_Brought], minor: str) -> Iterator[Replaced]:
    """What pip would uninstall before it installs: a distribution of the same name."""
    by_pip = {
        name: (one, found)
        for one in brought
        if one.by_pip
        for name, found in one.distributions.items()
    }
    for package in brought:
        for name, old in () if package.by_pip else package.distributions.items():
            if name in by_pip:
                other, new = by_pip[name]
                removed = set(_paths_of(package, old)) - other.files.keys()
                removed |= {_byte_code(path, minor) for path in removed if path.endswith(".py")}
                yield Replaced(
                    package=package.name, old=old, new=new, removed=tuple(sorted(removed))
                )


def _paths_of(package: _Brought, distribution: Distribution) -> Iterator[str]:
    """The files of a distribution, as far as its RECORD and its own folder say."""
    yield from (path for path in package.files if path.startswith(f"{distribution.info}/"))
    record = package.files.get(f"{distribution.info}/RECORD")
    if record and record.is_file:
        text = package.image.read(record).decode("utf-8", "replace")
        yield from (p for p in recorded_paths(text, distribution) if p in package.files)


def _byte_code(path: str, minor: str) -> str:
    return stale_byte_code(PurePosixPath(path), minor)


def _find_overlaps(brought: Sequence[_Brought]) -> Iterator[Overlap]:
    """Paths that differ between two packages; the same file twice is nobody's trouble."""
    comparison = Comparison()
    owners: dict[str, list[_Brought]] = {}
    for package in brought:
        for path in package.files:
            owners.setdefault(path, []).append(package)
    for path, packages in owners.items():
        *others, last = packages
        for first in others:
            if not _same(first.files[path], last.files[path], comparison):
                yield Overlap(path=path, first=first.name, last=last.name)


def _same(first: Node, last: Node, comparison: Comparison) -> bool:
    if first.kind != last.kind:
        return False
    if first.is_file:
        return comparison.has_same_content(first, last)
    return first.target == last.target
