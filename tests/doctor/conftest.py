"""A file system that never answers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until


@pytest.fixture
def dead_folder(tmp_path: Path) -> Iterator[Path]:
    """A mounted folder whose file system answers nothing until the test is over."""
    program = tmp_path / "hangfs"
    flags = subprocess.run(
        ["pkg-config", "fuse3", "--cflags", "--libs"], capture_output=True, text=True, check=True
    )
    source = Path(__file__).with_name("hangfs.c")
    subprocess.run(["gcc", "-O1", source, "-o", program, *flags.stdout.split()], check=True)
    folder = tmp_path / "dead"
    folder.mkdir()
    running = subprocess.Popen([program, "-f", folder])
    mounts = Path("/proc/self/mountinfo")
    try:
        wait_until(lambda: f" {folder} " in mounts.read_text())
        yield folder
    finally:
        running.kill()  # lets go of all that hang
        running.wait()
        with contextlib.suppress(FileNotFoundError):
            unmount = shutil.which("fusermount3") or "fusermount"
            subprocess.run([unmount, "-u", "-z", folder], check=False, env=dict(os.environ))
