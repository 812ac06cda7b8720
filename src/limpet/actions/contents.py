"""What is installed in an image: conda's, Debian's and Python's packages, and the files of none."""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from limpet.core.contents import Contents, Manager, Software, linux_markers
from limpet.core.image import RECIPE_OBJECT, SBOM_OBJECT
from limpet.core.package_files import (
    Metadata,
    parse_conda_meta,
    parse_dpkg_status,
    parse_metadata,
    parse_record,
)
from limpet.core.sbom import REQUESTED
from limpet.core.seen import ImageSeen
from limpet.tools import images
from limpet.tools.image_tree import Tree, open_tree

METADATA_BYTES = 1 << 20
LIST_BYTES = 32 << 20
READ_BYTES = 256 << 20  # of all lists together: an image may claim any number of them
MOST_NOTES = 20

_DIST_INFO = re.compile(
    r"((?:.*/)?(?:site|dist)-packages)/"
    r"([^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info))$"
)
_INFO_FOLDER = re.compile(r"(.*-packages/[^/]+\.(?:dist|egg)-info)/")
_CONDA_META = re.compile(r"((?:.*/)?)conda-meta/([^/]+)\.json$")
_BYTE_CODE = re.compile(r"(.*/)__pycache__/([^/]+?)\.[^/.]+(?:\.opt-\d)?\.pyc$")
_MODULE = re.compile(r"([A-Za-z]\w*)(?:/__init__\.py|\.py|(?:\.[\w-]+)?\.so)$")
_DPKG_LIST = "var/lib/dpkg/info/{}.list"
_PYTHON = re.compile(r"/python(3\.\d+)/(?:site|dist)-packages$")

Key = tuple[Manager, str]


def read_contents(image: ImageSeen) -> Contents:
    """Read an image's packages from its files. ImageError where it cannot be looked into."""
    with open_tree(image) as tree:
        found = _Found(tree, image.facts.prefix.strip("/") if image.facts else "")
        found.read_all()
        software = tuple(found.describe())
    python = (image.facts.python if image.facts else "") or found.python
    return Contents(
        software=software,
        layers=tuple(tree.layers),
        requested=read_requested(image),
        markers=linux_markers(python or "3", image.arch),
        unreadable=tuple(found.notes[:MOST_NOTES]),
    )


def read_requested(image: ImageSeen) -> tuple[str, ...]:
    """What the recipe asked for by name: from the SBOM, else as far as the recipe itself says."""
    path = Path(image.path)
    if image.kind != "sif" or image.facts is None:
        return ()
    try:
        bill = json.loads(images.read_named(path, SBOM_OBJECT) or b"{}")
        told = bill.get("metadata", {}).get("component", {}).get("properties", [])
        asked = [one["value"] for one in told if one["name"] == REQUESTED]
        if not asked:
            recipe = tomllib.loads((images.read_named(path, RECIPE_OBJECT) or b"").decode())
            asked = list(recipe.get("packages", {}).get("pip", []))
        return tuple(map(str, asked))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ()


class _Found:
    """Packages with the files that are theirs; the first to name a file has it."""

    def __init__(self, tree: Tree, prefix: str) -> None:
        self.tree = tree
        self.prefix = prefix
        self.python = ""
        self.notes: list[str] = []
        self._owners: dict[str, Key] = {}
        self._packages: dict[Key, Software] = {}
        self._infos: dict[str, list[str]] = defaultdict(list)  # folder of metadata → its files
        self._read_bytes = 0

    def read_all(self) -> None:
        """conda first, then Debian: both bring Python packages, which are not counted twice."""
        self._read_conda()
        self._read_dpkg()
        for path in self.tree.sizes:
            if found := _INFO_FOLDER.match(path):
                self._infos[found[1]].append(path)
        for path in sorted(self.tree.sizes):
            if found := _DIST_INFO.match(path):
                self._read_python(path, found[1])

    def describe(self) -> Iterator[Software]:
        """Each package with its files counted, largest first; then what is left, by folder."""
        sizes: dict[Key, list[int]] = defaultdict(lambda: [0, 0])
        modules: dict[Key, set[str]] = defaultdict(set)
        for path, size in self.tree.sizes.items():
            owner = self._owner(path)
            sizes[owner][0] += size
            sizes[owner][1] += 1
            if owner[0] != "other" and (module := _module_of(path)):
                modules[owner].add(module)
        for key, (size, _) in sorted(sizes.items(), key=lambda item: (-item[1][0], item[0])):
            package = self._packages.get(key) or Software(name=key[1], manager=key[0])
            yield msgspec.structs.replace(
                package,
                size_bytes=size,
                files=sizes[key][1],
                modules=tuple(sorted(modules[key])),
            )

    def _owner(self, path: str) -> Key:
        if owner := self._owners.get(path):
            return owner
        compiled = _BYTE_CODE.match(path)
        if compiled and (owner := self._owners.get(f"{compiled[1]}{compiled[2]}.py")):
            return owner
        return "other", "/" + "/".join(path.split("/")[:-1][:2])

    def _read(self, path: str, limit_bytes: int) -> bytes:
        """A list's bytes; a note, and nothing, where it cannot be had or is too much."""
        if self._read_bytes > READ_BYTES:
            self.notes.append(f"/{path}: not read, the lists are too large together")
            return b""
        try:
            data = self.tree.read(path, limit_bytes)
        except Exception as error:  # any codec's own kind of failure on damaged data
            self.notes.append(f"/{path}: {error}")
            return b""
        self._read_bytes += len(data)
        return data

    def _add(self, key: Key, metadata: Metadata, paths: Iterable[str]) -> None:
        self._packages.setdefault(
            key,
            Software(
                name=metadata.name,
                version=metadata.version,
                manager=key[0],
                license=metadata.license,
                summary=metadata.summary,
                requires=metadata.requires,
            ),
        )
        for path in paths:
            real = path if path in self.tree.sizes else self.tree.real_path(path)
            self._owners.setdefault(real, key)

    def _read_conda(self) -> None:
        for path in sorted(self.tree.sizes):
            if found := _CONDA_META.match(path):
                metadata = parse_conda_meta(self._read(path, LIST_BYTES), found[1].strip("/"))
                if metadata:
                    self._add(("conda", metadata.name), metadata, (path, *metadata.files))

    def _read_dpkg(self) -> None:
        for metadata, arch in parse_dpkg_status(self._read("var/lib/dpkg/status", LIST_BYTES)):
            lists = [_DPKG_LIST.format(name) for name in (metadata.name, f"{metadata.name}:{arch}")]
            named = b"\n".join(
                self._read(one, LIST_BYTES) for one in lists if one in self.tree.sizes
            )
            paths = named.decode("utf-8", "surrogateescape").splitlines()
            self._add(("system", metadata.name), metadata, (path.lstrip("/") for path in paths))

    def _read_python(self, path: str, site: str) -> None:
        metadata = parse_metadata(self._read(path, METADATA_BYTES))
        if metadata is None:
            return
        if told := _PYTHON.search(f"/{site}"):
            self.python = self.python or told[1]
        if owner := self._owners.get(path):
            self._say_more(owner, metadata)
            return
        inside = not self.prefix or path.startswith(f"{self.prefix}/")
        info = posixpath.dirname(path)
        record = self._read(f"{info}/RECORD", LIST_BYTES) if info != site else b""
        files = (path, *parse_record(record, site), *self._infos.get(info, ()))
        self._add(("pip" if inside else "base", metadata.name), metadata, files)

    def _say_more(self, owner: Key, metadata: Metadata) -> None:
        """A package of conda's or the system's that brings a Python package: also of that name."""
        package = self._packages[owner]
        self._packages[owner] = msgspec.structs.replace(
            package,
            provides=(*package.provides, metadata.name),
            license=package.license or metadata.license,
            summary=package.summary or metadata.summary,
        )


def _module_of(path: str) -> str:
    """The name by which a file of site-packages is imported, if it is a module at the top."""
    at = max(path.find("/site-packages/"), path.find("/dist-packages/"))
    found = _MODULE.match(path[at + len("/site-packages/") :]) if at >= 0 else None
    return found[1] if found else ""
