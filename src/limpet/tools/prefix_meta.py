"""What a folder of software says of itself: which kind it is, and which packages it holds."""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator, Mapping
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from limpet.core.lock import FoundPackage
from limpet.core.pack import Metadata, Prefix, Tree, is_cached
from limpet.core.package_files import parse_direct_url

_DIST = re.compile(r"(?P<site>(?:.*/)?)[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)")
_DIST_ENDS = ("-info/METADATA", "-info/PKG-INFO", ".egg-info")
_EASYBUILD = re.compile(r"""^(name|version)\s*=\s*(['"])(.+?)\2""", re.MULTILINE)
_MOST_BYTES = 1 << 20


def probe_prefix(folder: Path) -> Prefix:
    """Which kind of environment this is, from its own files."""
    python = next(
        (path.name.removeprefix("python") for path in sorted(folder.glob("lib/python3.*"))), ""
    )
    if not os.path.lexists(folder / "bin/python") and not os.path.lexists(folder / "bin/python3"):
        python = ""
    programs = (folder / "bin").is_dir()
    if (folder / "conda-meta").is_dir():
        return Prefix(
            kind="conda",
            python=python,
            has_programs=programs,
            conda_name=_conda_name(folder),
            activates=any((folder / "etc/conda/activate.d").glob("*.sh")),
            variables=_conda_variables(folder),
        )
    if (folder / "pyvenv.cfg").is_file():
        home = _read_config(folder / "pyvenv.cfg").get("home", "")
        return Prefix(kind="venv", python=python, home=home, has_programs=programs)
    return Prefix(kind="folder", python=python, has_programs=programs)


def _read_config(path: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in _text(path).splitlines())
    return {key.strip().lower(): value.strip() for key, given, value in pairs if given}


def _conda_name(folder: Path) -> str:
    if (folder / "condabin").is_dir() or (folder / "bin/conda").is_file():
        return "base"
    return folder.name if folder.parent.name == "envs" else ""


def _conda_variables(folder: Path) -> dict[str, str]:
    """What `conda env config vars` and packages' own files set."""
    found: dict[str, str] = {}
    for path in sorted((folder / "etc/conda/env_vars.d").glob("*.json")):
        found |= {str(key): str(value) for key, value in _json(path).items()}
    state = _json(folder / "conda-meta/state").get("env_vars", {})
    return found | {str(key): str(value) for key, value in dict(state).items()}


def follow_links(path: str) -> tuple[dict[str, str], str]:
    """Each symbolic link on the way of an absolute path, by its true place, and where it ends."""
    links: dict[str, str] = {}
    names = [name for name in reversed(path.split("/")) if name]
    here = "/"
    while names and len(links) < 64:
        name = names.pop()
        if name in (".", ".."):
            here = posixpath.dirname(here) if name == ".." else here
            continue
        place = posixpath.join(here, name)
        try:
            target = os.readlink(place)  # noqa: PTH115 - the very text
        except OSError:
            here = place
            continue
        links[place] = target
        names += [part for part in reversed(target.split("/")) if part]
        here = "/" if target.startswith("/") else here
    return links, here


def find_python_root(program: str) -> str:
    """The installation that a Python's own file belongs to; empty where none is to be seen."""
    root = posixpath.dirname(posixpath.dirname(program))
    return root if any(Path(root).glob("lib*/python3.*/os.py")) else ""


def read_metadata(trees: Iterable[Tree], kept: Iterable[str] = ()) -> list[Metadata]:
    """What the packages of each tree say. `kept` are places that the image has besides."""
    trees = list(trees)
    places = (*(tree.place for tree in trees), *(str(t.folder) for t in trees), *kept)
    return [_read_tree(tree, places) for tree in trees]


def _read_tree(tree: Tree, places: tuple[str, ...]) -> Metadata:
    told = _Told(tree, places)
    told.read_conda()
    has_cache = tree.has_package_cache
    for one in tree.seen:
        path = one.path
        if not one.is_file or (has_cache and is_cached(path)):  # kept there, and not installed
            continue
        if path.endswith(_DIST_ENDS) and (matched := _DIST.fullmatch(path)):
            told.read_dist(path, matched["site"])
        elif path.endswith(".pth") and "site-packages" in path:
            told.read_pth(path)
        elif path.endswith(".spack/spec.json"):
            told.found += _read_spack(tree, path)
        elif "easybuild/" in path and path.endswith(".eb"):
            told.found += _read_easybuild(tree, path)
    return Metadata(
        found=tuple(dict.fromkeys(told.found)),
        hashes=told.hashes,
        expected=frozenset(told.expected),
        editable=told.editable,
    )


class _Told:
    """What the files of one tree tell, gathered."""

    def __init__(self, tree: Tree, places: tuple[str, ...]) -> None:
        self.found: list[FoundPackage] = []
        self.hashes: dict[str, str] = {}
        self.expected: set[str] = set()
        self.editable: dict[str, str] = {}
        self._owned: set[str] = set()  # by conda, whose hashes are right where a RECORD's are not
        self._tree = tree
        self._places = places

    def read_conda(self) -> None:
        """What conda-meta says, also of the environments below (a Miniconda's)."""
        for one in self._tree.seen:
            if not one.path.endswith(".json"):
                continue
            above, meta, _ = one.path.rpartition("conda-meta/")
            if not meta or (above and not above.endswith("/")):
                continue
            record = _json(self._tree.folder / one.path)
            if "name" in record and "version" in record:
                if above:
                    self._add(record["name"], record["version"], "conda", above.rstrip("/"))
                self._add_paths(above, record)

    def _add_paths(self, above: str, record: Mapping[str, Any]) -> None:
        self._owned.update(above + str(path) for path in record.get("files") or ())
        for entry in (record.get("paths_data") or {}).get("paths") or ():
            path, kind = above + str(entry.get("_path")), entry.get("path_type")
            digest = entry.get("sha256_in_prefix")
            if not digest and not entry.get("prefix_placeholder"):
                digest = entry.get("sha256")
            if path.endswith(".pyc") or kind == "directory":
                continue  # byte code is compiled anew by many tools
            self.expected.add(path)
            if digest and kind != "softlink":
                self.hashes[path] = str(digest)

    def _add(
        self, name: str, version: str, kind: Literal["pypi", "conda"], below: str, **more: str
    ) -> None:
        place = f"{self._tree.place}/{below}" if below else ""
        self.found.append(
            FoundPackage(name=str(name), version=str(version), kind=kind, place=place, **more)
        )

    def read_dist(self, path: str, site: str) -> None:
        """One .dist-info or .egg-info, where it is not conda's."""
        told = HeaderParser().parsestr(_text(self._tree.folder / path))
        if path in self._owned or not told["Name"]:
            return
        is_main = site.count("/") <= 3 and site.startswith("lib")
        folder = self._tree.folder / posixpath.dirname(path)
        direct = _json(folder / "direct_url.json")
        origin = parse_direct_url(direct) | {"installer": _text(folder / "INSTALLER").strip()[:40]}
        below = "" if is_main else site.rstrip("/")
        self._add(told["Name"], told["Version"] or "", "pypi", below, **origin)
        url = str(direct.get("url", ""))
        if (direct.get("dir_info") or {}).get("editable") and url.startswith("file:"):
            self._add_editable(told["Name"], unquote(urlsplit(url).path))
        for line, digest in _read_record(folder / "RECORD"):
            inside = posixpath.normpath(site + line)
            if inside.startswith(("../", "/")) or inside in self._owned:
                continue
            if not inside.endswith(".pyc"):
                self.expected.add(inside)
                self.hashes |= {inside: digest} if digest else {}

    def read_pth(self, path: str) -> None:
        """Folders that a .pth file puts on Python's path."""
        for line in _text(self._tree.folder / path).splitlines():
            if line.startswith("/"):
                self._add_editable(path, line.strip())

    def _add_editable(self, name: str, place: str) -> None:
        if not any(place == one or place.startswith(f"{one}/") for one in self._places):
            self.editable[name] = place


def _read_record(path: Path) -> Iterator[tuple[str, str]]:
    import csv

    with contextlib.suppress(OSError, csv.Error), path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            if len(row) < 2:
                continue
            kind, _, encoded = row[1].partition("=")
            digest = ""
            if kind == "sha256":
                with contextlib.suppress(ValueError):
                    digest = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex()
            yield row[0], digest


def _read_spack(tree: Tree, path: str) -> Iterator[FoundPackage]:
    with contextlib.suppress(LookupError, TypeError, AttributeError):
        node = _json(tree.folder / path)["spec"]["nodes"][0]
        yield FoundPackage(name=str(node["name"]), version=str(node["version"]), kind="generic")


def _read_easybuild(tree: Tree, path: str) -> Iterator[FoundPackage]:
    told = {found[1]: found[3] for found in _EASYBUILD.finditer(_text(tree.folder / path))}
    if len(told) == 2:
        yield FoundPackage(name=told["name"], version=told["version"], kind="generic")


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return ""


def _json(path: Path) -> Mapping[str, Any]:
    """A JSON object; an empty one where there is none. What cannot be read is just not known."""
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}
