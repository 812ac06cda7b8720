"""The only module that starts processes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from limpet.core.errors import HostError

if TYPE_CHECKING:
    import subprocess

# A container runtime that is killed leaves what serves its image behind, and that keeps the file.
CLEARING_UP_S = 5.0


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A process that ended: its exit code (negative: killed by that signal) and what it said."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode("utf-8", "replace")


def find_program(name: str, *, path: str | None = None) -> Path | None:
    """Where a program is, or None; a name with a slash is a path."""
    folders = [""]
    if "/" not in name:
        told = os.environ.get("PATH", os.defpath) if path is None else path
        folders = told.split(os.pathsep) if told else []
    for place in (Path(folder, name) for folder in folders):
        # In this order: before Python 3.14 is_file raises where a folder may not be searched.
        if os.access(place, os.X_OK) and place.is_file():
            return place
    return None


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input_bytes: bytes | None = None,
    timeout_s: float | None = None,
) -> Finished:
    """Run to the end with captured output; the exit code is the caller's to judge.

    Raises HostError where the program is missing, may not be started, or outlasts `timeout_s`.
    """
    import subprocess

    words = [str(word) for word in argv]
    try:
        running = subprocess.Popen(
            words,
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise HostError(
            f"{words[0]} cannot be started.",
            why=f"There is no such program: {error.filename}.",
            now="Install it, or name its place in PATH.",
        ) from error
    except PermissionError as error:
        raise HostError(f"{words[0]} cannot be started.", why=str(error)) from error
    done = _finish(words, running, input_bytes or b"", timeout_s)
    if done is None:
        raise HostError(f"{words[0]} did not end within {timeout_s:g} s.")
    return done


def _finish(
    argv: Sequence[str | Path],
    running: subprocess.Popen[bytes],
    input_bytes: bytes,
    timeout_s: float | None,
) -> Finished | None:
    """What became of it; None where it had to be stopped, as it is where this process is."""
    import subprocess

    with running:
        try:
            stdout, stderr = running.communicate(input_bytes, timeout=timeout_s)
        except BaseException as error:
            stop(running, patience_s=0)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return None
    return Finished(
        argv=tuple(map(str, argv)),
        code=running.returncode,
        stdout=stdout,
        stderr=stderr.decode("utf-8", "replace"),
    )


def run_limited(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    input_bytes: bytes = b"",
) -> Finished | None:
    """As `run`, but None where it had to be stopped; all that it started is stopped with it."""
    return _finish(argv, start(argv, env=env), input_bytes, timeout_s)


def start(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that is spoken with over pipes; it dies with its own process group."""
    import subprocess

    return subprocess.Popen(
        [str(word) for word in argv],
        env=env,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )


def stop(running: subprocess.Popen[bytes], *, patience_s: float) -> int:
    """Its exit code, once it has ended: of itself in that time, else because it is told to.

    Its whole group is told, since a program in the middle may pass nothing on (unshare does not).
    """
    import subprocess

    with contextlib.suppress(subprocess.TimeoutExpired):
        return running.wait(patience_s)
    _tell(running, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return running.wait(max(patience_s, CLEARING_UP_S))
    _tell(running, signal.SIGKILL)
    return running.wait()


def _tell(running: subprocess.Popen[bytes], told: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(running.pid) == running.pid:
            os.killpg(running.pid, told)
        else:
            running.send_signal(told)


def replace_by(argv: Sequence[str | Path], env: Mapping[str, str]) -> NoReturn:
    """Become another program: signals, terminal and exit code are its own from here on."""
    words = [str(word) for word in argv]
    os.execve(words[0], words, dict(env))


def read_status(pid: int) -> list[str]:
    """A process's /proc/PID/stat from its state on (proc(5), there field 3); OSError if it is gone.

    The program's name stands before, in parentheses, and may hold anything.
    """
    text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    return text.rpartition(")")[2].split()


def is_by_hand() -> bool:
    """Whether somebody has started this in the foreground of a terminal, and no script did."""
    own = os.getpid()
    with contextlib.suppress(OSError):
        status = read_status(own)
        return status[2] == status[5] == str(own)  # its group, and that in the foreground
    return False


def detached(work: Callable[[], object]) -> None:
    """Do something beside all else, also after this process has become another program.

    It is nobody's child and holds no file that was open here, so that no pipe stays open for it and
    neither a shell nor a scheduler waits. Where it fails, or cannot be started, nothing is said.
    """
    try:
        child = os.fork()
    except OSError:
        return
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 1024)
            work()
    finally:
        os._exit(0)


@contextlib.contextmanager
def forked(work: Callable[[int, int], object]) -> Iterator[tuple[int, int]]:
    """Let a copy of this process work; the descriptors to read what it says, and to tell it things.

    `work` is given the other ends: to write to, and to read from. The copy has all that there is
    here, and shares nothing that changes but memory that is mapped as shared. It ends with the
    block, and when nobody reads or tells any more.
    """
    said, says = os.pipe()
    hears, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for who waits for this one
            os.close(said)
            os.close(told)
            with contextlib.suppress(BrokenPipeError):
                work(says, hears)
        finally:
            os._exit(0)
    os.close(says)
    os.close(hears)
    try:
        yield said, told
    finally:
        os.close(said)
        os.close(told)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
