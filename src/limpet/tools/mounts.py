"""What is mounted on this machine, by the kernel's list: asking it hangs on no dead server."""

from __future__ import annotations

import os
from pathlib import Path

from limpet.core import file_systems

MOUNTS = Path("/proc/self/mountinfo")


def read_mounts(mounts: Path = MOUNTS) -> str:
    """The kernel's list; empty where there is none."""
    try:
        return mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def find_mount(path: str, mounts: Path = MOUNTS) -> file_systems.Mounted:
    """What a path without links lies on."""
    return file_systems.find_mount(path, read_mounts(mounts))


def kind_of(path: Path, mounts: Path = MOUNTS) -> str:
    """The kind of file system that a path leads to; empty where nothing tells."""
    return find_mount(os.path.realpath(path), mounts).kind


def is_shared(folder: Path, mounts: Path = MOUNTS) -> bool:
    """Whether the folder lies on a network file system."""
    return file_systems.is_shared(kind_of(folder, mounts))
