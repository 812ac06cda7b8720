"""uv: resolves for the base's Python on the host.

Checked with:

| uv     | resolve, export, lock files | credentials stored by `uv auth login` |
|--------|-----------------------------|---------------------------------------|
| 0.13.8 | yes                         | yes                                   |
| 0.9.0  | yes                         | no: it has no `uv auth helper` yet    |
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import msgspec

from limpet.core.errors import HostError
from limpet.core.provided import Stub
from limpet.core.tags import Target, uv_platform
from limpet.tools.files import make_folder, passing_folder, written_beside
from limpet.tools.process import Finished, run

# What would make uv look at another Python, folder or cache than the ones it is given here.
_DROPPED = (
    *("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PYTHON_PREFERENCE", "UV_MANAGED_PYTHON"),
    *("UV_NO_MANAGED_PYTHON", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_WORKING_DIR"),
    *("UV_CACHE_DIR", "UV_NO_CACHE", "UV_FROZEN", "UV_LOCKED", "UV_CUSTOM_COMPILE_COMMAND"),
    *("UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDES", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH"),
    *("PYTHONHOME", "UV_UPGRADE"),
)
_REQUIRES_PYTHON = re.compile(r"(?m)^requires-python\s*=.*$")


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """What uv is asked to resolve: descriptions as files, and lines of limpet's own.

    `groups` are `path/to/pyproject.toml:name`. `options` are requirements-file lines that set
    indexes, `default_index` is uv's (they may hold credentials, so they never become arguments).
    Where `names_index`, the files say the default index and the host's variables do not count.
    `preferences` is the text of an earlier pylock whose versions are kept where they still fit.
    """

    target: Target
    folder: Path
    files: tuple[Path, ...] = ()
    lines: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    default_index: str = ""
    names_index: bool = False
    constraints: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    preferences: str = ""
    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    exclude_newer: str = ""
    offline: bool = False
    with_dependencies: bool = True


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A pylock text, or what uv said instead of one; relative paths in it start at `folder`."""

    folder: Path
    pylock: str = ""
    failure: str = ""


# sysconfig, which it asks, is not ready for threads the first time (Python 3.11, observed).
_finding = threading.Lock()


def uv_program() -> Path:
    """The uv that came with limpet."""
    from uv import find_uv_bin

    try:
        with _finding:
            return Path(find_uv_bin())
    except FileNotFoundError as error:
        raise HostError(
            "uv is missing.", why=str(error), now="Install limpet again, with its dependencies."
        ) from error


def resolve(resolution: Resolution, *, cache: Path) -> Resolved:
    """Run `uv pip compile` for the target."""
    with passing_folder(cache / "work") as work:
        words, env = _compile_words(resolution, work), _index_environment(resolution)
        done = _run_uv(words, resolution.folder, work, cache, env)
        output = work / "pylock.toml"
        if done.code or not output.exists():
            return Resolved(folder=work, failure=_cleaned(done, work))
        return Resolved(folder=work, pylock=output.read_text("utf-8"))


def _compile_words(resolution: Resolution, work: Path) -> list[str | Path]:
    target = resolution.target
    lines = work / "recipe.in"
    # Not as --constraints: uv 0.9 takes a path with a space there for two.
    limits = ["-c constraints.txt"] if resolution.constraints else []
    lines.write_text("\n".join((*resolution.options, *limits, *resolution.lines, "")), "utf-8")
    (work / "constraints.txt").write_text("\n".join((*resolution.constraints, "")), "utf-8")
    words: list[str | Path] = ["pip", "compile", *resolution.files, lines]
    words += ["--format", "pylock.toml", "--no-header", "--no-annotate"]
    words += ["--python", sys.executable, "--python-version", target.python]
    words += ["--python-platform", uv_platform(target)]
    output = work / "pylock.toml"
    if resolution.preferences:
        output.write_text(resolution.preferences, "utf-8")
    words += ["--output-file", output]
    words += [word for extra in resolution.extras for word in ("--extra", extra)]
    words += [word for group in resolution.groups for word in ("--group", group)]
    words += [word for name in resolution.upgrade_packages for word in ("--upgrade-package", name)]
    if resolution.exclude_newer:
        words += ["--exclude-newer", resolution.exclude_newer]
    for flag, asked in (
        ("--upgrade", resolution.upgrade),
        ("--offline", resolution.offline),
        ("--no-deps", not resolution.with_dependencies),
    ):
        words += [flag] if asked else []
    return words


def export_uv_lock(
    path: Path, *, extras: Sequence[str], groups: Sequence[str], cache: Path
) -> Resolved:
    """A uv.lock as pylock text, for every platform.

    `uv export` wants a host Python that fits the project's requires-python, though it starts
    none: the base's Python is what counts, so uv is shown a copy that asks for nothing.
    """
    text = path.read_text("utf-8")
    with passing_folder(cache / "work") as work:
        copy = work / "project"
        for name in _members(text):
            there = copy / name / "pyproject.toml"
            there.parent.mkdir(parents=True, exist_ok=True)
            told = (path.parent / name / "pyproject.toml").read_text("utf-8")
            there.write_text(_REQUIRES_PYTHON.sub("", told), "utf-8")
        eased = _REQUIRES_PYTHON.sub('requires-python = ">=3.8"', text, count=1)
        (copy / "uv.lock").write_text(eased, "utf-8")
        words: list[str | Path] = ["export", "--frozen", "--format", "pylock.toml", "--no-header"]
        words += ["--no-default-groups", "--no-editable", "--offline", "--python", sys.executable]
        words += [word for extra in extras for word in ("--extra", extra)]
        words += [word for group in groups for word in ("--group", group)]
        done = _run_uv(words, copy, work, cache, os.environ)
        failure = _cleaned(done, work) if done.code else ""
        return Resolved(folder=path.parent, pylock=done.text, failure=failure)


def _members(text: str) -> list[str]:
    """The folders of the workspace that a uv.lock is for; its own comes first."""
    sources = [package.get("source", {}) for package in tomllib.loads(text).get("package", [])]
    found = {source.get("editable") or source.get("virtual") or "." for source in sources}
    return [".", *sorted(name for name in found - {"."} if not name.startswith((".", "/")))]


def write_stubs(stubs: Sequence[Stub], *, cache: Path) -> dict[str, Path]:
    """Wheels that stand in for the base's distributions: `name` → file, kept by content."""
    written = {}
    for stub in stubs:
        digest = hashlib.sha256(stub.metadata.encode()).hexdigest()
        path = cache / "stubs" / digest / stub.filename
        if not path.exists():
            make_folder(path.parent)
            with written_beside(path) as file:
                _write_stub(stub, file)
        written[stub.name] = path
    return written


def _write_stub(stub: Stub, file: BinaryIO) -> None:
    info = f"{stub.name.replace('-', '_')}-{stub.version}.dist-info"
    wheel = "Wheel-Version: 1.0\nGenerator: limpet\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in (("METADATA", stub.metadata), ("WHEEL", wheel), ("RECORD", "")):
            archive.writestr(zipfile.ZipInfo(f"{info}/{name}"), text)


def file_url(path: Path) -> str:
    """A file: URL, with what a requirement line could misread escaped."""
    return f"file://{quote(str(path))}"


def _index_environment(resolution: Resolution) -> dict[str, str]:
    """The host's variables, but for a default index where the recipe itself says one.

    uv would let UV_DEFAULT_INDEX win over a requirements file's --index-url.
    """
    env = dict(os.environ)
    if resolution.default_index or resolution.names_index:
        for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
            env.pop(name, None)
    if resolution.default_index:
        env["UV_DEFAULT_INDEX"] = resolution.default_index
    return env


def _run_uv(
    words: Sequence[str | Path], folder: Path, work: Path, cache: Path, env: Mapping[str, str]
) -> Finished:
    env = {name: value for name, value in env.items() if name not in _DROPPED}
    env |= {"UV_PYTHON_DOWNLOADS": "never", "TMPDIR": str(work)}
    always: list[str | Path] = [
        "--cache-dir",
        cache / "uv",
        "--color",
        "never",
        "--no-progress",
        "--quiet",
    ]
    return run([uv_program(), *words, *always], env=env, cwd=folder)


def _cleaned(done: Finished, work: Path) -> str:
    text = done.stderr.replace(f"{work}/", "") or f"uv ended with code {done.code}."
    # The file is limpet's own: its lines were typed, or stand in limpet.toml.
    text = re.sub(r"\s+(?:in|at)\s+`recipe\.in`(?:\s+at\s+position\s+\d+)?", "", text)
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
