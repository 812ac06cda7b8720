"""Every policy against everything that commonly leaks: one start for each pair, all poisons set."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.isolation.expected import (
    HOME_LOOKS,
    OWN_NUMPY,
    PASSES,
    SEEN,
    home_seen,
    numpy_seen,
    render_tables,
)
from tests.isolation.poison import fill_home, poisoned_variables
from tests.launch.conftest import Person
from tests.launch.test_launch_real import tree

PROBE = Path(__file__).with_name("probe.py").read_text()
PAGE = Path(__file__).parents[2] / "docs/explanation/isolation.md"
HARMLESS = {"SLURM_JOB_ID": "7", "MY_SETTING": "mine"}


@pytest.fixture
def poisoned(person: Person) -> Person:
    fill_home(person.home)
    return person


@pytest.fixture(params=["own", "foreign"])
def image(request: pytest.FixtureRequest) -> tuple[str, Path]:
    kind: str = request.param
    name = "own_image" if kind == "own" else "base_image"
    return kind, request.getfixturevalue(name)


def session_of(person: Person) -> dict[str, str]:
    # limpet itself is started with PYTHONHOME and PYTHONPATH as everybody's Python would be:
    # its own launcher is -I in an installation; here they are set just before the start.
    return poisoned_variables(person.home) | HARMLESS


def probe(person: Person, *words: str | Path, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Start the probe; the variables are set by a shell, after limpet's own Python has started."""
    done = start(person, "run", *words, "python3", "-c", PROBE, env=env)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def start(
    person: Person, *words: str | Path, env: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    session = session_of(person) if env is None else env
    program = "import os, sys; from limpet.cli.main import main; "
    program += f"os.environ.update({session!r}); sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *map(str, words)],
        env=person.environment(),
        cwd=person.home,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.mark.real
@pytest.mark.parametrize("home", SEEN)
@pytest.mark.parametrize("variables", PASSES)
def test_what_is_seen(poisoned: Person, image: tuple[str, Path], variables: str, home: str) -> None:
    kind, path = image
    before = tree(poisoned.home)
    seen = probe(poisoned, "--variables", variables, "--home", home, path)
    assert {look: seen[look] for look in HOME_LOOKS} == home_seen(kind, home)
    assert seen["numpy"] == numpy_seen(kind, home)
    assert seen["python"] == ("/opt/env" if kind == "own" else "/usr")
    inside = seen["environment"]
    assert set(HARMLESS) & set(inside) == PASSES[variables]
    assert not seen["PYTHONPATH"] and not seen["PYTHONSTARTUP"] and not seen["BASH_ENV"]
    assert not [
        name
        for name in inside
        if name.startswith(("CONDA_P", "CONDA_D", "CONDA_S"))
        and not inside[name].startswith("/.limpet/")
    ]
    assert inside.get("VIRTUAL_ENV", "") == ("/opt/env" if kind == "own" else "")
    assert "/no/such" not in "".join(inside.values())
    assert "LD_PRELOAD" not in inside
    assert (tree(poisoned.home) == before) is (home != "host")


def test_the_documentation_has_the_tables() -> None:
    assert render_tables() in PAGE.read_text(encoding="utf-8"), render_tables()


@pytest.mark.real
@pytest.mark.parametrize(
    "names",
    [
        ("PYTHONHOME",),
        ("PYTHONPATH", "PYTHONHOME"),
        ("PYTHONPATH",),
        ("PYTHONUSERBASE",),
        ("PYTHONSTARTUP", "PYTHONINSPECT"),
    ],
)
def test_apptainer_alone_keeps_pythons_variables_out_of_our_images(
    poisoned: Person, own_image: Path, names: tuple[str, ...]
) -> None:
    poison = poisoned_variables(poisoned.home)
    env = poisoned.environment() | {name: poison[name] for name in names}
    if "PYTHONPATH" not in names:
        del env["PYTHONPATH"]
    argv = ["apptainer", "--quiet", "exec", str(own_image), "python3", "-c", PROBE]
    done = subprocess.run(argv, env=env, cwd=poisoned.home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["numpy"], seen["python"]) == (OWN_NUMPY, "/opt/env")
    assert not seen["PYTHONPATH"] and not seen["PYTHONSTARTUP"] and not seen["user site"]


@pytest.mark.real
def test_what_is_asked_for_by_name_arrives(poisoned: Person, base_image: Path) -> None:
    seen = probe(poisoned, "--env", "PYTHONPATH", "--env", "CONDA_PREFIX", base_image)
    assert seen["PYTHONPATH"]
    assert seen["environment"]["CONDA_PREFIX"] == f"{poisoned.home}/miniconda3"


@pytest.mark.real
def test_condas_hook_does_not_run_in_a_shell(poisoned: Person, own_image: Path) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(poisoned.home)
        argv = [sys.executable, "-P", "-m", "limpet", "shell", str(own_image)]
        os.execve(argv[0], argv, poisoned.environment() | {"TERM": "dumb"})
    script = (
        b'command -v python3; echo "level:${CONDA_SHLVL-none}"; bash -i -c "type python3"; exit\n'
    )
    os.write(terminal, script)
    said = b""
    try:
        while piece := os.read(terminal, 4096):
            said += piece
    except OSError:  # a terminal that nobody holds any more reads as EIO
        pass
    os.waitpid(process, 0)
    text = said.decode()
    assert "\n/opt/env/bin/python3\r" in text and "level:none" in text, text
    assert "python3 is /opt/env/bin/python3" in text and "miniconda" not in text, text


@pytest.mark.real
def test_an_images_own_start_file_is_kept(poisoned: Person, base_image: Path) -> None:
    start(poisoned, "run", base_image, "sh", "-c", 'echo "alias ll=true" >> ~/.bashrc')
    again = start(poisoned, "run", base_image, "bash", "-i", "-c", "ll && echo kept")
    assert again.stdout == "kept\n"
    assert "alias" not in (poisoned.home / ".bashrc").read_text()
