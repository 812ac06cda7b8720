"""A Python of the host as a base: the packages become one file, the interpreter stays where it is.

The image's root holds hardly more than mount points. The host's own system is mounted on them, at
its own paths, so that the interpreter finds its libraries, and programs what modules bring. Which
interpreter the packages were installed for is written into the image, and each start compares.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from limpet.core.mounts import Mount, is_below

HOOK = "_limpet_host"
CHECK_SCRIPT = "/.singularity.d/env/20-limpet-host.sh"
# A runtime has its own of these, limpet sees to homes, and /boot is nobody's.
_NEVER_SHARED = frozenset(
    ("proc", "sys", "dev", "tmp", "root", "home", "boot", "lost+found", "opt", ".limpet")
)
# Below /opt the image has its environment, and a build its tools.
_NEVER_SHARED_OPT = frozenset(("env", "limpet"))


class HostFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the interpreter's. Size and time tell cheaply that it is surely the same one."""

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str


class HostPython(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies a Python of the host, and what it takes to run it from an image.

    `files` are the executable, without links, and the libpython that it loads. `folders` are those
    of the host that are mounted at their own place; `variables` what the interpreter needs set.
    """

    version: str
    hexversion: int
    cache_tag: str
    prefix: str
    machine: str
    libc: str
    files: tuple[HostFile, ...]
    folders: tuple[str, ...] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def path(self) -> str:
        """The executable itself."""
        return self.files[0].path


def digest_host(python: HostPython) -> str:
    """`sha256:…` of what makes it the same interpreter; times and mounts are no part of it."""
    import hashlib
    import json

    said = [python.version, python.hexversion, python.cache_tag, python.prefix, python.machine]
    parts = [*said, python.libc, [[file.path, file.sha256] for file in python.files]]
    return f"sha256:{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"


def choose_folders(
    names: Iterable[str], below_opt: Iterable[str], homes: Sequence[str], needed: Iterable[str]
) -> tuple[str, ...]:
    """The host's folders that are mounted at their own place.

    All at the top but for a runtime's own and for those that homes lie in: which of them is seen
    is the home policy's to say. `needed` are places that the interpreter uses; each is mounted by
    itself where nothing above it is.
    """
    tops = [f"/{name}" for name in sorted(names) if name not in _NEVER_SHARED]
    tops += [f"/opt/{name}" for name in sorted(below_opt) if name not in _NEVER_SHARED_OPT]
    shared = [top for top in tops if not any(is_below(home, top) for home in homes if home != "/")]
    for place in sorted({posixpath.normpath(place) for place in needed}):
        if not any(is_below(place, folder) for folder in shared):
            shared.append(place)
    return tuple(shared)


def is_hidden_place(path: str, prefix: str) -> bool:
    """Whether the image's own lies over that place of the host's."""
    return is_below(path, prefix) or is_below(path, "/.limpet")


def share_host(python: HostPython | None) -> tuple[Mount, ...]:
    """The mounts that bring the host's system into the image.

    Apptainer does deeper mounts later, and makes their places (1.4.5, observed): a Python below a
    home is seen with any home.
    """
    folders = python.folders if python else ()
    return tuple(Mount(source=folder, target=folder) for folder in folders)


def describe_built(python: HostPython) -> str:
    """The Python that an image was built on, in words."""
    return f"Python {python.version} ({python.path})"


def render_check(python: HostPython) -> str:
    """The script that every start of the image runs, a launcher's and a bare one included.

    It is run by the runtime's own shell, whose arguments are the user's command. A file of another
    size or time is read whole before it is called another: nodes may have copies of it.
    """
    lines = ["#!/bin/sh", "# Written by limpet: whether this is the Python that it was built on."]
    built = describe_built(python)
    gone = (
        f"limpet: This image holds packages for {built} of the host, which is not seen here.\n"
        "Load its module and start the image with `limpet run`; or build it again with --on."
    )
    lines += [
        f"if [ ! -x {shlex.quote(python.path)} ] || [ ! -x /bin/sh ]; then",
        f"    printf '%s\\n' {shlex.quote(gone)} >&2",
        "    exit 125",
        "fi",
    ]
    for file in python.files:
        path = shlex.quote(file.path)
        changed = (
            f"limpet: This image was built on {built}, and {file.path} is another file now.\n"
            "Load the module of then; or build the image again, on the Python that is there now."
        )
        lines += [
            f"if [ \"$(stat -Lc '%s %Y' {path} 2>/dev/null)\" != "
            f"'{file.size_bytes} {file.mtime_ns // 10**9}' ]; then",
            f'    case "$(sha256sum <{path} 2>/dev/null)" in',
            f"        {file.sha256}*) ;;",
            f"        *) printf '%s\\n' {shlex.quote(changed)} >&2; exit 125 ;;",
            "    esac",
            "fi",
        ]
    for name, value in python.variables.items():
        here = shlex.quote(value)
        lines.append(f'export {name}={here}"${{{name}:+:${name}}}"')
    return "\n".join(lines) + "\n"


def hook_files(python: HostPython) -> Mapping[str, str]:
    """What the environment's site-packages has: another libpython may be loaded than at the build.

    A `.pth` line may not raise: Python would say so and go on.
    """
    line = f'import sys; sys.hexversion == {python.hexversion} or __import__("{HOOK}")\n'
    message = (
        f"limpet: This image was built on {describe_built(python)}, and Python %s is running. "
        "Load the module of that version, or build the image again."
    )
    text = (
        "import os\nimport sys\n\n"
        f"told = {message + chr(10)!r} % sys.version.split()[0]\n"
        "os.write(2, told.encode())\nos._exit(125)\n"
    )
    return {f"{HOOK}.pth": line, f"{HOOK}.py": text}
