"""Run one command and say what it took: time, processor time of all its processes, disk."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.2
# Looking at a folder costs the machine something too; never more than this part of one core.
SAMPLE_SHARE = 0.08
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to start: arguments, environment, and the folder that is watched for its size."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    watched: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one run took. `disk_bytes` is the most above what lay there at the start."""

    ok: bool
    wall_s: float
    cpu_s: float
    disk_bytes: int


def adopt_orphans() -> None:
    """Become the parent of processes that outlive theirs (FUSE mounts), to count their time."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_measured(command: Command, log: Path) -> Cost:
    """Run to the end; what it prints goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink, watch(command.watched) as disk:
        ours = _children()
        before = _children_cpu_s()
        start = time.perf_counter()
        process = subprocess.Popen(
            command.argv,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:  # whoever ends the bench ends what it has started
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        wall_s = time.perf_counter() - start
        _reap_orphans(ours)
        cpu_s = _children_cpu_s() - before
    disk_bytes = disk.growth_bytes if disk else 0
    return Cost(ok=code == 0, wall_s=wall_s, cpu_s=cpu_s, disk_bytes=disk_bytes)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _children() -> set[int]:
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for children in lists for pid in children.read_text().split()}


def _reap_orphans(ours: set[int], patience_s: float = 2.0) -> None:
    """Wait for what was adopted during a run; `ours` (the registry) go on."""
    deadline = time.monotonic() + patience_s
    while (orphans := _children() - ours) and time.monotonic() < deadline:
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


class Disk:
    """The size of a folder over time, sampled by a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start = self._peak = folder_bytes(folder)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        pause_s = 0.0
        while not self._over.wait(pause_s):
            begun_s = time.thread_time()
            self._peak = max(self._peak, folder_bytes(self._folder))
            pause_s = max(SAMPLE_S, (time.thread_time() - begun_s) / SAMPLE_SHARE)

    def stop(self) -> None:
        """Look a last time."""
        self._over.set()
        self._thread.join()
        self._peak = max(self._peak, folder_bytes(self._folder))

    @property
    def growth_bytes(self) -> int:
        """The most seen, above what lay there at the start."""
        return self._peak - self._start


@contextlib.contextmanager
def watch(folder: Path | None) -> Iterator[Disk | None]:
    """Sample `folder`, if there is one, while the block runs."""
    disk = Disk(folder) if folder else None
    try:
        yield disk
    finally:
        if disk:
            disk.stop()


def folder_bytes(folder: Path) -> int:
    """Allocated bytes below a folder, each file once however often it is linked."""
    total = 0
    linked: set[tuple[int, int]] = set()
    pending = [str(folder)]
    while pending:
        # Folders come and go while a build runs, and some are closed to us.
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif status.st_nlink > 1:
                        key = (status.st_dev, status.st_ino)
                        if key in linked:
                            continue
                        linked.add(key)
                    total += status.st_blocks * 512
    return total
