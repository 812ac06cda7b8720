"""What installing a conda package means: which path a file gets, which bytes, in which order.

Rules: conda's CEPs (https://github.com/conda/ceps, 15 and 17 among them) and conda-build's
documentation of prefix replacement and of noarch packages.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from limpet.core.conda import SUBDIRS, CondaPackage, conda_interpreter
from limpet.core.errors import BuildError, LockError
from limpet.core.facts import PREFIX, Interpreter
from limpet.core.piece import Layout

FORMAT = 1  # raise it when the same package is to give other bytes than before
OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"  # meant where a package names none
_NAME = re.compile(r"(?:.*::)?\s*([A-Za-z0-9_.-]+)")
_BYTE_CODE = re.compile(r"(?P<folder>.*?/?)__pycache__/(?P<name>[^/]+?)\.[^/.]+(\.opt-\d)?\.pyc")

PathType = Literal["hardlink", "softlink", "directory"]


class PathEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a package's paths.json; without `placeholder` the file is taken as it is."""

    path: str
    path_type: PathType = "hardlink"
    placeholder: str = ""
    file_mode: Literal["text", "binary"] = "text"
    sha256: str = ""
    size_bytes: int | None = None


def parse_paths(text: bytes) -> dict[str, PathEntry]:
    """paths.json: what a package installs, by path. ValueError where it is not one."""
    raw = json.loads(text)
    if raw.get("paths_version") != 1:
        raise ValueError(f"its paths.json is of version {raw.get('paths_version')}")
    return {
        one["_path"]: PathEntry(
            path=one["_path"],
            path_type=one.get("path_type", "hardlink"),
            placeholder=one.get("prefix_placeholder") or "",
            file_mode=one.get("file_mode") or "text",
            sha256=one.get("sha256") or "",
            size_bytes=one.get("size_in_bytes"),
        )
        for one in raw["paths"]
    }


def parse_old_paths(files: str, has_prefix: str) -> dict[str, PathEntry]:
    """The same from `files` and `has_prefix`, which packages had before there was a paths.json."""
    paths = {name: PathEntry(path=name) for name in files.splitlines() if name}
    for line in has_prefix.splitlines():
        words = line.split(" ", 2)
        whole = len(words) == 3 and words[1] in ("text", "binary")
        placeholder, mode, name = words if whole else (OLD_PLACEHOLDER, "text", line)
        name = name.strip("\"'")
        if name in paths:
            paths[name] = PathEntry(
                path=name,
                placeholder=placeholder.strip("\"'"),
                file_mode="binary" if mode == "binary" else "text",
            )
    return paths


def with_prefix(data: bytes, entry: PathEntry, prefix: str, *, archive: str = "") -> bytes:
    """A file's content for its place: text changes its length, a binary never does.

    In a binary each string up to its NUL is filled up with as many more NULs as it became shorter;
    what no NUL ends is left alone, as conda leaves it. `archive` is what an error names.
    """
    old, new = entry.placeholder.encode(), prefix.encode()
    if entry.file_mode == "text":
        return data.replace(old, new)
    if len(new) > len(old):
        raise BuildError(
            f"{entry.path} of {archive or 'a package'} cannot be installed at {prefix}.",
            why=f"The file has room for a path of {len(old)} characters.",
            now="Choose a newer build of the package: since 2017 they have room for 255.",
        )

    def replaced(match: re.Match[bytes]) -> bytes:
        string = match[0].replace(old, new)
        return string + bytes(len(match[0]) - len(string))

    return re.sub(re.escape(old) + rb"[^\0]*\0", replaced, data)


def place_path(path: str, package: CondaPackage, layout: Layout) -> str:
    """Where below the prefix a file goes: noarch Python packages leave that to the Python."""
    if package.noarch == "python":
        if path.startswith("site-packages/"):
            return f"{layout.site_packages}/{path.removeprefix('site-packages/')}"
        if path.startswith("python-scripts/"):
            return f"bin/{path.removeprefix('python-scripts/')}"
    return path


def check_path(path: str) -> None:
    """ValueError for a path that is not simply one below the prefix."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or "" in parts or "." in parts:
        raise ValueError(f"The member {path!r} points outside of the prefix.")


def place_link(path: str, target: str, placeholder: str, prefix: str) -> str:
    """A symbolic link's target; ValueError where it leads out of the prefix."""
    if placeholder and target.startswith(f"{placeholder}/"):
        target = prefix + target.removeprefix(placeholder)
    here = PurePosixPath(prefix) / PurePosixPath(path).parent
    parts: list[str] = []
    for part in (here / target).parts:
        if part == ".." and parts:
            parts.pop()
        elif part != "..":
            parts.append(part)
    if not PurePosixPath(*parts).is_relative_to(prefix):
        raise ValueError(f"The link {path!r} leads out of the prefix, to {target!r}.")
    return target


def is_replaced(path: str, paths: Mapping[str, PathEntry]) -> bool:
    """Whether a path is byte code of a module of the same package: limpet compiles it itself.

    What packages ship goes by the modules' dates, which images do not have, and names the folder
    that it was built in.
    """
    match = _BYTE_CODE.fullmatch(path)
    return bool(match) and f"{match['folder']}{match['name']}.py" in paths  # type: ignore[index]


def plan_interpreter(packages: Iterable[CondaPackage]) -> Interpreter | None:
    """The Python that packages will be, known before it is there; None where they bring none.

    Byte code is the same for all releases of a minor version, but not for its previews.
    """
    interpreter = conda_interpreter(packages)
    if interpreter is None:
        return None
    preview = re.search(r"[a-z]", interpreter.version)
    kind = interpreter.version if preview else interpreter.minor
    return msgspec.structs.replace(interpreter, magic=f"conda {kind}")


def plan_conda_layout(python: CondaPackage | None) -> Layout:
    """Where packages put their files; only a Python says where modules go."""
    minor = ".".join(python.version.split(".")[:2]) if python else ""
    site_packages = f"lib/python{minor}/site-packages" if python else "lib/site-packages"
    if python and python.python_site_packages_path:
        site_packages = python.python_site_packages_path.strip("/")
    folder = PurePosixPath(site_packages).parent.name
    return Layout(
        prefix=PREFIX,
        site_packages=site_packages,
        headers=f"include/{folder}",
        python=f"{PREFIX}/bin/python",
    )


def module_folder(layout: Layout) -> str:
    """Below the image's root: where modules lie, the standard library's as well."""
    return f"{layout.prefix.lstrip('/')}/{PurePosixPath(layout.site_packages).parent}"


def _needed(package: CondaPackage) -> list[str]:
    return [match[1].lower() for spec in package.depends if (match := _NAME.match(spec))]


def has_modules(package: CondaPackage) -> bool:
    """Whether a package may bring Python modules: it is Python, or needs it."""
    return (
        package.name == "python"
        or package.noarch == "python"
        or not {"python", "python_abi"}.isdisjoint(_needed(package))
    )


def sort_packages(packages: Iterable[CondaPackage]) -> tuple[CondaPackage, ...]:
    """What others need comes first, as conda installs them; else by name."""
    by_name = {package.name.lower(): package for package in sorted(packages, key=lambda p: p.name)}
    ordered: dict[str, CondaPackage] = {}
    begun: set[str] = set()
    for first in by_name:
        stack = [(first, False)]
        while stack:
            name, is_ready = stack.pop()
            if is_ready:
                ordered.setdefault(name, by_name[name])
            elif name not in begun:
                begun.add(name)
                stack.append((name, True))
                needed = [other for other in sorted(_needed(by_name[name])) if other in by_name]
                stack += [(other, False) for other in reversed(needed)]
    return tuple(ordered.values())


def python_closure(packages: Sequence[CondaPackage]) -> tuple[CondaPackage, ...]:
    """Python and what it needs to run, without packages that need a Python themselves."""
    by_name = {package.name.lower(): package for package in packages}
    wanted = {"python"} & by_name.keys()
    work = [*wanted]
    while work:
        for name in _needed(by_name[work.pop()]):
            if name in by_name and name not in wanted and not has_modules(by_name[name]):
                wanted.add(name)
                work.append(name)
    return tuple(package for package in packages if package.name.lower() in wanted)


def check_conda_fits(package: CondaPackage, *, arch: str) -> None:
    """LockError where a package is for another platform than the base's."""
    own = SUBDIRS[arch]
    if package.subdir not in (own, "noarch"):
        raise LockError(
            f"{package.filename} is not for this base.",
            why=f"It is for {package.subdir}; the base is {own}.",
            now="Lock again for this base: `limpet lock`.",
        )


def shown_url(package: CondaPackage) -> str:
    """What the image may say of where a package came from: no place of the building machine."""
    if package.url and urlsplit(package.url).scheme != "file":
        return package.url
    return f"file:///{package.subdir}/{package.filename}"


def shown_channel(package: CondaPackage) -> str:
    """The channel in the same way."""
    if package.channel.startswith(("file:", "/", ".", "~")):
        return "file:///"
    return package.channel


def conda_key(package: CondaPackage, *, layout: Layout, compressor: str) -> str:
    """Names everything that the piece of a package depends on."""
    told = msgspec.structs.replace(
        package, url=shown_url(package), path="", channel=shown_channel(package)
    )
    place: list[Any] = [layout.site_packages, layout.python] if package.noarch == "python" else []
    return _digest("conda", FORMAT, msgspec.to_builtins(told), layout.prefix, place, compressor)


def byte_code_key(
    package: CondaPackage, interpreter: Interpreter, *, layout: Layout, compressor: str
) -> str:
    """Names everything that a package's byte code depends on; not where it was fetched from."""
    python = [interpreter.implementation, interpreter.minor, interpreter.magic]
    place = [layout.prefix, layout.site_packages]
    return _digest("byte code", FORMAT, package.sha256, python, place, compressor)


def python_key(packages: Iterable[CondaPackage], *, layout: Layout, compressor: str) -> str:
    """Names the environment that compiles: the packages that it is composed of."""
    hashes = [package.sha256 for package in packages]
    return _digest("python", FORMAT, hashes, layout.prefix, compressor)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
