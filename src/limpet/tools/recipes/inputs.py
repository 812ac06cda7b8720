"""Descriptions that name packages: their kinds, what they name, and what their hash is made of."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from packaging.utils import canonicalize_name

from limpet.core import conda_text, identity
from limpet.core.errors import RecipeError
from limpet.core.recipe_text import (
    parse_toml,
)
from limpet.core.requirements import (
    Line,
    expand,
    find_hashes,
    local_path,
    parse_requirements,
)
from limpet.core.secrets import find_secret_urls, scrub_text
from limpet.core.selection import parse_pylock
from limpet.tools.files import hash_file, hash_tree

CondaLockKind = Literal["conda_explicit", "conda_lock", "pixi_lock"]
CONDA_LOCKS: tuple[CondaLockKind, ...] = ("conda_explicit", "conda_lock", "pixi_lock")
InputKind = Literal["requirements", "pyproject", "uv_lock", "pylock", "script", CondaLockKind]
RecipeKind = Literal["limpet", "environment", "conda_requirements", "pixi"]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file or tree that was read: where, and the sha256 of its bytes (of its sorted tree)."""

    path: Path
    sha256: str


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """A description that names packages, to be handed to the resolver.

    `conda` says that it fixes conda packages: a lock of a conda tool, or of limpet's own.
    `project` is the name of the project that is installed with its dependencies: a pyproject.toml
    with a build system. `extras` and `groups` are what can be chosen from it.
    """

    kind: InputKind
    path: Path
    project: str = ""
    requires_python: str = ""
    has_dependencies: bool = True
    conda: bool = False
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


def normalised(names: Iterable[str]) -> tuple[str, ...]:
    """Names of extras and groups as PEP 685 and 735 compare them."""
    return tuple(canonicalize_name(name) for name in names)


def kind_of(
    path: Path,
) -> InputKind | RecipeKind:
    """What a description is, by its name, and where that does not tell, by its text."""
    name = path.name
    if name.endswith((".yml", ".yaml")):
        locked = re.search(r"(?m)^(metadata|package):", peek(path))
        return "conda_lock" if locked else "environment"
    if name == "pixi.lock":
        return "pixi_lock"
    if name == "pixi.toml":
        return "pixi"
    if name == "pyproject.toml":
        return "pyproject"
    if name == "uv.lock":
        return "uv_lock"
    if name == "pylock.toml" or (name.startswith("pylock.") and name.endswith(".toml")):
        return "pylock"
    if name.endswith(".toml"):
        return "pylock" if re.search(r"(?m)^lock-version\s*=", peek(path)) else "limpet"
    if name.endswith(".py"):
        return "script"
    text = peek(path)
    if conda_text.is_explicit(text):
        return "conda_explicit"
    return "conda_requirements" if conda_text.is_conda_requirements(text) else "requirements"


def peek(path: Path) -> str:
    """What a file says, for telling its kind; whoever reads it then says what is wrong with it."""
    try:
        return path.read_text("utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def read_text(path: Path) -> str:
    """RecipeError where it cannot be read, or is no UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RecipeError(
            f"{path} is not UTF-8 text.", why=f"Line {line}: {error.reason}."
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RecipeError(f"{path} cannot be read.", why=f"{reason}.") from error


class Reader:
    """Reads descriptions and what they name, and keeps what the recipe's hash is made of."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = environ
        self.sources: dict[Path, Source] = {}
        self.contents: list[Any] = []
        self.hashes: dict[str, tuple[str, ...]] = {}
        self.secret_urls: list[str] = []
        self.names_index = False
        self.named_indexes: dict[str, str] = {}
        self.requested: list[str] = []
        self._open: list[Path] = []
        self._limits = 0  # how many constraints files are being read, which ask for nothing

    def read_input(self, path: Path) -> Input:
        try:
            return self._read_input(Path(os.path.normpath(path)))
        except (AttributeError, TypeError, LookupError) as error:
            raise RecipeError(f"{path} is not shaped as its name says.", why=f"{error}.") from error

    def _read_input(self, path: Path) -> Input:
        kind = kind_of(path)
        if kind in ("limpet", "environment", "conda_requirements", "pixi"):
            raise RecipeError(
                f"packages.files names {path}, which is a recipe of its own.",
                now="Give both on the command line.",
            )
        if kind == "requirements":
            self._read_requirements(path)
            return Input(kind=kind, path=path)
        text = self._read(path)
        if kind in CONDA_LOCKS:
            self.contents.append([kind, scrub_text(text)])
            return Input(kind=kind, path=path, conda=True)
        if kind == "script":
            return self._read_script(path, text)
        if kind == "pylock":
            parse_pylock(text, str(path))
        raw = parse_toml(text, str(path))
        if kind == "pyproject":
            return self._read_pyproject(path, raw)
        self.contents.append([kind, identity.table_identity(raw)])
        self._hash_paths(identity.lock_paths(raw), path)
        if kind == "uv_lock":
            project = path.with_name("pyproject.toml")
            if not project.exists():
                raise RecipeError(
                    f"{path} has no pyproject.toml beside it, which says what is asked for.",
                    now="Copy both.",
                )
            beside = self._read_pyproject(project)
            return msgspec.structs.replace(beside, kind=kind, path=path)
        return Input(
            kind="pylock",
            path=path,
            conda=bool(raw.get("tool", {}).get("limpet", {}).get("conda")),
            extras=normalised(raw.get("extras", ())),
            groups=normalised(raw.get("dependency-groups", ())),
        )

    def note_secrets(self, text: str) -> None:
        self.secret_urls += find_secret_urls(expand(text, self.environ))

    def read_lines(self, lines: Iterable[Line], shown: str) -> None:
        lines = tuple(lines)
        for name, hashes in find_hashes(lines).items():
            self.hashes[name] = tuple(sorted({*self.hashes.get(name, ()), *hashes}))
        for line in lines:
            if line.kind == "option" and line.text.startswith(("-i", "--index-url")):
                self.names_index = True
            if line.kind == "requirement" and not self._limits:
                self.requested.append(expand(line.text, self.environ))
            self.contents.append(self._line(line, shown))

    def _read(self, path: Path) -> str:
        text = read_text(path)
        self.sources[path] = Source(path=path, sha256=hashlib.sha256(text.encode()).hexdigest())
        self.note_secrets(text)
        return text

    def _read_script(self, path: Path, text: str) -> Input:
        try:
            table = identity.script_identity(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(
                f"{path}: its script block is not valid TOML.", why=f"{error}."
            ) from error
        if table is None:
            raise RecipeError(
                f"{path} names no packages.", why="It has no `# /// script` block (PEP 723)."
            )
        self.contents.append(["script", identity.table_identity(table)])
        self.requested += [str(line) for line in table.get("dependencies", ())]
        return Input(kind="script", path=path, requires_python=table.get("requires-python", ""))

    def _read_pyproject(self, path: Path, raw: dict[str, Any] | None = None) -> Input:
        if raw is None:
            raw = parse_toml(self._read(path), str(path))
        if "project" not in raw and "dependency-groups" not in raw:
            poetry = "poetry" in raw.get("tool", {})
            raise RecipeError(
                f"{path} names no packages.",
                why="It has no [project] and no [dependency-groups].",
                now="Poetry can export what it locked: poetry export -o requirements.txt."
                if poetry
                else "",
            )
        self.contents.append(["pyproject", identity.pyproject_identity(raw)])
        self._hash_paths(identity.source_paths(raw), path)
        for index in raw.get("tool", {}).get("uv", {}).get("index", []):
            if isinstance(index, dict) and {"name", "url"} <= index.keys():
                self.named_indexes[index["name"]] = index["url"]
        project = raw.get("project", {})
        name = project.get("name", "") if "build-system" in raw else ""
        if name:
            self._hash_paths(["."], path)
        asked = [name] if name else project.get("dependencies", ())
        self.requested += [str(line) for line in asked]
        return Input(
            kind="pyproject",
            path=path,
            project=name,
            requires_python=project.get("requires-python", ""),
            has_dependencies="project" in raw,
            extras=normalised(project.get("optional-dependencies", ())),
            groups=normalised(raw.get("dependency-groups", ())),
        )

    def _hash_paths(self, names: Iterable[str], near: Path) -> None:
        for name in names:
            self.contents.append(["local", self._hash(near.parent / name, str(near))])

    def _read_requirements(self, path: Path) -> None:
        if path in self._open:
            raise RecipeError(f"{path} includes itself.")
        self._open.append(path)
        self.read_lines(parse_requirements(self._read(path)), str(path))
        self._open.pop()

    def _line(self, line: Line, shown: str) -> Any:
        text = expand(line.text, self.environ)
        if line.kind in ("nested", "constraints") and "://" not in text:
            self.contents.append(line.kind)
            self._limits += line.kind == "constraints"
            self._read_requirements(Path(os.path.normpath(Path(shown).parent / text)))
            self._limits -= line.kind == "constraints"
            return "end"
        if line.kind == "find_links" and "://" not in text:
            return [line.kind, os.path.relpath(self.folder / text, self.folder)]
        local = local_path(text) if line.kind in ("requirement", "editable") else ""
        if not local:
            return identity.line_identity(line, "", "")
        place = self.folder / local
        if not place.exists() and ";" in text:
            return identity.line_identity(line, local, "absent")  # its marker may rule it out
        where = f"{shown}, line {line.number}," if line.number else shown
        return identity.line_identity(line, local, self._hash(place, where))

    def _hash(self, place: Path, where: str) -> str:
        place = Path(os.path.normpath(place))
        if place not in self.sources:
            try:
                found = hash_tree(place) if place.is_dir() else hash_file(place)
            except OSError as error:
                raise RecipeError(
                    f"{where} names {place}, which cannot be read.", why=f"{error.strerror}."
                ) from error
            self.sources[place] = Source(path=place, sha256=found)
        return self.sources[place].sha256
