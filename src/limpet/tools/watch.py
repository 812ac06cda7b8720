"""Stay beside a program, change nothing of it, and look at what it said once it has failed.

Where standard error is a file, nothing comes in between: the file is read afterwards. A pipe or a
terminal is relayed byte by byte; what leads to the same place as standard error is relayed with
it, so that the order stays. Signals, terminal, exit code and death by a signal are the program's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import stat
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from limpet.core.watching import Stream

MOST_BYTES = 64 << 10  # of the end of what was said
_KERNEL = 0x80  # SI_KERNEL: of the terminal, which tells the whole foreground group by itself
_SET_PDEATHSIG = 1
# Signals that are passed on. Those that stop stay as they are: they stop limpet as well.
_PASSED = {
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1),
    *(signal.SIGUSR2, signal.SIGALRM, signal.SIGXCPU, signal.SIGVTALRM, signal.SIGPROF),
}
_WAITED = _PASSED | {signal.SIGCHLD, signal.SIGWINCH}
# The terminal sends these to its whole foreground group, the program included.
_OF_TERMINAL = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)

Answer = Callable[[str, int], str]


def stream_kind(number: int = 2) -> Stream:
    """What an open descriptor leads to."""
    try:
        status = os.fstat(number)
        if os.isatty(number):
            return "terminal"
    except OSError:
        return "none"
    if stat.S_ISREG(status.st_mode):
        return "file" if os.access(f"/proc/self/fd/{number}", os.R_OK) else "none"
    leads_to = os.path.realpath(f"/proc/self/fd/{number}")
    return "none" if leads_to == os.devnull else "pipe"


def run_watched(argv: Sequence[str], env: Mapping[str, str], answer: Answer) -> NoReturn:
    """Run it, then end as it did; before that, where it failed, say what `answer` gives.

    `answer` gets the end of what went to standard error, and the exit code (128 + the signal).
    OSError where the program cannot be started.
    """
    kind = stream_kind()
    before = os.fstat(2).st_size if kind == "file" else 0
    signals = _Signals()
    relay = _Relay(kind) if kind != "file" else None
    child = _start(argv, env, relay, signals)
    if relay:
        relay.begin()
    status = _wait(child, relay)
    said = relay.finish() if relay else b""
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(Exception):  # nothing of limpet's may come before the program's end
        if code:
            said = said if relay else _read_end(before)
            _say(answer(said.decode("utf-8", "replace"), code if code > 0 else 128 - code), said)
    _end_as(code)


def _start(
    argv: Sequence[str], env: Mapping[str, str], relay: _Relay | None, signals: _Signals
) -> int:
    ours, theirs = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _die_with(parent)
            if relay:
                relay.take_over()
            signals.give_back()
            os.execve(argv[0], list(argv), dict(env))
        except OSError as error:
            os.write(theirs, struct.pack("i", error.errno or 0))
        finally:
            os._exit(127)
    os.close(theirs)
    if relay:
        relay.let_go()
    told = os.read(ours, 4)
    os.close(ours)
    if told:
        os.waitpid(pid, 0)
        signals.give_back()
        number = struct.unpack("i", told)[0]
        raise OSError(number, os.strerror(number))
    return pid


def _die_with(parent: int) -> None:
    """Let the program be killed with limpet, as if it were limpet."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)


def _wait(child: int, relay: _Relay | None) -> int:
    while True:
        told = signal.sigwaitinfo(_WAITED)
        if told.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return status
        elif told.si_signo == signal.SIGWINCH:
            if relay:
                relay.fit()
        elif told.si_code != _KERNEL or told.si_signo not in _OF_TERMINAL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, told.si_signo)


def _read_end(before: int) -> bytes:
    """What was appended to the file behind standard error, at most its end."""
    with open("/proc/self/fd/2", "rb") as file:  # noqa: PTH123 - opened anew, to read
        size = file.seek(0, os.SEEK_END)
        file.seek(max(before if before <= size else 0, size - MOST_BYTES))
        return file.read(MOST_BYTES)


def _say(line: str, said: bytes) -> None:
    if line:
        start = "" if not said or said.endswith(b"\n") else "\n"
        _write(2, f"{start}{line}\n".encode())


def _write(number: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(number, data) :]
        except BlockingIOError:  # somebody set the pipe so, for all who share it
            select.select([], [number], [])


def _end_as(code: int) -> NoReturn:
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


class _Signals:
    """This process's handling of signals while it waits, and what it was before."""

    def __init__(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
        # A reader that goes away is the program's to notice; its end must be seen.
        self._pipe = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def give_back(self) -> None:
        signal.signal(signal.SIGPIPE, self._pipe)
        signal.signal(signal.SIGCHLD, self._child)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


class _Relay:
    """What the program writes, passed on at once; the end of it is kept."""

    def __init__(self, kind: Stream) -> None:
        same = _is_same(1, 2)
        self._taken = (1, 2) if same else (2,)
        self._out = 2
        self._kept = bytearray()
        self._gone = False
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        if kind == "terminal":
            import termios
            import tty

            self._ours, self._theirs = os.openpty()
            # The real terminal turns newlines into what it needs, once.
            settings = termios.tcgetattr(2)
            settings[tty.OFLAG] &= ~termios.OPOST
            termios.tcsetattr(self._theirs, termios.TCSANOW, settings)
            self.fit()
        else:
            self._ours, self._theirs = os.pipe()

    def fit(self) -> None:
        """Give the copy of the terminal the size that the terminal has."""
        import termios

        with contextlib.suppress(OSError):
            size = fcntl.ioctl(2, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self._ours, termios.TIOCSWINSZ, size)

    def take_over(self) -> None:
        """In the program's process: write to the relay from here on."""
        for number in self._taken:
            os.dup2(self._theirs, number)

    def let_go(self) -> None:
        """In limpet's: leave the program's end to the program, so that its end is seen."""
        os.close(self._theirs)

    def begin(self) -> None:
        self._thread.start()

    def finish(self) -> bytes:
        """What came to its end. Something left behind by the program may go on to write: then a
        process of its own goes on to relay."""
        self._thread.join(0.05)
        while self._thread.is_alive() and select.select([self._ours], [], [], 0)[0]:
            self._thread.join(0.05)
        if self._thread.is_alive() and os.fork() == 0:
            try:
                self._pass_on()
            finally:
                os._exit(0)
        return bytes(self._kept)

    def _pass_on(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 1 << 16)
            except OSError:  # a terminal's way to say that nobody writes any more
                return
            if not data:
                return
            self._kept += data
            del self._kept[:-MOST_BYTES]
            try:
                _write(self._out, data)
            except OSError:  # nobody reads any more: let the program notice it as it would
                os.close(self._ours)
                return


def _is_same(one: int, other: int) -> bool:
    try:
        first, second = os.fstat(one), os.fstat(other)
    except OSError:
        return False
    return (first.st_dev, first.st_ino, first.st_rdev) == (
        second.st_dev,
        second.st_ino,
        second.st_rdev,
    )
