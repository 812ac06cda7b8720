"""Counts what a start asks of the file system, as a plain user, and empties the page cache of it.

A folder's start is traced. An image's is not: a tracer that reads a path in a program's memory
waits for the page, the page for the process that serves the image, and that one for the tracer, if
it traces both (strace 6.1 with squashfuse_ll, observed). What serves an image is asked instead, by
/proc/PID/io, and the kernel tells how often the file is opened (inotify).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from limpet.core.bench import Counted, Dropped, parse_strace
from limpet.core.errors import HostError
from limpet.tools import process

MARK = b"limpet-probe "
SCRIPT = Path(__file__).parent.parent / "base_scripts" / "start_probe.py"
TRIAL = f"""
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except (Exception, SystemExit):
        continue
    sys.stdout.write("\\n{MARK.decode()}" + name + "\\n")
    sys.stdout.flush()
"""
CALLS = "%file,read,pread64,readv,preadv,getdents64,mmap"
FUSE_HEAD_BYTES = 72  # a request's head (40 bytes of fuse_in_header) and, mostly, what reads ask
_IN_OPEN = 0x20
_IN_ALL = 0x31  # with IN_ACCESS and IN_CLOSE_NOWRITE: the kernel joins equal events that follow
_EVENT = struct.Struct("iIII")


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """What the probe in `base_scripts/start_probe` says of an import."""

    opens: int
    stats: int
    lists: int
    size_bytes: int = msgspec.field(name="bytes")
    bases: tuple[str, ...]
    paths: tuple[str, ...]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a mounted image was asked for and had read: None where the kernel serves it itself."""

    opens: int
    reads: int | None = None
    read_bytes: int | None = None


def probe_words(names: Sequence[str]) -> tuple[str, ...]:
    """The words behind Python's name that start the probe."""
    return ("-c", SCRIPT.read_text("utf-8"), *names)


def import_words(names: Sequence[str]) -> tuple[str, ...]:
    """The words behind Python's name that import these modules and nothing else."""
    return ("-c", f"import {', '.join(names)}")


def trial_words(names: Sequence[str]) -> tuple[str, ...]:
    """The words behind Python's name that say which of these modules can be imported."""
    return ("-c", TRIAL, *names)


def parse_trial(said: str) -> tuple[str, ...]:
    """Those that could be."""
    mark = MARK.decode()
    return tuple(line.removeprefix(mark) for line in said.splitlines() if line.startswith(mark))


def count_by_python(
    argv: Sequence[str], env: Mapping[str, str], image: Path | None = None, *, timeout_s: float
) -> tuple[Probed, Served | None]:
    """Let Python count its imports; for an image, also what was asked of it until then.

    HostError, with what was said last, where the import fails or outlasts the time.
    """
    said: list[bytes] = []
    told, served = b"", None
    with _opens_of(image) as opens:
        running = process.start(argv, env=env)
        assert running.stdin
        assert running.stdout
        assert running.stderr
        errors = running.stderr
        listener = threading.Thread(target=lambda: said.extend(errors))
        listener.start()
        limit = threading.Timer(timeout_s, lambda: process.stop(running, patience_s=0))
        limit.start()
        try:
            lines = (line for line in running.stdout if line.startswith(MARK))
            told = next(lines, b"").removeprefix(MARK)
            served = _served(running.pid, opens()) if image else None
        finally:
            late = not limit.is_alive()
            limit.cancel()
            with contextlib.suppress(OSError):
                running.stdin.close()
            process.stop(running, patience_s=timeout_s if told else 1)
            listener.join()
    if late:
        raise HostError(f"It did not end within {timeout_s:g} s.")
    if running.returncode or not told:
        raise HostError(_last_line(b"".join(said)) or "Python said nothing.")
    return msgspec.json.decode(told, type=Probed), served


def trace(
    argv: Sequence[str], env: Mapping[str, str], roots: Sequence[str], *, timeout_s: float
) -> Counted | None:
    """The start of a folder's program counted by strace; None where that cannot be had."""
    strace = process.find_program("strace")
    if strace is None:
        return None
    with tempfile.NamedTemporaryFile(dir=_scratch()) as log:
        options = ("-f", "-y", "-qq", "-s", "4096", "-e", "signal=none", "-e", f"trace={CALLS}")
        try:
            done = process.run(
                [strace, *options, "-o", log.name, *argv], env=env, timeout_s=timeout_s
            )
        except HostError:
            return None
        text = Path(log.name).read_text("utf-8", "surrogateescape")
    if done.code or not text:  # ptrace may be forbidden
        return None
    counted, mapped = parse_strace(text, roots, str(Path.cwd()))
    extra = sum(_size(path) for path in mapped)
    return msgspec.structs.replace(counted, read_bytes=(counted.read_bytes or 0) + extra)


def drop(paths: Sequence[str]) -> Dropped:
    """Ask the kernel to forget these files' pages, and look at what it kept.

    Pages that another program has mapped stay. Names and attributes stay too: only root can have
    these forgotten.
    """
    files = size_bytes = left = unknown = 0
    for path in paths:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    continue
                length = status.st_size
                with contextlib.suppress(OSError):
                    os.fdatasync(descriptor)  # what is not written yet is not dropped
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                kept = _resident_bytes(descriptor, length)
            finally:
                os.close(descriptor)
            files += 1
            size_bytes += length
            left += kept or 0
            unknown += kept is None
    return Dropped(files=files, size_bytes=size_bytes, left_bytes=left, unknown_files=unknown)


def time_starts(argv: Sequence[str], env: Mapping[str, str], processes: int) -> float:
    """Seconds until the last of so many, started at once, has ended; HostError if one fails."""
    begun_s = time.perf_counter()
    running = [process.start(argv, env=env) for _ in range(processes)]
    try:
        said = [one.communicate()[1] for one in running]
    except BaseException:  # they are in groups of their own and hear no Ctrl-C
        for one in running:
            process.stop(one, patience_s=0)
        raise
    taken_s = time.perf_counter() - begun_s
    for one, text in zip(running, said, strict=True):
        if one.returncode:
            raise HostError(_last_line(text) or f"It ended with exit code {one.returncode}.")
    return taken_s


def _scratch() -> str | None:
    """Memory where there is some: a trace is some megabytes, and /tmp may be full."""
    return next((p for p in ("/dev/shm",) if os.access(p, os.W_OK)), None)


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _resident_bytes(descriptor: int, length: int) -> int | None:
    """Bytes of a file that are in the page cache; None where the kernel does not tell.

    mincore(2) says so only of files that the user owns or may write to (Linux 5.2 and newer).
    """
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or not length:
        return None if length else 0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *(3 * [ctypes.c_int]), ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    at = libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if at in (None, ctypes.c_void_p(-1).value):
        return None
    pages = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
    failed = libc.mincore(at, length, pages)
    libc.munmap(at, length)
    return None if failed else sum(byte & 1 for byte in pages.raw[:-1]) * mmap.PAGESIZE


class _Watch:
    """How often a file was opened since then."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self) -> int:
        count = 0
        while self._descriptor >= 0 and select.select([self._descriptor], [], [], 0)[0]:
            data, at = os.read(self._descriptor, 65536), 0
            while at < len(data):
                _, mask, _, length = _EVENT.unpack_from(data, at)
                count += bool(mask & _IN_OPEN)
                at += _EVENT.size + length
        return count


@contextlib.contextmanager
def _opens_of(path: Path | None) -> Iterator[_Watch]:
    """The kernel counts them, for one file, without any right but to read it (inotify)."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC) if path else -1
    if descriptor >= 0:
        libc.inotify_add_watch(descriptor, os.fsencode(path or ""), _IN_ALL)
    try:
        yield _Watch(descriptor)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _served(pid: int, opens: int) -> Served:
    """What the FUSE processes below this one have read.

    Each of their requests is one read of /dev/fuse and mostly one answer, so that the reads of the
    image are those that are more than answers.
    """
    found = [_io(one) for one in _below(pid) if "squashfuse" in _command(one)]
    counts = [one for one in found if one]
    if not counts:
        return Served(opens=opens)
    reads = sum(max(one["syscr"] - one["syscw"], 0) for one in counts)
    asked = sum(one["syscw"] * FUSE_HEAD_BYTES for one in counts)
    read_bytes = max(sum(one["rchar"] for one in counts) - asked, 0)
    return Served(opens=opens, reads=reads, read_bytes=read_bytes)


def _io(pid: int) -> dict[str, int]:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        return {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}
    return {}


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
        )
    return ""


def _below(pid: int) -> set[int]:
    """The processes that descend from this one."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            one = int(folder.name)
            parents[one] = int(process.read_status(one)[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found
