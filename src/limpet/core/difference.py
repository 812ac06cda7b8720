"""The difference between two images: packages, sizes, licences, and what they are made from."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from limpet.core.contents import Contents, Manager, Software
from limpet.core.inspection import Inspection


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A package that is in one of two images, or other in the second. Empty: not in that one."""

    name: str
    manager: Manager
    before: str = ""
    after: str = ""
    size_bytes: int = 0
    files: int = 0
    license_before: str = ""
    license_after: str = ""
    kind: str


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that differs: the base, the Python, a variable, a label."""

    name: str
    before: str = ""
    after: str = ""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """From the first to the second; sizes and counts are second minus first.

    The image's size is that of its file, all others are unpacked. `kind` of a change is `added`,
    `removed`, `changed` (another version), or `resized` (other files of the same version).
    """

    before: str
    after: str
    image_bytes: int
    size_bytes: int
    files: int
    settings: tuple[Setting, ...] = ()
    changes: tuple[Change, ...] = ()
    new_licenses: tuple[str, ...] = ()
    gone_licenses: tuple[str, ...] = ()

    @property
    def relicensed(self) -> tuple[Change, ...]:
        """Packages in both whose licence is another now."""
        return tuple(
            one
            for one in self.changes
            if one.kind in ("changed", "resized") and one.license_before != one.license_after
        )


def plan_difference(first: Inspection, second: Inspection) -> Difference:
    """What is other in the second image."""
    old, new = first.contents or Contents(), second.contents or Contents()
    one, two = ({_key(item): item for item in contents.software} for contents in (old, new))
    licenses = [{item.license for item in contents.packages} - {""} for contents in (old, new)]
    changes = [_change(one.get(key), two.get(key)) for key in sorted({*one, *two})]
    return Difference(
        before=first.path,
        after=second.path,
        image_bytes=second.size_bytes - first.size_bytes,
        size_bytes=_sum(new, "size_bytes") - _sum(old, "size_bytes"),
        files=_sum(new, "files") - _sum(old, "files"),
        settings=_settings(first, second),
        changes=tuple(change for change in changes if change.kind != "same"),
        new_licenses=tuple(sorted(licenses[1] - licenses[0])),
        gone_licenses=tuple(sorted(licenses[0] - licenses[1])),
    )


def _key(item: Software) -> tuple[Manager, str]:
    return item.manager, item.name


def _sum(contents: Contents, what: str) -> int:
    return sum(getattr(item, what) for item in contents.software)


def _change(old: Software | None, new: Software | None) -> Change:
    there = new or old
    assert there
    empty = Software(name=there.name, manager=there.manager)
    before, after = old or empty, new or empty
    return Change(
        name=there.name,
        manager=there.manager,
        before=before.version,
        after=after.version,
        size_bytes=after.size_bytes - before.size_bytes,
        files=after.files - before.files,
        license_before=before.license,
        license_after=after.license,
        kind=_kind(old, new),
    )


def _kind(old: Software | None, new: Software | None) -> str:
    if old is None or new is None:
        return "removed" if new is None else "added"
    if old.version != new.version:
        return "changed"
    sizes = (old.size_bytes, old.files, old.license) == (new.size_bytes, new.files, new.license)
    return "same" if sizes else "resized"


def _settings(first: Inspection, second: Inspection) -> tuple[Setting, ...]:
    one, two = _facts(first), _facts(second)
    return tuple(
        Setting(name=name, before=one.get(name, ""), after=two.get(name, ""))
        for name in (*one, *(name for name in two if name not in one))
        if one.get(name, "") != two.get(name, "")
    )


def _facts(seen: Inspection) -> Mapping[str, str]:
    facts = seen.facts
    if facts is None:
        return {"kind": seen.kind, "machine": seen.arch}
    return {
        "kind": seen.kind,
        "machine": seen.arch,
        "layout": facts.layout,
        "base": facts.base.reference,
        "base digest": facts.base.digest,
        "python": facts.python,
        "limpet": facts.limpet,
        **{f"[run] {name}": _text(value) for name, value in _run(seen).items()},
        **{f"variable {name}": value for name, value in sorted(facts.env.items())},
        **{f"label {name}": value for name, value in sorted(facts.labels.items())},
    }


def _run(seen: Inspection) -> dict[str, object]:
    return dict(msgspec.to_builtins(seen.facts.run)) if seen.facts else {}


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
