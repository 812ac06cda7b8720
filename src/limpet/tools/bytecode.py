"""Byte code of wheels, compiled by the base's own Python in one long-lived process.

The process is started once a build; wheels that have arrived are compiled while others are still
on their way. See `base_scripts/compile_wheels.py` for the other end.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import signal
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, Self

from limpet.core.errors import BuildError
from limpet.tools import process

_SCRIPTS = Path(__file__).parent.parent / "base_scripts"
# Where the process sees its scripts, the wheels (read-only) and the folder that it writes to.
SCRIPT_INSIDE = "/opt/limpet/compile_wheels.py"
SCRIPTS = {
    _SCRIPTS / "compile_wheels.py": SCRIPT_INSIDE,
    _SCRIPTS / "module_imports.py": "/opt/limpet/module_imports.py",
}
WHEELS_INSIDE = "/opt/limpet/wheels"
OUT_INSIDE = "/opt/limpet/out"
# A job is compiled in one fork. Which modules share one changes their bytes: raise
# `core.piece.FORMAT` with these.
JOB_MODULES = 150
JOB_BYTES = 3_000_000


class Source(NamedTuple):
    """A module to compile: its final path, and where its bytes are in the wheel."""

    path: str
    offset: int
    packed_bytes: int
    size_bytes: int
    method: int


class Compiled(NamedTuple):
    """A module's byte code, and what it imports, as `module_imports` tells it."""

    path: str
    data: bytes
    imports: tuple[str, ...]


class Job:
    """A few modules of one wheel, to be compiled together."""

    def __init__(self, sources: Sequence[Source], out: Path) -> None:
        self.sources = sources
        self.out = out
        self.done: Future[None] = Future()

    def result(self) -> Iterator[Compiled]:
        """The modules that could be compiled, with their byte code; waits for the job."""
        data = self.answer()
        at = 0
        for source in self.sources:
            parts = []
            for _ in range(2):
                (size,) = struct.unpack_from("<I", data, at)
                parts.append(data[at + 4 : at + 4 + size])
                at += 4 + size
            if parts[0]:
                lines = parts[1].decode("utf-8", "replace").splitlines()
                yield Compiled(source.path, parts[0], tuple(lines))

    def answer(self) -> bytes:
        """What the base's Python wrote; waits for it."""
        self.done.result()
        data = self.out.read_bytes()
        self.out.unlink()
        return data


class Compiler:
    """The process in the base, and the queue of jobs before it; the largest wheels go first.

    `out` is the folder that it writes to, which it sees at `OUT_INSIDE`.
    """

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], *, out: Path, workers: int
    ) -> None:
        self.out = out
        self._workers = workers
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, int, bytes]] = []
        self._running: dict[int, Job] = {}
        self._jobs: dict[int, Job] = {}
        self._count = 0
        self._closed = False
        self._stderr: deque[str] = deque(maxlen=15)
        self._process = process.start(argv, env=env)
        self.cache_tag: Future[str] = Future()
        self._threads = [
            threading.Thread(target=target, daemon=True)
            for target in (self._read_answers, self._read_errors)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            assert self._process.stdin
            self._process.stdin.close()
        if self._jobs:  # given up: nobody waits for what is still being compiled
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for thread in self._threads:
            thread.join()

    def compile(self, wheel: str, sources: Sequence[Source]) -> list[Job]:
        """Queue the modules of a wheel, or another zip, which is named by its path inside.

        Without a name they are files, which lie at their final path inside.
        """
        weight = sum(source.size_bytes for source in sources)
        with self._lock:
            jobs = []
            for chunk in plan_jobs(sources):
                placed = [(s.path, s.offset, s.packed_bytes, s.method) for s in chunk]
                jobs.append(self._queue(weight, chunk, {"wheel": wheel, "files": placed}))
            self._send()
        return jobs

    def look(self, names: Mapping[str, Sequence[str]], *, packages: bool) -> Job:
        """Ask what the base's Python itself has of these modules, and of what they import.

        `names` are modules, each with what is imported from it, which may be modules too.
        With `packages` also what is installed there, and not its standard library alone.
        """
        with self._lock:
            job = self._queue(0, (), {"names": names, "packages": packages})
            self._send()
        return job

    def _queue(self, weight: int, chunk: Sequence[Source], asked: dict[str, object]) -> Job:
        self._count += 1
        job = self._jobs[self._count] = Job(chunk, self.out / str(self._count))
        request = {"job": self._count, "out": f"{OUT_INSIDE}/{self._count}", **asked}
        line = json.dumps(request).encode() + b"\n"
        heapq.heappush(self._waiting, (-weight, self._count, line))
        return job

    def _send(self) -> None:
        """Keep all workers busy. Only with the lock held."""
        assert self._process.stdin
        while self._waiting and len(self._running) < self._workers:
            _, number, line = heapq.heappop(self._waiting)
            self._running[number] = self._jobs[number]
            # A process that died is noticed, and told of, by the thread that reads its answers.
            with contextlib.suppress(OSError, ValueError):
                self._process.stdin.write(line)
                self._process.stdin.flush()

    def _read_answers(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            answer = json.loads(line)
            if "cache_tag" in answer:
                self.cache_tag.set_result(answer["cache_tag"])
                continue
            with self._lock:
                job = self._running.pop(answer["job"])
                del self._jobs[answer["job"]]
                self._send()
            if answer["status"]:
                job.done.set_exception(self._failure(f"It ended with status {answer['status']}."))
            else:
                job.done.set_result(None)
        self._give_up()

    def _give_up(self) -> None:
        self._threads[1].join()
        failure = self._failure("The process in the base ended early.")
        with self._lock:
            left = [*self._jobs.values()]
            self._jobs.clear()
            self._waiting.clear()
        if not self.cache_tag.done():
            self.cache_tag.set_exception(failure)
        for job in left:
            job.done.set_exception(failure)

    def _read_errors(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self._stderr.append(line.decode("utf-8", "replace").rstrip())

    def _failure(self, why: str) -> BuildError:
        return BuildError(
            "The base's Python could not compile the packages to byte code.",
            why="\n".join([*self._stderr, why]),
            now="If memory was short, use a larger allocation or --jobs 1.",
        )


def plan_jobs(sources: Sequence[Source]) -> Iterator[Sequence[Source]]:
    """Cut a wheel's modules, which are sorted, into jobs; only the wheel decides where."""
    chunk: list[Source] = []
    size_bytes = 0
    for source in sources:
        chunk.append(source)
        size_bytes += source.size_bytes
        if len(chunk) == JOB_MODULES or size_bytes >= JOB_BYTES:
            yield chunk
            chunk, size_bytes = [], 0
    if chunk:
        yield chunk


def byte_code_path(module: str, cache_tag: str) -> str:
    """Where a module's byte code lies: `a/b.py` → `a/__pycache__/b.cpython-313.pyc`."""
    folder, slash, name = module.rpartition("/")
    return f"{folder}{slash}__pycache__/{name.removesuffix('.py')}.{cache_tag}.pyc"
