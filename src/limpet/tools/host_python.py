"""A Python of this machine's: asked what it is, and compared with what it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from packaging.version import Version

from limpet.core.errors import BaseError, HostError, LimpetError
from limpet.core.facts import PREFIX, BaseFacts, Interpreter, Libc
from limpet.core.host_python import (
    HostFile,
    HostPython,
    choose_folders,
    describe_built,
    is_hidden_place,
)
from limpet.core.interpreters import OLDEST
from limpet.tools import files, process

SCRIPTS = Path(__file__).parent.parent / "base_scripts"
TIMEOUT_S = 120.0
_BARE = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
_LIBRARIES = "LD_LIBRARY_PATH"


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """What `probe_host.py` tells."""

    version: str
    hexversion: int
    cache_tag: str
    executable: str
    prefix: str
    base_prefix: str
    base_exec_prefix: str
    machine: str
    libc: str
    path: tuple[str, ...]
    modules: tuple[str, ...]
    mapped: tuple[str, ...]


def probe_host_python(path: Path, arch: str) -> HostPython:
    """What it is; BaseError where packages cannot be built on it."""
    _check_file(path)
    said, variables = _ask(path)
    _check_said(path, said, arch)
    libpython = [name for name in said.mapped if Path(name).name.startswith("libpython")]
    needed = (said.base_prefix, said.base_exec_prefix, *said.path)
    needed += tuple(str(Path(name).parent) for name in (said.executable, *said.mapped))
    return HostPython(
        version=said.version,
        hexversion=said.hexversion,
        cache_tag=said.cache_tag,
        prefix=said.base_prefix,
        machine=said.machine,
        libc=said.libc,
        files=tuple(_seen(name) for name in (said.executable, *libpython)),
        folders=_folders(needed),
        variables=variables,
    )


def _check_file(path: Path) -> None:
    what = f"The Python {path} cannot be built on."
    if path.is_dir():
        near = [path / name for name in ("bin/python3", "python3") if (path / name).exists()]
        raise BaseError(
            what,
            why="It is a folder.",
            now=f"Name the program: {near[0]}" if near else "Name the program in it.",
        )
    if not path.exists():
        raise BaseError(
            what,
            why="There is no such file." + (" A link leads nowhere." if path.is_symlink() else ""),
            now="Load its module first, and see `command -v python3`.",
        )
    if not os.access(path, os.X_OK):
        raise BaseError(
            what, why="It may not be run: its mode, or a folder's above it, forbids it."
        )


def _ask(path: Path) -> tuple[_Said, dict[str, str]]:
    """What it says of itself, and the variables without which it says less, or nothing."""
    bare, failure = _run(path, _BARE)
    libraries = os.environ.get(_LIBRARIES, "")
    helped = _run(path, {**_BARE, _LIBRARIES: libraries})[0] if libraries else None
    if bare and (helped is None or len(helped.modules) <= len(bare.modules)):
        return bare, {}
    if helped is None:
        last = failure.strip().splitlines()[-1:] or ["It says nothing."]
        shared = "shared libraries" in failure
        raise BaseError(
            f"The Python {path} cannot be asked what it is.",
            why=last[0][:400],
            now="Load its module first: that sets where its libraries are."
            if shared
            else "Is it a Python? Name the interpreter itself.",
        )
    used = {os.path.realpath(Path(name).parent) for name in helped.mapped}
    kept = [word for word in libraries.split(":") if word and os.path.realpath(word) in used]
    return helped, {_LIBRARIES: ":".join(dict.fromkeys(kept))}


def _run(path: Path, env: Mapping[str, str]) -> tuple[_Said | None, str]:
    """What it says, or why it says nothing."""
    program = (SCRIPTS / "probe_host.py").read_bytes()
    argv = [str(path), "-E", "-s", "-"]
    try:
        done = process.run(argv, env=env, input_bytes=program, timeout_s=TIMEOUT_S)
        line = done.stdout.rpartition(b"\nhost ")[2] if b"\nhost " in done.stdout else b""
        return msgspec.json.decode(line, type=_Said), ""
    except msgspec.DecodeError:
        return None, done.stderr
    except OSError as error:
        return None, f"{error.strerror}."
    except LimpetError as error:
        return None, error.why or error.what


def _check_said(path: Path, said: _Said, arch: str) -> None:
    what = f"The Python {path} cannot be built on."
    if Version(said.version) < OLDEST:
        raise BaseError(
            what,
            why=f"It is Python {said.version}.",
            now=f"Name one that is {OLDEST} or newer; a module often has several.",
        )
    if said.prefix != said.base_prefix:
        raise BaseError(
            what,
            why=f"It is that of a virtual environment, {said.prefix}.",
            now=f"Name the Python that it is made from: {said.executable}. "
            f"To make one file of the environment as it is: limpet pack {said.prefix}",
        )
    if os.path.realpath(path) != os.path.realpath(said.executable):
        raise BaseError(
            what,
            why="It starts another program: a script around the interpreter, it seems.",
            now=f"Name the interpreter itself: --on {said.executable}",
        )
    if said.machine != arch:
        raise BaseError(what, why=f"It is for {said.machine}; this machine is {arch}.")
    for place in (said.executable, said.base_prefix):
        if is_hidden_place(place, PREFIX):
            raise BaseError(
                what,
                why=f"{place} lies where the image has its own environment, {PREFIX}.",
                now="Use a Python that lies elsewhere.",
            )


def _seen(name: str) -> HostFile:
    status = os.stat(name)  # noqa: PTH116 - a name as the interpreter gave it
    return HostFile(
        path=name,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sha256=files.hash_file(Path(name)),
    )


def _folders(needed: tuple[str, ...]) -> tuple[str, ...]:
    home = os.environ.get("HOME", "")
    homes = [place for place in (home, os.path.realpath(home) if home else "") if place]
    return choose_folders(_readable("/"), _readable("/opt"), homes, needed)


def _readable(folder: str) -> list[str]:
    """The folders in a folder that this user may look into."""
    try:
        found = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []
    return [name for name in found if os.access(Path(folder, name), os.R_OK | os.X_OK)]


def probe_host_facts(path: Path, python: HostPython, digest: str, arch: str) -> BaseFacts:
    """What a build has to know of it: the packages that it has, its C library."""
    program = (SCRIPTS / "probe_base.py").read_bytes()
    argv = [python.path, "-I", "-", python.path]
    env = {**_BARE, **python.variables}
    done = process.run(argv, env=env, input_bytes=program, timeout_s=TIMEOUT_S)
    found = done.stdout.rpartition(b"\npython ")[2]
    if done.code or not found:
        raise BaseError(f"The Python {path} does not answer.", why=done.stderr.strip()[-800:])
    libc = python.libc.removeprefix("glibc ")
    if arch not in ("x86_64", "aarch64"):
        raise BaseError(f"This machine is {arch}.", now="limpet knows x86_64 and aarch64.")
    return BaseFacts(
        digest=digest,
        arch=arch,  # type: ignore[arg-type]
        os_name=f"this machine with {path}",
        libc=Libc(family="glibc", version=libc) if python.libc.startswith("glibc ") else None,
        interpreters=(msgspec.json.decode(found, type=Interpreter),),
        variables=python.variables,
        host=python,
    )


def check_host_python(python: HostPython, image: str) -> None:
    """HostError where it is not the one that the image was built on.

    Only a file of another size or time is read: nodes may have copies of it.
    """
    for file in python.files:
        try:
            status = os.stat(file.path)  # noqa: PTH116 - on the way of every start
        except OSError as error:
            raise HostError(
                f"{image} was built on {describe_built(python)}, which is not here.",
                why=f"{file.path}: {error.strerror}.",
                now="Start it on a machine that has it, or build the image again with --on.",
            ) from error
        if (status.st_size, status.st_mtime_ns) == (file.size_bytes, file.mtime_ns):
            continue
        if files.hash_file(Path(file.path)) != file.sha256:
            raise HostError(
                f"{image} was built on {describe_built(python)}, which is another one now.",
                why=f"{file.path} has changed since{_now(python)}.",
                now="Build the image again, on the Python that is there now: "
                "limpet build … --on, or limpet update IMAGE --upgrade.",
            )


def _now(python: HostPython) -> str:
    said, _ = _run(Path(python.path), {**_BARE, **python.variables})
    return f": it is Python {said.version}" if said else ", and does not start"
