"""Folders and the file systems below them. Touching one may hang: see `bounded`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from limpet.core.machine import Place
from limpet.tools import files, mounts

MOST_NAMES = 100_000  # entries of a folder that are looked at for partial files


def probe_place(role: str, path: Path, *, partials: bool = False) -> Place:
    """A folder, or the nearest one above it that exists, where it would be made."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    mounted = mounts.find_mount(os.path.realpath(there))
    space = os.statvfs(there)
    mode = there.stat().st_mode
    return Place(
        role=role,
        path=str(path),
        exists=there == path,
        kind=mounted.kind,
        free_bytes=space.f_bavail * space.f_frsize,
        size_bytes=space.f_blocks * space.f_frsize,
        free_inodes=space.f_favail,
        inodes=space.f_files,
        writable=os.access(there, os.W_OK | os.X_OK) and not space.f_flag & os.ST_RDONLY,
        others_write=there == path
        and bool(mode & (stat.S_IWOTH | stat.S_IWGRP))
        and not mode & stat.S_ISVTX,
        no_exec="noexec" in mounted.options,
        partials=tuple(sorted(find_partials(path))) if partials else (),
    )


def find_partials(folder: Path) -> Iterator[str]:
    """Files of builds that ended before their rename, and that no process holds."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number > MOST_NAMES:
                return
            if files.PARTIAL_MARK in entry.name and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError), Path(entry.path).open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield entry.path
