"""This machine and this session, as far as a launch depends on them."""

from __future__ import annotations

import os
import platform
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from limpet.core.errors import HostError
from limpet.core.homes import PERSONAL
from limpet.core.launch import Gpu, HostSeen
from limpet.core.mounts import Mount
from limpet.tools import files

_RuntimeKind = Literal["apptainer", "singularity-ce"]


def probe_host(
    *,
    runtime: str,
    runtime_kind: _RuntimeKind,
    runtime_version: str,
    state_folder: str = "",
    binds: Sequence[Mount] = (),
) -> HostSeen:
    """What there is; nothing is made or changed."""
    account_home = _account_home()
    home = find_home(account_home)
    state, note = find_state(files.state_folder(state_folder))
    return HostSeen(
        runtime=runtime,
        runtime_kind=runtime_kind,
        runtime_version=runtime_version,
        arch=platform.machine(),
        environment=dict(os.environ),
        home=home,
        real_home=os.path.realpath(home) if home else "",
        account_home=account_home,
        state=str(state),
        state_note=note,
        cwd=working_folder(),
        # A dangling link would make the runtime create its target in the host's file system.
        personal={
            p.folder: os.path.realpath(Path(home, p.folder))
            for p in PERSONAL
            if home and Path(home, p.folder).is_dir()
        },
        gpus=probe_gpus(),
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
        missing=tuple(m.source for m in binds if not Path(m.source).exists()),
    )


def find_home(account_home: str) -> str:
    """$HOME, else what the account says; empty where neither is a folder of the user's own."""
    for home in (os.environ.get("HOME", ""), account_home):
        if home.startswith("/") and home.strip("/") and Path(home).is_dir():
            return home.rstrip("/")
    return ""


def _account_home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir.rstrip("/")
    except KeyError:
        return os.environ.get("HOME", "/").rstrip("/")


def working_folder() -> str:
    """The working folder; HostError where it was removed under our feet."""
    try:
        return str(Path.cwd())
    except OSError as error:
        raise HostError(
            "The working folder does not exist any more.", now="Change to another one."
        ) from error


def find_state(wanted: Path) -> tuple[Path, str]:
    """The folder for images' personal things, or a passing one of ours and a note about it.

    On some clusters the home is read-only on compute nodes.
    """
    there = wanted
    while not there.exists() and there != there.parent:
        there = there.parent
    if os.access(there, os.W_OK | os.X_OK):
        return wanted, ""
    passing = Path(os.environ.get("TMPDIR") or "/tmp", f"limpet-{os.getuid()}")
    note = (
        f"{wanted} cannot be written: this image's personal folders are in {passing} "
        "and will not last. LIMPET_STATE_DIR names another place."
    )
    return passing, note


def probe_gpus() -> tuple[Gpu, ...]:
    """The makers of the GPUs that have device files here."""
    found: list[Gpu] = []
    if Path("/dev/nvidiactl").exists() or Path("/dev/nvidia0").exists():
        found.append("nvidia")
    if Path("/dev/kfd").exists():
        found.append("amd")
    return tuple(found)


def make_private(folders: Sequence[str], state: str) -> None:
    """The folders that a launch needs, for the user's eyes only."""
    if not folders:
        return
    root = Path(state)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Below /tmp someone else may have made it first.
        if root.is_symlink() or root.stat().st_uid != os.getuid():
            raise HostError(f"{root} belongs to someone else.", now="Set LIMPET_STATE_DIR.")
        for folder in folders:
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"{error.filename or root} cannot be made: this image's personal folders belong there.",
            why=f"{error.strerror}.",
            now="Set LIMPET_STATE_DIR to a folder that can be written, or use --home none.",
        ) from error
