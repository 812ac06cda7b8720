"""Whose each file of an image is: the packages with what they take up, and what is left over."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import msgspec

from limpet.core.contents import Manager, Software
from limpet.core.module_archive import ARCHIVE
from limpet.core.package_files import Metadata
from limpet.formats.image_tree import ImageTree, Member
from limpet.tools.contents.records import Records

_ARCHIVE = ARCHIVE.lstrip("/")
_MODULE = re.compile(r"([A-Za-z]\w*)(?:/__init__\.py|\.py|(?:\.[\w-]+)?\.so)$")
_TESTS = re.compile(r"(?:^|/)tests?(?:ing_data)?/")

Key = tuple[Manager, str]


def find_software(tree: ImageTree, records: Records, prefix: str) -> tuple[Software, ...]:
    """Each package with its files, then what is left by folder; largest first.

    The first to name a file has it: conda, then Debian, for both bring Python packages. Python
    packages outside of `prefix`, if there is one, are the base's.
    """
    owned = _Owned()
    for metadata in records.conda:
        owned.add(("conda", metadata.name), metadata)
    for metadata in records.system:
        owned.add(("system", metadata.name), metadata)
    for metadata in records.python:
        if not metadata.trouble:
            inside = not prefix or metadata.folder.startswith(f"{prefix}/")
            owned.add_python("pip" if inside else "base", metadata)
    return tuple(owned.count(tree))


class _Owned:
    def __init__(self) -> None:
        self._owners: dict[str, Key] = {}
        self._packages: dict[Key, Software] = {}

    def add(self, key: Key, metadata: Metadata) -> None:
        self._packages.setdefault(key, as_software(metadata, key[0]))
        for path in metadata.files:
            self._owners.setdefault(path, key)

    def add_python(self, manager: Manager, metadata: Metadata) -> None:
        """One of conda's or the system's packages brings it: that is known by this name as well."""
        owner = self._owners.get(metadata.files[0]) if metadata.files else None
        if owner is None or owner[0] not in ("conda", "system"):
            self.add((manager, metadata.name), metadata)
            return
        package = self._packages[owner]
        self._packages[owner] = msgspec.structs.replace(
            package,
            provides=(*package.provides, metadata.name),
            license=package.license or metadata.license,
            summary=package.summary or metadata.summary,
        )

    def count(self, tree: ImageTree) -> Iterator[Software]:
        """A file with several names counts as one, where its first name is.

        The module archive counts as nothing: it is the same blocks once more.
        """
        sizes: dict[Key, int] = defaultdict(int)
        files: dict[Key, int] = defaultdict(int)
        modules: dict[Key, set[str]] = defaultdict(set)
        useless: dict[Key, int] = defaultdict(int)
        seen: set[object] = set()
        for path, member in tree.files():
            owner = self._owners.get(path) or ("other", "/" + "/".join(path.split("/")[:-1][:2]))
            size = 0 if member.key in seen or path == _ARCHIVE else member.size_bytes
            seen.add(member.key)
            sizes[owner] += size
            files[owner] += 1
            if owner[0] != "other":
                useless[owner] += size if is_useless(path) else 0
                if module := _module_of(path):
                    modules[owner].add(module)
        for key, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
            yield msgspec.structs.replace(
                self._packages.get(key) or Software(name=key[1], manager=key[0]),
                size_bytes=size,
                files=files[key],
                useless_bytes=useless[key],
                modules=tuple(sorted(modules[key])),
            )


def as_software(metadata: Metadata, manager: Manager) -> Software:
    """A package as its own words have it, not measured."""
    return Software(
        name=metadata.name,
        version=metadata.version,
        manager=manager,
        folder=f"/{metadata.folder}" if metadata.folder else "",
        license=metadata.license,
        summary=metadata.summary,
        requires=metadata.requires,
        trouble=metadata.trouble,
    )


def measure(tree: ImageTree, metadata: Metadata) -> Software:
    """A Python package with the files that it names, whoever names them as well."""
    members = {path: tree.members[path] for path in metadata.files}
    return msgspec.structs.replace(
        as_software(metadata, "pip"),
        size_bytes=_sum(members),
        files=len(members),
        useless_bytes=_sum({path: one for path, one in members.items() if is_useless(path)}),
    )


def _sum(members: dict[str, Member]) -> int:
    return sum({member.key: member.size_bytes for member in members.values()}.values())


def is_useless(path: str) -> bool:
    """Whether a package's file is a test's or a static library."""
    return path.endswith(".a") or _TESTS.search(path) is not None


def _module_of(path: str) -> str:
    """The name by which a file of site-packages is imported, if it is a module at the top."""
    at = max(path.find("/site-packages/"), path.find("/dist-packages/"))
    found = _MODULE.match(path[at + len("/site-packages/") :]) if at >= 0 else None
    return found[1] if found else ""
