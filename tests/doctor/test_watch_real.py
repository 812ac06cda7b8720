"""A program that limpet stays beside behaves, and is seen, as if limpet were not there."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import Base, Limpet

pytestmark = pytest.mark.real

SOURCE = Path(__file__).parents[2] / "src"
# Starts its arguments, watched; answers with the exit code and how much it was shown.
DRIVER = """
import os, signal, sys
from limpet.tools.watch import run_watched
signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as the launch does
def answer(said, code):
    return f"answer {code} {len(said)}" if os.environ.get("ANSWER") else ""
run_watched(sys.argv[1:], os.environ, answer)
"""
PYTHON = [sys.executable, "-E", "-P"]


def watched(*words: str) -> list[str]:
    return [*PYTHON, "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{DRIVER}", *words]


def python(script: str) -> list[str]:
    return watched(sys.executable, "-c", script)


def run(argv: Sequence[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "ANSWER": "1"}
    return subprocess.run(argv, env=environment, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_codes(code: int) -> None:
    done = run(["sh", "-c", 'exec "$@"', "sh", *watched("/bin/sh", "-c", f"exit {code}")])
    assert done.returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE])
def test_death_by_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    done = run(watched("/bin/sh", "-c", f"kill -{int(number)} $$"), capture_output=True)
    assert done.returncode == -number
    assert done.stderr == f"answer {128 + number} 0\n".encode()


def test_bytes_pass_a_pipe_as_they_are() -> None:
    script = "import os, sys\nfor _ in range(64): os.write(2, bytes(range(256)) * 64)\nsys.exit(4)"
    done = run(python(script), capture_output=True)
    plain = bytes(range(256)) * 64 * 64
    assert done.stderr.startswith(plain)
    # the program's last byte ended no line
    assert done.stderr[len(plain) :].startswith(b"\nanswer 4 ")
    assert done.stdout == b""


def test_nothing_is_said_where_all_went_well() -> None:
    done = run(watched("/bin/sh", "-c", "echo warning >&2"), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"warning\n")


def test_order_is_kept_where_both_streams_are_one() -> None:
    script = "import os\nfor n in range(3000): os.write(1 + n % 2, b'%d\\n' % n)"
    done = run(python(script), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.stdout.split() == [b"%d" % n for n in range(3000)]


def test_output_arrives_at_once() -> None:
    script = "import os, time\nos.write(2, b'now')\ntime.sleep(60)"
    with subprocess.Popen(python(script), stderr=subprocess.PIPE) as running:
        assert running.stderr
        assert os.read(running.stderr.fileno(), 100) == b"now"
        running.terminate()
        assert running.wait(20) == -signal.SIGTERM


def test_a_file_is_the_programs_own(tmp_path: Path) -> None:
    script = (
        "import os, sys; print(os.readlink('/proc/self/fd/2')); os.write(2, b'x' * 10); sys.exit(3)"
    )
    path = tmp_path / "err ä"
    path.write_bytes(b"of another program\n")
    with path.open("ab") as err:
        done = run(python(script), stderr=err, stdout=subprocess.PIPE)
    assert done.stdout.decode().strip() == str(path)
    assert path.read_bytes() == b"of another program\n" + b"x" * 10 + b"\nanswer 3 10\n"


@pytest.mark.parametrize("name", ["TERM", "INT", "USR1", "HUP"])
def test_signals_are_passed_on_once(name: str) -> None:
    script = (
        "import os, signal, sys, time\nseen = []\n"
        f"signal.signal(signal.SIG{name}, lambda *a: seen.append(1))\n"
        "os.write(1, b'up')\n"
        "until = time.monotonic() + 20\n"
        "while not seen and time.monotonic() < until: time.sleep(0.01)\n"
        "time.sleep(0.2)\nsys.exit(40 + len(seen))"
    )
    running = subprocess.Popen(python(script), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout
    assert os.read(running.stdout.fileno(), 2) == b"up"
    os.kill(running.pid, getattr(signal, f"SIG{name}"))
    running.communicate(timeout=30)
    assert running.returncode == 41


def test_it_dies_with_limpet() -> None:
    script = "import os, time\nos.write(1, b'%d' % os.getpid())\ntime.sleep(60)"
    running = subprocess.Popen(python(script), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout
    pid = int(os.read(running.stdout.fileno(), 20))
    running.kill()
    running.communicate(timeout=20)
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or ") Z " in state.read_text():
            break
        time.sleep(0.05)
    else:
        raise AssertionError("it lives on")


def test_what_goes_on_in_the_background_can_go_on_to_write(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"for i in $(seq 600); do [ -e '{gate}' ] && break; sleep 0.05; done"
    script = f"({wait}; echo late >&2) & exit 0"
    with subprocess.Popen(watched("/bin/sh", "-c", script), stderr=subprocess.PIPE) as running:
        assert running.wait(20) == 0  # while the other one waits at its gate
        gate.touch()
        assert running.stderr and running.stderr.read() == b"late\n"


def test_a_reader_that_goes_away() -> None:
    script = "import os, time\nwhile True:\n    os.write(2, b'x' * 4096)"
    reader, writer = os.pipe()
    with subprocess.Popen(python(script), stderr=writer) as running:
        os.close(writer)
        os.read(reader, 10)
        os.close(reader)
        assert running.wait(20) != 0


def on_terminal(argv: Sequence[str], columns: int = 93) -> tuple[int, bytes]:
    """Exit code and output of a program on a terminal of that width."""
    import fcntl
    import struct
    import termios

    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 41, columns, 0, 0))
        os.environ["ANSWER"] = "1"
        os.execv(argv[0], list(argv))
    said = b""
    try:
        while part := os.read(terminal, 4096):
            said += part
    except OSError:
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def test_a_terminal_stays_a_terminal() -> None:
    script = (
        "import os, sys\n"
        "print(*(os.isatty(n) for n in range(3)), os.get_terminal_size(2).columns)\n"
        "print('wrong', file=sys.stderr)\nprint('right')\nsys.exit(6)"
    )
    code, said = on_terminal(python(script))
    assert code == 6
    assert said.startswith(b"True True True 93\r\nwrong\r\nright\r\nanswer 6 ")


def test_control_c_reaches_the_program_once() -> None:
    script = (
        "import os, signal, sys, time\nseen = []\n"
        "signal.signal(signal.SIGINT, lambda *a: seen.append(1))\n"
        "print('up', flush=True)\nuntil = time.monotonic() + 20\n"
        "while not seen and time.monotonic() < until: time.sleep(0.01)\n"
        "time.sleep(0.3)\nsys.exit(50 + len(seen))"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        argv = python(script)
        os.execv(argv[0], argv)
    said = b""
    while b"up" not in said:
        said += os.read(terminal, 100)
    os.write(terminal, b"\x03")
    try:
        while os.read(terminal, 100):
            pass
    except OSError:
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 51


def test_a_program_that_cannot_be_started() -> None:
    done = run(watched("/no/such/program"), capture_output=True)
    assert done.returncode == 1 and b"FileNotFoundError" in done.stderr


# ---- limpet run ----------------------------------------------------------------------------------


def test_limpet_run_answers(limpet: Limpet, debian_base: Base, tmp_path: Path) -> None:
    image = debian_base.sif
    command = ("python3", "-c", "import nothere")
    done = limpet("run", image, *command)
    assert done.returncode == 1
    plain, line = done.stderr.removesuffix("\n").rsplit("\n", 1)
    assert plain.endswith("ModuleNotFoundError: No module named 'nothere'")
    assert line.startswith("limpet: nothere is not in the image")
    config = tmp_path / "config.toml"
    config.write_text("answers = false\n")
    for words, env in (
        (("--no-answers",), {}),
        ((), {"SLURM_PROCID": "1"}),
        (("--config", str(config)), {}),
        (("-q",), {}),
    ):
        silent = limpet("run", *words, image, *command, env=env)
        assert silent.returncode == 1 and "limpet:" not in silent.stderr, words


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("nothere",), "no program"),
        (("python3", "-c", "open('/usr/x', 'w')"), "read-only"),
        (("python3", "-c", "import ctypes; ctypes.CDLL('libmpi.so.12')"), "MPICH missing"),
        (("python3", "-c", "import ctypes; ctypes.CDLL('libfoo.so.3')"), "library missing"),
        (("python3", "-c", "import locale; locale.setlocale(0, 'tlh_TLH')"), "locale"),
        (("python3", "-c", "import pwd; pwd.getpwuid(54321)"), "no account"),
        (("python3", "-c", "import os; os.write(os.open('/dev/full', 1), b'x')"), "disk full"),
        (
            (
                "sh",
                "-c",
                "ulimit -n 8; exec python3 -c '[open(\"/etc/passwd\") for _ in range(9)]'",
            ),
            "open files",
        ),
        (("python3", "-c", "bytearray(1 << 60)"), "out of memory"),
        (("sh", "-c", "kill -ILL $$"), "illegal instruction"),
        (("python3", "-m", "pip", "--version"), "module missing"),
    ],
)
def test_messages_as_they_are_really_printed(
    command: tuple[str, ...], name: str, limpet: Limpet, debian_base: Base
) -> None:
    from limpet.core.failures import find_answer

    done = limpet("run", debian_base.sif, *command)
    assert done.returncode != 0
    said, _, line = done.stderr.removesuffix("\n").rpartition("limpet: ")
    code = done.returncode if done.returncode > 0 else 128 - done.returncode
    found = find_answer(said, code)
    assert found is not None and found.name == name, done.stderr
    assert line == found.answer


def test_messages_of_the_runtime(debian_base: Base, tmp_path: Path) -> None:
    from limpet.core.failures import find_answer
    from limpet.tools import apptainer, process

    runtime = apptainer.find_runtime()
    done = process.run([runtime, "exec", tmp_path / "no.sif", "true"])
    found = find_answer(done.stderr, done.code)
    assert found and found.name == "no image", done.stderr
    done = process.run([runtime, "exec", debian_base.sif, "nothere"])
    found = find_answer(done.stderr, done.code)
    assert found and found.name == "no program", done.stderr
