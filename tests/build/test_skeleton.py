"""limpet's own members: a venv as Python expects it, and an environment script sh can source."""

import subprocess
from pathlib import Path

import pytest

from limpet.core.facts import PREFIX, Interpreter
from limpet.core.skeleton import ENV_SCRIPT, PROOF, Member, plan_skeleton, render_env_script

PYTHON = Interpreter(
    path="/usr/local/bin/python3.12", version="3.12.4", prefix="/usr/local", magic=""
)


def members(*, on_top: bool = False) -> dict[str, Member]:
    planned = plan_skeleton(PYTHON, base_variables={}, env={}, labels={}, on_top=on_top)
    return {member.path: member for member in planned}


def test_the_venv_points_at_the_bases_python() -> None:
    frame = members()
    assert frame["/opt/env/bin/python"].target == "/usr/local/bin/python3.12"
    assert frame["/opt/env/bin/python3.12"].target == "python"
    config = frame["/opt/env/pyvenv.cfg"].content.decode()
    assert "home = /usr/local/bin\n" in config
    assert "include-system-site-packages = false\n" in config


def test_on_top_lets_the_bases_packages_be_seen() -> None:
    config = members(on_top=True)["/opt/env/pyvenv.cfg"].content.decode()
    assert "include-system-site-packages = true\n" in config


def test_the_start_file_is_executable_and_in_the_environment() -> None:
    assert members()[f"{PREFIX}{PROOF}"].executable


@pytest.mark.parametrize(
    "value", ["plain", "with space", "quote ' \" $HOME `id` \\n", "two\nlines", ""]
)
def test_values_of_the_recipe_arrive_as_they_were_written(tmp_path: Path, value: str) -> None:
    script = tmp_path / "env.sh"
    script.write_text(render_env_script({}, {"VALUE": value}))
    done = subprocess.run(
        ["/bin/sh", "-c", f'. "{script}"; printf %s "$VALUE"'], capture_output=True, check=True
    )
    assert done.stdout.decode() == value


def test_the_hosts_python_variables_are_gone_and_the_bases_own_come_back(tmp_path: Path) -> None:
    script = tmp_path / "env.sh"
    script.write_text(render_env_script({"PYTHONPATH": "/vendor/lib"}, {}))
    done = subprocess.run(
        ["/bin/sh", "-c", f'. "{script}"; echo "$PYTHONPATH|${{PYTHONHOME-unset}}|$PATH"'],
        env={"PYTHONPATH": "/host", "PYTHONHOME": "/host", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.strip() == "/vendor/lib||/opt/env/bin:/usr/bin:/bin"


def test_a_name_that_is_no_variable_is_left_out() -> None:
    assert "rm -rf" not in render_env_script({}, {"X; rm -rf /": "1"})


def test_the_environment_script_comes_after_the_bases_own() -> None:
    assert ENV_SCRIPT.rsplit("/", 1)[1] > "10-docker2singularity.sh"
