"""What imports wrote or could not write, judged: observations in two images → findings.

Each module is imported twice: in the image as it is (read-only), and under a throw-away writable
layer. The first tells what is refused and whether it matters, the second what is really written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Literal

import msgspec

from limpet.core.caches import CACHES
from limpet.core.findings import Finding

MOST_PATHS = 8
MOST_LINES = 5
# Not the image's: the runtime mounts the host's over these, or the check its own.
_NOT_IMAGE = ("/tmp", "/var/tmp", "/dev", "/proc", "/sys", "/run")


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """A try to write that Python saw."""

    event: str
    path: str
    refused: bool


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What appeared or changed: in the image's own tree, and in the home."""

    image: tuple[str, ...] = ()
    home: tuple[str, ...] = ()


class ImportSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One import. `again` are the paths that a second import wrote once more."""

    module: str
    distribution: str = ""
    outcome: Literal["ok", "failed", "crashed", "hung"]
    code: int = 0
    last: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    changed: Changed = msgspec.field(default_factory=Changed)
    again: tuple[str, ...] = ()


class ImportsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `check --imports` gives. `layered`: whether native code's writes were seen as well."""

    image: str
    python: str
    modules: tuple[str, ...]
    layered: bool
    findings: tuple[Finding, ...]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a cure depends on. `home` is where the home was seen inside, `timeout_s` the limit."""

    image: str
    is_limpets: bool
    home: str
    timeout_s: float


def judge_imports(
    plain: Sequence[ImportSeen], layered: Sequence[ImportSeen], setting: Setting
) -> tuple[Finding, ...]:
    """The findings, worst first."""
    over = {seen.module: seen for seen in layered}
    told: set[str] = set()
    found: list[Finding] = []
    for seen in plain:
        found += _judge(seen, over.get(seen.module, seen), setting, told)
    order = ("error", "warning", "note")
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def _judge(
    seen: ImportSeen, over: ImportSeen, setting: Setting, told: set[str]
) -> Iterator[Finding]:
    refused = [a.path for a in seen.attempts if a.refused and _is_image(a.path, setting)]
    written = list(over.changed.image)
    all_paths = dict.fromkeys((*refused, *written))
    paths = [
        path
        for path in all_paths
        if path not in told and not any(other.startswith(path + "/") for other in all_paths)
    ]
    told |= set(paths)
    evidence = (
        *(f"refused  {path}" for path in paths[:MOST_PATHS] if path in refused),
        *(f"written  {path}" for path in paths[:MOST_PATHS] if path not in refused),
        *((f"… and {len(paths) - MOST_PATHS} more",) if len(paths) > MOST_PATHS else ()),
    )
    if seen.outcome != "ok" and over.outcome == "ok":
        yield Finding(
            code="LMP801",
            severity="error",
            what=f"import {seen.module} works only where it can write into the image.",
            evidence=(*evidence, *seen.last[-1:]),
            cause="The image is read-only, as every job sees it.",
            cure=propose(over, paths, setting),
        )
    elif seen.outcome != "ok":
        yield _broken(seen, setting)
    elif paths:
        yield Finding(
            code="LMP802",
            severity="warning",
            what=f"import {seen.module} wants to write into the image, and does without.",
            evidence=evidence,
            cause="What it keeps there is made anew, or done without, in every process.",
            cure=propose(over, paths, setting),
        )
    if over.changed.home:
        yield Finding(
            code="LMP803",
            severity="note",
            what=f"import {seen.module} writes into the home.",
            evidence=tuple(over.changed.home[:MOST_PATHS]),
            cause="With --home isolated or private that is this image's own folder.",
        )


def _is_image(path: str, setting: Setting) -> bool:
    covered = (*_NOT_IMAGE, *([setting.home] if setting.home else []))
    return not any(path == place or path.startswith(place + "/") for place in covered)


def _broken(seen: ImportSeen, setting: Setting) -> Finding:
    name = seen.module
    if seen.outcome == "hung":
        return Finding(
            code="LMP804",
            severity="error",
            what=f"import {name} did not end within {setting.timeout_s:g} s.",
            evidence=seen.last[-MOST_LINES:],
            cause="It may wait for a network, a lock or a device.",
            cure=f"limpet check {setting.image} --imports {name} --timeout 300",
        )
    if seen.outcome == "crashed":
        return Finding(
            code="LMP805",
            severity="error",
            what=f"import {name} was killed by signal {-seen.code}.",
            evidence=seen.last[-MOST_LINES:],
            cause="Native code crashed: often a library of another version, or a missing CPU "
            "instruction.",
        )
    return Finding(
        code="LMP806",
        severity="error",
        what=f"import {name} fails.",
        evidence=seen.last[-MOST_LINES:],
        cause="It fails in the same way where it can write.",
        cure=_missing(seen.last),
    )


def _missing(last: Sequence[str]) -> str:
    text = last[-1] if last else ""
    if "No module named" in text:
        return f"Add to the description: {text.rpartition('named')[2].strip()}"
    if "cannot open shared object file" in text:
        library = text.partition("Error: ")[2].partition(":")[0]
        return f"Add the Debian package that has {library} to the recipe: [image] apt = […]"
    return ""


def propose(seen: ImportSeen, paths: Sequence[str], setting: Setting) -> str:
    """A cure: a variable of the table, `[warm]` or `[files]`, a bind, or an overlay."""
    rows = [c for c in CACHES if c.place and c.package == seen.distribution.lower()]
    if rows:
        return "\n".join(
            f"limpet run --env {row.variable}={_flag(row.flag)}/tmp/{row.package} {setting.image} …"
            for row in rows
        )
    folders = sorted({str(PurePosixPath(path).parent) for path in paths})
    overlay = (
        f"limpet overlay create {setting.image} --size 1G\n"
        f"limpet run --overlay default {setting.image} …"
    )
    if not folders:
        return overlay
    folder = folders[0]
    bind = f"limpet run --bind FOLDER_OF_YOURS:{folder} {setting.image} …"
    in_packages = "site-packages" in folder or "dist-packages" in folder
    if not setting.is_limpets or seen.again:
        # A bind hides what is there, so never over a package's own folder.
        return overlay if in_packages else bind
    lines = ["[warm]", f'imports = ["{seen.module}"]']
    files = [f'"{PurePosixPath(path).name}" = "{path}"' for path in paths[:MOST_PATHS]]
    if in_packages:
        lines += ["", "# or, if you have these files:", "[files]", *files]
    return "\n".join(lines)


def _flag(name: str) -> str:
    return f"{name}=" if name else ""
