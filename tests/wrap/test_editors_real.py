"""What editors do with an interpreter, done by the engines that they are made of."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uv

from tests.conftest import SharedOnce
from tests.ports import claim_ports
from tests.wrap.conftest import SCRIPTS, Person, build, write_wheel

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("wrap")]

INSIDE = "/opt/env/lib/python3.13/site-packages"
# As Pylance and Pyright ask (packages/pyright-internal/src/common/fullAccessHost.ts), in short.
ASK = (
    "import sys, os.path, json; "
    "print(json.dumps({'path': [os.path.abspath(p) for p in sys.path], 'prefix': sys.prefix}))"
)
JEDI = """
import sys, jedi
environment = jedi.create_environment(sys.argv[1], safe=False)
line = "import limpetsay; limpetsay.lea"
script = jedi.Script(line, environment=environment)
print([one.name for one in script.complete()])
[found] = jedi.Script(line + "ve", environment=environment).goto(follow_imports=True)
print(found.description, found.module_path)
"""


@pytest.fixture(scope="module")
def envs(say_image: Path, cache_dir: Path, work: Path, engines: Path) -> Path:
    """A folder of launchers with sources, that is only read; they see the engines' own scripts."""
    home = Path(tempfile.mkdtemp(dir=work))
    folder = work / "for editors é"
    more = ("--sources", "--env", "PYTHONPATH", "--bind", engines)
    Person(home=home, cache=cache_dir).wrap(say_image, folder, *more)
    return folder


@pytest.fixture(scope="session")
def engines(work: Path, shared_once: SharedOnce) -> Path:
    """jedi, mypy and debugpy for this Python."""

    def install() -> str:
        words = [uv.find_uv_bin(), "pip", "install", "-q", "--python", sys.executable]
        target = work / "engines"
        subprocess.run([*words, "--target", target, "jedi", "mypy", "debugpy"], check=True)
        return str(target)

    return Path(shared_once("engines", install))


def test_what_is_only_in_the_image_is_completed(envs: Path, engines: Path, person: Person) -> None:
    env = {"PYTHONPATH": str(engines)}
    done = person.run(sys.executable, "-c", JEDI, envs / "bin/python", env=env)
    assert done.stdout.splitlines() == ["['leave']", f"def leave {INSIDE}/limpetsay.py"], (
        done.stderr
    )


def test_what_reads_the_files_itself_finds_the_sources(
    envs: Path, engines: Path, person: Person
) -> None:
    told = json.loads(person.run(envs / "bin/python", "-I", "-c", ASK).stdout)
    assert INSIDE in told["path"]
    assert not [path for path in told["path"] if Path(path, "limpetsay.py").exists()]
    assert (envs / "sources/limpetsay.py").is_file()
    program = person.home / "program.py"
    program.write_text("import limpetsay\nlimpetsay.leave(1)\nlimpetsay.no_such_thing\n")
    mypy: list[str | Path] = [
        sys.executable,
        "-m",
        "mypy",
        "--python-executable",
        envs / "bin/python",
    ]
    # mypy sets PYTHONSAFEPATH for whom it asks: a `types` of its own lies beside its script.
    env = {"PYTHONPATH": str(engines), "MYPY_CACHE_DIR": str(person.home / "cache")}
    without = person.run(*mypy, program, env=env)
    assert 'Cannot find implementation or library stub for module named "limpetsay"' in (
        without.stdout
    ), without.stderr
    done = person.run(*mypy, program, env=env | {"MYPYPATH": str(envs / "sources")})
    assert 'Too many arguments for "leave"' in done.stdout, done.stderr
    assert 'Module has no attribute "no_such_thing"' in done.stdout


def test_a_plugin_that_an_editor_brings_is_found(envs: Path, person: Person) -> None:
    brought = person.home / "extension"
    brought.mkdir()
    (brought / "editors_plugin.py").write_text("WHO = 'the editor'\n")
    words = ("-c", "import editors_plugin as e, limpetsay; print(e.WHO)")
    done = person.run(envs / "bin/python", *words, env={"PYTHONPATH": str(brought)})
    assert done.stdout == "the editor\n", done.stderr


def test_sources_follow_the_version_in_force(
    person: Person, cache_dir: Path, say_image: Path, work: Path, debian_base: Any
) -> None:
    folder = person.home / "env"
    told = person.wrap(say_image, folder, "--sources")
    assert told["sources"] == str(folder / "sources")
    assert told["source_files"] == sum(path.is_file() for path in folder.glob("sources/**/*"))
    assert "def leave" in (folder / "sources/limpetsay.py").read_text()
    assert not list(folder.glob("sources/**/*.pyc"))
    other = work / "other wheel"
    other.mkdir()
    wheel = write_wheel(other, SCRIPTS, "def another():\n    pass\n")
    packages = (f"limpetsay @ {wheel.as_uri()}",)
    image = build(other, cache_dir, debian_base.reference, *packages, output="other.sif")
    done = person.limpet("update", folder, image)
    assert done.returncode == 0, done.stderr
    assert "def another" in (folder / "sources/limpetsay.py").read_text()
    assert person.limpet("update", folder, "--back").returncode == 0
    assert "def leave" in (folder / "sources/limpetsay.py").read_text()
    # Wrapped anew without them, they are gone; what somebody put there is never touched.
    person.wrap(say_image, folder)
    assert not os.path.lexists(folder / "sources")
    (folder / "sources").mkdir()
    (folder / "sources/mine").touch()
    person.wrap(say_image, folder, "--sources")
    assert [path.name for path in (folder / "sources").iterdir()] == ["mine"]


# ---- a debugger ----------------------------------------------------------------------------------


class Debugger:
    """A client of the Debug Adapter Protocol."""

    def __init__(self, port: int) -> None:
        self._stream = socket.create_connection(("127.0.0.1", port), 120).makefile("rwb")
        self._number = 0

    def ask(self, command: str, **arguments: object) -> None:
        self._number += 1
        told = {"seq": self._number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(told).encode()
        self._stream.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._stream.flush()

    def wait_for(self, kind: str, name: str) -> dict[str, Any]:
        while True:
            length = 0
            while line := self._stream.readline().strip():
                if line.startswith(b"Content-Length:"):
                    length = int(line.partition(b":")[2])
            assert length, "the debugger has gone"
            told: dict[str, Any] = json.loads(self._stream.read(length))
            if told.get(kind) == name:
                assert told.get("success", True), told
                return dict(told.get("body") or {})

    def say(self, command: str, **arguments: object) -> dict[str, Any]:
        self.ask(command, **arguments)
        return self.wait_for("command", command)


def connected(port: int, running: subprocess.Popen[str]) -> Debugger:
    while running.poll() is None:
        with contextlib.suppress(OSError):
            return Debugger(port)
        time.sleep(0.1)
    raise AssertionError("the debugger has ended")


@contextlib.contextmanager
def debugged(engines: Path, envs: Path, person: Person, program: Path) -> Iterator[Debugger]:
    """The program, started as an editor's debugger starts it, with a client."""
    ports = claim_ports()
    port = ports.numbers[0]
    words: list[str | Path] = [
        envs / "bin/python",
        engines / "debugpy",
        "--listen",
        f"127.0.0.1:{port}",
        "--wait-for-client",
        program,
    ]
    running = subprocess.Popen(
        words,
        env=person.environment(),
        cwd=person.home,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield connected(port, running)
    finally:
        running.terminate()
        running.communicate(timeout=60)
        ports.claim.close()


def test_a_debugger_stops_where_it_is_told_to(envs: Path, engines: Path, person: Person) -> None:
    program = person.home / "program.py"
    program.write_text("import limpetsay\nx = 41\ny = x + 1\n")
    with debugged(engines, envs, person, program) as client:
        client.say("initialize", adapterID="test", pathFormat="path")
        client.ask("attach", subProcess=False)
        client.wait_for("event", "initialized")
        client.say("setBreakpoints", source={"path": str(program)}, breakpoints=[{"line": 3}])
        client.ask("configurationDone")
        stopped = client.wait_for("event", "stopped")
        [frame] = client.say("stackTrace", threadId=stopped["threadId"])["stackFrames"]
        assert (frame["source"]["path"], frame["line"]) == (str(program), 3)
        said = client.say("evaluate", expression="x, limpetsay.__file__", frameId=frame["id"])
        assert said["result"] == f"(41, '{INSIDE}/limpetsay.py')"
        client.say("disconnect", terminateDebuggee=True)
