"""`limpet lock --freeze`: from what is installed to a lock of exactly that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from packaging.utils import canonicalize_name

from limpet.actions.lock import HashOf, finish_package, place_package
from limpet.core.errors import LockError
from limpet.core.facts import BaseFacts, Distribution, Interpreter
from limpet.core.lock import Lock, LockedBase
from limpet.core.provided import INSTALLERS
from limpet.core.selection import parse_resolved, select_packages
from limpet.core.solver_errors import explain_failure
from limpet.core.tags import make_target
from limpet.tools.uv import Resolution, Resolved, resolve


def freeze_distributions(
    distributions: Sequence[Distribution],
    base: LockedBase,
    facts: BaseFacts,
    interpreter: Interpreter,
    *,
    cache: Path,
    folder: Path,
    direct_urls: Mapping[str, Mapping[str, Any]] | None = None,
    options: tuple[str, ...] = (),
    offline: bool = False,
    hash_of: HashOf | None = None,
) -> Lock:
    """A lock of these distributions: exact versions, with hashes from the index.

    `direct_urls` are their direct_url.json (PEP 610), by name. LockError names all that no index
    has. `options` are requirements-file lines that name indexes.
    """
    target = make_target(interpreter, facts.libc, facts.arch)
    lines = {
        name: _line(name, one.version, (direct_urls or {}).get(one.name))
        for one in distributions
        if (name := str(canonicalize_name(one.name))) not in INSTALLERS
    }
    resolution = Resolution(
        target=target, folder=folder, options=options, offline=offline, with_dependencies=False
    )
    resolved = _resolve_all(lines, resolution, cache)
    if resolved.failure:
        raise explain_failure(resolved.failure, target)
    selected = select_packages(parse_resolved(resolved.pylock), target)
    return Lock(
        base=base,
        python=interpreter.version,
        interpreter=interpreter.path,
        packages=tuple(
            finish_package(place_package(one, resolved.folder), folder, hash_of) for one in selected
        ),
        isolated_from_base=True,
    )


def _resolve_all(lines: dict[str, str], resolution: Resolution, cache: Path) -> Resolved:
    """Resolve exactly these; LockError once it is known which of them no index has.

    uv names one at a time, so those are set aside until the others resolve.
    """
    missing: list[str] = []
    while True:
        asked = msgspec.structs.replace(resolution, lines=tuple(lines.values()))
        resolved = resolve(asked, cache=cache)
        absent = _absent(resolved.failure, lines)
        if not absent:
            break
        missing += [lines.pop(name) for name in absent]
    if missing:
        raise LockError(
            "Some of what is installed is in no package index.",
            why="\n".join(sorted(missing)),
            now="Name the index or --find-links folder that has them.",
        )
    return resolved


def _line(name: str, version: str, direct: Mapping[str, Any] | None) -> str:
    """The requirement that would install the same again."""
    if not direct:
        return f"{name}=={version}"
    url = str(direct.get("url", ""))
    fragment = f"#subdirectory={direct['subdirectory']}" if direct.get("subdirectory") else ""
    if vcs := direct.get("vcs_info"):
        return f"{name} @ {vcs['vcs']}+{url}@{vcs['commit_id']}{fragment}"
    return f"{name} @ {url}{fragment}"


def _absent(failure: str, lines: Mapping[str, str]) -> list[str]:
    """Which of the asked packages uv says that no index has, at all or in that version."""
    found = re.findall(
        r"([\w.-]+) was not found in the package registry"
        r"|there is no version of ([\w.-]+?)==|only ([\w.-]+?)[<>=!]",
        failure,
    )
    names = {str(canonicalize_name(next(filter(None, match)))) for match in found}
    return sorted(names & lines.keys())
