"""An environment without Python: C programs, R, tools. Nobody gets one who did not ask for it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from limpet.actions.assemble import open_root
from tests.conda.channel import Served
from tests.conftest import Limpet

pytestmark = pytest.mark.real
PREFIXED = re.compile("/opt/env \\d+ the data\n")
BASE = ("--base", "debian:trixie")


@pytest.fixture
def recipe(tmp_path: Path, channel: Served) -> Path:
    path = tmp_path / "environment.yml"
    path.write_text(
        f"channels: [{channel.url}]\ndependencies: [prefixed, activated, postlinked, tarred]\n"
    )
    return path


@pytest.fixture
def image(tmp_path: Path, recipe: Path, limpet: Limpet) -> Path:
    output = tmp_path / "tools.sif"
    done = limpet("build", recipe, *BASE, "-o", output)
    assert done.returncode == 0, done.stderr
    return output


def test_it_is_an_environment_like_any_other(limpet: Limpet, image: Path) -> None:
    ran = limpet("run", image, "prefixed")
    assert ran.returncode == 0 and PREFIXED.fullmatch(ran.stdout), ran.stderr
    ran = limpet("run", image, "sh", "-c", "echo $ACTIVATED_HOME $CONDA_PREFIX")
    assert ran.stdout == "/opt/env/share/activated /opt/env\n"
    with image.open("rb") as file:
        root = open_root(file)
        assert root.find("opt/env/share/postlinked/made")
        assert root.find("opt/env/.limpet/start")
        assert not root.find("opt/env/bin/python") and not root.find("opt/env/pyvenv.cfg")
        assert not root.find("opt/env/lib/python")


def test_what_looks_at_images_knows_of_none(limpet: Limpet, image: Path, tmp_path: Path) -> None:
    told = limpet("inspect", image)
    assert told.returncode == 0 and "none in /opt/env" in told.stdout, told.stderr
    lock = limpet("inspect", image, "--lock").stdout
    assert "requires-python" not in lock and 'name = "prefixed"' in lock
    checked = limpet("check", image)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    seen = json.loads(limpet("inspect", "--json", image).stdout)
    assert {one["name"] for one in seen["packages"] if one["source"] == "conda"} == {
        *("prefixed", "activated", "postlinked", "tarred")
    }
    report = limpet("report", image, "-o", tmp_path / "report.html")
    assert report.returncode == 0, report.stderr


def test_it_is_locked_built_again_and_changed(
    limpet: Limpet, image: Path, recipe: Path, tmp_path: Path
) -> None:
    first = image.read_bytes()
    again = limpet("build", recipe, *BASE, "--frozen", "-o", image, "--force")
    assert again.returncode == 0, again.stderr
    assert image.read_bytes() == first
    frozen = limpet("lock", "--freeze", image, "-o", tmp_path / "frozen.toml")
    assert frozen.returncode == 0, frozen.stderr
    rebuilt = tmp_path / "again.sif"
    done = limpet("build", "--lock", tmp_path / "frozen.toml", "--frozen", "-o", rebuilt)
    assert done.returncode == 0, done.stderr
    assert PREFIXED.fullmatch(limpet("run", rebuilt, "prefixed").stdout)
    for form in ("conda-explicit", "environment", "conda-lock", "pixi", "dockerfile", "def"):
        told = limpet("export", recipe, "--to", form)
        assert told.returncode == 0 and "python=" not in told.stdout, (form, told.stderr)
    more = limpet("update", image, "--add", "numeric")
    assert more.returncode == 0, more.stderr
    ran = limpet("run", image, "python", "-c", "import numeric; print(numeric.__version__)")
    assert ran.stdout == "2.1.0\n", ran.stderr


def test_what_needs_python_brings_it(limpet: Limpet, recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text()
    for more in ("[warm]\nimports = ['json']\n", "[image]\npython = '3.13'\n"):
        toml = tmp_path / "limpet.toml"
        toml.write_text(f"[packages]\nfiles = ['environment.yml']\n{more}")
        done = limpet("lock", toml, *BASE, "-o", tmp_path / "with.toml")
        assert done.returncode == 0, done.stderr
        assert 'name = "python"' in (tmp_path / "with.toml").read_text()
        (tmp_path / "with.toml").unlink()
    assert recipe.read_text() == text


def test_launchers_and_pip(limpet: Limpet, image: Path, tmp_path: Path) -> None:
    done = limpet("wrap", image, tmp_path / "tools")
    assert done.returncode == 0, done.stderr
    ran = subprocess.run(
        [tmp_path / "tools/bin/prefixed"], capture_output=True, text=True, check=False
    )
    assert PREFIXED.fullmatch(ran.stdout), ran.stderr
    pip = limpet("pip", image, "install", "six")
    assert pip.returncode != 0 and "Traceback" not in pip.stderr
    assert "Python" in pip.stderr, pip.stderr
