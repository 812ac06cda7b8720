"""`limpet build environment.yml`, as its users type it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from limpet.tools.apptainer import Runtime
from tests.conda.channel import Served
from tests.conftest import Limpet

pytestmark = pytest.mark.real


def write_environment(folder: Path, channel: str) -> Path:
    path = folder / "environment.yml"
    path.write_text(
        f"name: demo\n"
        f"channels:\n  - {channel}\n"
        f"dependencies:\n  - python=3.13\n  - greeter\n  - activated\n  - postlinked\n"
        f"variables:\n  OWN_VARIABLE: from the file\n"
    )
    return path


def run(runtime: Runtime, image: Path, *words: str) -> str:
    done = subprocess.run(
        [runtime.path, "--silent", "exec", "--no-home", "--cleanenv", image, *words],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.parametrize("transport", ["file", "http"])
def test_one_command_is_all(
    limpet: Limpet,
    runtime: Runtime,
    channel: Served,
    channel_folder: Path,
    tmp_path: Path,
    transport: str,
) -> None:
    where = channel_folder.as_uri() if transport == "file" else channel.url
    recipe = write_environment(tmp_path, where)
    image = tmp_path / "x.sif"
    done = limpet("build", recipe, "--base", "debian:trixie", "-o", image)
    assert done.returncode == 0, done.stderr
    assert run(runtime, image, "greet") == "greetings from 2.0\n"
    assert run(runtime, image, "sh", "-c", "echo $OWN_VARIABLE") == "from the file\n"
    assert "ACTIVATED_HOST" in done.stderr
    ran = limpet("run", image, "python", "-c", "import greeter; print(greeter.__version__)")
    assert ran.stdout == "2.0\n", ran.stderr
    seen = json.loads(limpet("inspect", "--json", image).stdout)
    kinds = {one["name"]: one["source"] for one in seen["packages"]}
    assert kinds["greeter"] == kinds["python"] == "conda"
    again = limpet("build", recipe, "--base", "debian:trixie", "--frozen", "-o", image, "--force")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("bad", ["postfails", "newlibc"])
def test_a_failure_leaves_nothing(
    limpet: Limpet, channel: Served, tmp_path: Path, bad: str
) -> None:
    (tmp_path / "environment.yml").write_text(
        # Of several reasons why a set does not fit, the solver tells any: here there is one.
        f"channels: [{channel.url}]\ndependencies: [{'python, ' * (bad == 'postfails')}{bad}]\n"
    )
    done = limpet(
        "build", tmp_path / "environment.yml", "--base", "debian:trixie", "-o", tmp_path / "x.sif"
    )
    assert done.returncode in (4, 7)
    assert bad in done.stderr
    assert not list(tmp_path.glob("*.sif*")) + list(tmp_path.glob(".*limpet-partial*"))


def test_cuda_of_a_preset_reaches_the_solver(
    limpet: Limpet, runtime: Runtime, channel: Served, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[systems.big]\nbase = "debian:trixie"\ncuda = "12.4"\n')
    words = ("--conda", "accelerated", "--channel", channel.url, "-o", tmp_path / "x.sif")
    without = limpet("build", "--base", "debian:trixie", *words)
    assert without.returncode == 4 and "__cuda" in without.stderr
    done = limpet("--config", config, "build", "--system", "big", *words)
    assert done.returncode == 0, done.stderr
    assert run(runtime, tmp_path / "x.sif", "cat", "/opt/env/share/accelerated") == "fast\n"
