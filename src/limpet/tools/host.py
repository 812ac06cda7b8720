"""This machine and this session, as far as a launch depends on them."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import pwd
import shlex
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from limpet.core.errors import HostError, SpaceError, gone_error
from limpet.core.gpu import Driver, Gpu
from limpet.core.homes import PERSONAL, START_FILES
from limpet.core.mounts import Mount
from limpet.core.seeing import is_own
from limpet.core.seen import HostSeen
from limpet.core.variable_groups import TEMPORARY
from limpet.tools import files

_RuntimeKind = Literal["apptainer", "singularity-ce"]


def probe_host(
    *,
    runtime: str,
    runtime_kind: _RuntimeKind,
    runtime_version: str,
    state_folder: str = "",
    binds: Sequence[Mount] = (),
    gpus: Sequence[Gpu] = (),
    driver: Driver | None = None,
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
        personal=probe_personal(home) if home else {},
        links=probe_links(),
        temporaries=probe_temporaries(),
        gpus=tuple(gpus),
        driver=driver or Driver(),
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
        namespaces=probe_namespaces(),
        setuid=probe_setuid(Path(runtime)),
        missing=tuple(m.source for m in binds if not Path(m.source).exists()),
    )


def probe_personal(home: str) -> dict[str, str]:
    """The personal folders and start files of a home, with their true paths."""
    # A dangling link would make the runtime create its target in the host's file system.
    folders = (p.folder for p in PERSONAL if Path(home, p.folder).is_dir())
    names = (*folders, *(name for name in START_FILES if Path(home, name).is_file()))
    return {name: os.path.realpath(Path(home, name)) for name in names}


def probe_links(top: Path = Path("/")) -> dict[str, str]:
    """The links at the top of the file system that lead to folders which no image has itself."""
    with os.scandir(top) as entries:
        links = [entry.path for entry in entries if entry.is_symlink() and entry.is_dir()]
    return {link: os.path.realpath(link) for link in sorted(links) if not is_own(link)}


def probe_temporaries() -> tuple[str, ...]:
    """The folders that TMPDIR and its like name, where they exist and are the user's to write."""
    named = (os.environ.get(name, "") for name in TEMPORARY)
    return tuple(
        folder
        for folder in named
        if folder.startswith("/") and Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)
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
        raise gone_error() from error


def find_state(wanted: Path) -> tuple[Path, str]:
    """The folder for images' personal things, or a passing one of ours and a note about it.

    On some clusters the home is read-only on compute nodes.
    """
    if os.access(files.nearest(wanted), os.W_OK | os.X_OK):
        return wanted, ""
    passing = Path(os.environ.get("TMPDIR") or "/tmp", f"limpet-{os.getuid()}")
    note = (
        f"{wanted} cannot be written: this image's personal folders are in {passing} "
        "and will not last. LIMPET_STATE_DIR names another place."
    )
    return passing, note


def probe_namespaces(proc: Path = Path("/proc")) -> bool:
    """Whether the kernel's settings allow users their own namespaces."""
    # The second is Debian's and older kernels'; AppArmor's own setting lets Apptainer's profile by.
    for name in ("sys/user/max_user_namespaces", "sys/kernel/unprivileged_userns_clone"):
        with contextlib.suppress(OSError):
            if (proc / name).read_text().strip() == "0":
                return False
    return True


# Below the runtime's prefix: where its makers put their programs, and where Debian does.
_LIBEXEC = ("libexec", f"lib/{os.uname().machine}-linux-gnu")


def probe_setuid(runtime: Path) -> bool | None:
    """Whether the runtime has setuid rights; None where its own programs are not found."""
    folders = [folder for folder in _own_folders(runtime) if _mode(folder / "starter")]
    if not folders:
        return None
    return any(_mode(folder / "starter-suid") & stat.S_ISUID for folder in folders)


def _own_folders(runtime: Path) -> Iterator[Path]:
    for libexec in _LIBEXEC:
        place = runtime.resolve().parent.parent / libexec
        yield place / "apptainer/bin"
        # glob would ask of each of Debian's 1,500 entries what it is, at each start.
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("singularity"):
                    yield place / entry.name / "bin"


def _mode(program: Path) -> int:
    with contextlib.suppress(OSError):
        return program.stat().st_mode
    return 0


def make_private(folders: Sequence[str], state: str, empty_files: Sequence[str] = ()) -> None:
    """The folders and files that a launch needs, for the user's eyes only."""
    if not folders:
        return
    root = Path(state)
    try:
        if not root.parent.is_dir():
            root.parent.mkdir(parents=True, exist_ok=True)
        # One by one: `parents` would make those above with everybody's rights.
        below = [Path(folder).relative_to(root) for folder in folders]
        places = [place for one in below for place in (*reversed(one.parents), one)]
        for place in dict.fromkeys(places):
            _make_folder(root / place)
        for file in map(Path, empty_files):
            if not file.exists():
                file.touch(mode=0o600)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (SpaceError if full else HostError)(
            f"{error.filename or root} cannot be made: this image's personal folders belong there.",
            why=f"{error.strerror}.",
            now="Set LIMPET_STATE_DIR to a folder that can be written.",
        ) from error


def _make_folder(place: Path) -> None:
    # A look first: a shared file system's client knows what is there, and asks its server to make.
    if not place.is_dir():
        place.mkdir(mode=0o700, exist_ok=True)
    check_private(place)


def check_private(folder: Path) -> None:
    """HostError where others could put their code into the user's programs."""
    status = folder.lstat()
    # Below /tmp someone else may have made it first.
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.getuid():
        raise HostError(
            f"{folder} belongs to someone else, or is a link.",
            why="Others could put their code into your programs there.",
            now="Set LIMPET_STATE_DIR to a folder of your own.",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HostError(
            f"{folder} can be written by others, who could put their code into your programs.",
            now=f"Look into it, then: chmod go-w {shlex.quote(str(folder))}",
        )
