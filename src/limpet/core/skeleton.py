"""What limpet itself puts into an image: the virtual environment's frame and the start files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal

import msgspec

from limpet.core import module_archive
from limpet.core.activation import Setting, render_settings
from limpet.core.conda import python_of
from limpet.core.conda_install import plan_conda_layout
from limpet.core.conda_record import render_history
from limpet.core.facts import PREFIX, Interpreter
from limpet.core.homes import INSIDE
from limpet.core.host_python import HostPython, hook_files
from limpet.core.lock import Lock
from limpet.core.personal import (
    CERTIFICATES,
    CONFIG,
    HOOK,
    HOOK_LINE,
    HOOK_TEXT,
    KIT,
    PACKAGES,
    VARIABLE,
)

PROOF = "/.limpet/start"  # below the prefix
ENV_SCRIPT = "/.singularity.d/env/95-limpet.sh"
RUNSCRIPT = "/.singularity.d/runscript"
HISTORY = f"{PREFIX}/conda-meta/history"
LABELS = "/.singularity.d/labels.json"

# Variables of the host that make a Python run other code than the image's own.
PYTHON_LEAKS = (
    *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONEXECUTABLE"),
    VARIABLE,
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One path in the image: a folder, a file with its content, or a symbolic link."""

    path: str
    kind: Literal["dir", "file", "symlink"] = "file"
    content: bytes = b""
    target: str = ""
    executable: bool = False


class CondaFrame(msgspec.Struct, frozen=True, kw_only=True):
    """What a conda environment has around its packages.

    `settings` is what activation sets, `history` the file by which conda knows an environment,
    `name` what conda calls it; empty where that is its path. `site_packages` is its Python's
    folder, absolute; empty where it has no Python.
    """

    history: bytes = b""
    name: str = ""
    site_packages: str = ""
    settings: tuple[Setting, ...] = ()


def plan_conda_frame(lock: Lock, settings: tuple[Setting, ...] = ()) -> CondaFrame | None:
    """The frame of a lock with conda packages."""
    if not lock.conda:
        return None
    python = python_of(lock.conda)
    site_packages = f"{PREFIX}/{plan_conda_layout(python).site_packages}" if python else ""
    return CondaFrame(
        history=render_history(lock.conda), site_packages=site_packages, settings=settings
    )


def plan_skeleton(
    interpreter: Interpreter,
    *,
    base_variables: Mapping[str, str],
    env: Mapping[str, str],
    labels: Mapping[str, str],
    on_top: bool,
    conda: CondaFrame | None = None,
) -> tuple[Member, ...]:
    """The frame that stands around the packages: venv, start file, environment, labels.

    `on_top` lets the environment see the packages of the base's own Python. A Python that conda
    brings needs no venv.
    """
    script = render_env_script(base_variables, env, conda)
    program = "python" if conda is None or conda.site_packages else ""
    return (
        *(_plan_conda(conda) if conda else plan_venv(interpreter, on_top=on_top)),
        *plan_start(script, labels, program=program),
    )


def _plan_conda(frame: CondaFrame) -> tuple[Member, ...]:
    history = Member(path=HISTORY, content=frame.history)
    return (history, *(plan_hook(frame.site_packages) if frame.site_packages else ()))


def plan_start(
    script: str, labels: Mapping[str, str], *, prefix: str = PREFIX, program: str = "python"
) -> tuple[Member, ...]:
    """What a start goes by: the file that proves the environment is there, variables, labels.

    `program`, of the environment's bin, is what the image itself runs when it is told nothing.
    """
    default = f"{prefix}/bin/{program}" if program else "/bin/sh"
    runscript = _RUNSCRIPT.replace("@PROGRAM@", shlex.quote(default))
    return (
        Member(path=prefix + PROOF, content=b'#!/bin/sh\nexec "$@"\n', executable=True),
        Member(path=ENV_SCRIPT, content=script.encode()),
        Member(path=RUNSCRIPT, content=runscript.encode(), executable=True),
        Member(path=LABELS, content=json.dumps(dict(labels), indent=1, sort_keys=True).encode()),
    )


# What Apptainer 1.4 goes by, and not every base has: without 90-environment.sh a PATH that a later
# script extends is empty, without 99-base.sh no APPTAINERENV_ variable is read (both observed).
WHERE_MISSING = (
    Member(path="/.singularity.d/env/90-environment.sh", content=b"#!/bin/sh\n", executable=True),
    Member(path="/.singularity.d/env/99-base.sh", content=b"#!/bin/sh\n", executable=True),
    # Mount points of their own, for sites where the runtime can make none.
    Member(path=INSIDE, kind="dir"),
    *(Member(path=place, kind="dir") for place in (PACKAGES, KIT)),
    *(Member(path=place) for place in (CONFIG, CERTIFICATES)),
)


def plan_venv(interpreter: Interpreter, *, on_top: bool) -> tuple[Member, ...]:
    """A virtual environment at its final path, as `python -m venv` would make it there."""
    python = PurePosixPath(interpreter.path)
    config = (
        f"home = {python.parent}\n"
        f"include-system-site-packages = {'true' if on_top else 'false'}\n"
        f"version = {interpreter.version}\n"
        f"executable = {python}\n"
    )
    packages = f"{PREFIX}/lib/python{interpreter.minor}/site-packages"
    return (
        Member(path=f"{PREFIX}/pyvenv.cfg", content=config.encode()),
        Member(path=f"{PREFIX}/bin/python", kind="symlink", target=str(python)),
        Member(path=f"{PREFIX}/bin/python3", kind="symlink", target="python"),
        Member(path=f"{PREFIX}/bin/python{interpreter.minor}", kind="symlink", target="python"),
        Member(path=packages, kind="dir"),
        *plan_hook(packages),
        Member(path=f"{PREFIX}/lib64", kind="symlink", target="lib"),
    )


def plan_hook(packages: str) -> tuple[Member, ...]:
    """What lets a Python import from the archive, and see its user's personal packages.

    It lies in its site-packages: one `.pth` file, for Python reads each of them at every start.
    """
    lines = module_archive.HOOK_LINE + HOOK_LINE
    return (
        Member(path=f"{packages}/{HOOK}.pth", content=lines.encode()),
        Member(path=f"{packages}/{HOOK}.py", content=HOOK_TEXT.encode()),
    )


def plan_host_hook(interpreter: Interpreter, host: HostPython | None) -> tuple[Member, ...]:
    """What compares the Python that runs with the one that the image was built on."""
    packages = f"{PREFIX}/lib/python{interpreter.minor}/site-packages"
    files = hook_files(host) if host else {}
    return tuple(
        Member(path=f"{packages}/{name}", content=text.encode("utf-8", "surrogateescape"))
        for name, text in files.items()
    )


def render_env_script(
    base_variables: Mapping[str, str],
    env: Mapping[str, str],
    conda: CondaFrame | None = None,
    *,
    prefix: str = PREFIX,
    is_venv: bool = True,
) -> str:
    """The script that Apptainer sources at each start, also for a bare `apptainer exec`.

    What leaks in from the host is put back to what the base itself says (a vendor image may set
    PYTHONPATH), or emptied, which Python takes as unset: after an `unset` here, Apptainer puts the
    host's value back (1.4.5, observed). The recipe's own variables come last and win.
    """
    lines = ["# Written by limpet: the environment, and nothing of the host's Python."]
    for name in PYTHON_LEAKS:
        own = base_variables.get(name, "")
        lines.append(f"export {name}={shlex.quote(own) if own else ''}")
    here = shlex.quote(prefix)
    first = f'"{prefix}/bin:$PATH"' if here == prefix else f'{shlex.quote(f"{prefix}/bin")}:"$PATH"'
    lines.append(f"export PATH={first}")
    lines.append(f"export VIRTUAL_ENV={'' if conda or not is_venv else here}")
    lines.append("export PYTHONNOUSERSITE=1")
    if conda:
        name = shlex.quote(conda.name or prefix)
        lines += [f"export CONDA_PREFIX={here}", f"export CONDA_DEFAULT_ENV={name}"]
        lines += ["export CONDA_SHLVL=1", *render_settings(conda.settings)]
    lines += [
        f"export {name}={shlex.quote(value)}"
        for name, value in env.items()
        if _NAME.fullmatch(name)
    ]
    return "\n".join(lines) + "\n"


_RUNSCRIPT = """#!/bin/sh
# `apptainer run image.sif CMD...` runs CMD in the environment; without CMD, its Python.
if [ $# -eq 0 ]; then
    exec @PROGRAM@
fi
exec "$@"
"""
