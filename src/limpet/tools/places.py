"""Folders and the file systems below them. Touching one may hang: see `bounded`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from limpet.core.machine import Place
from limpet.tools import files

MOUNTS = Path("/proc/self/mountinfo")
MOST_NAMES = 100_000  # entries of a folder that are looked at for partial files


def probe_place(role: str, path: Path, *, partials: bool = False) -> Place:
    """A folder, or the nearest one above it that exists, where it would be made."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    kind, options = find_mount(os.path.realpath(there))
    space = os.statvfs(there)
    mode = there.stat().st_mode
    return Place(
        role=role,
        path=str(path),
        exists=there == path,
        kind=kind,
        free_bytes=space.f_bavail * space.f_frsize,
        size_bytes=space.f_blocks * space.f_frsize,
        free_inodes=space.f_favail,
        inodes=space.f_files,
        writable=os.access(there, os.W_OK | os.X_OK) and not space.f_flag & os.ST_RDONLY,
        others_write=there == path
        and bool(mode & (stat.S_IWOTH | stat.S_IWGRP))
        and not mode & stat.S_ISVTX,
        no_exec="noexec" in options,
        partials=tuple(sorted(find_partials(path))) if partials else (),
    )


def find_mount(path: str, mounts: Path = MOUNTS) -> tuple[str, tuple[str, ...]]:
    """The kind and options of the file system that a path without links lies on.

    Only the kernel's list is read, so this works where touching the path would hang.
    """
    kind, options, longest = "", "", -1
    with contextlib.suppress(OSError):
        for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            fields, _, rest = line.partition(" - ")
            words = fields.split()
            point = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), words[4])
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= longest:  # of two on one place the later one counts
                kind, options, longest = rest.split()[0], words[5], len(point)
    return kind, tuple(options.split(","))


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
