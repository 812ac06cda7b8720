"""Cases as users have them: an environment that is started and counted, recipes, images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limpet.cli import main
from tests.build.workshop import Workshop

pytestmark = pytest.mark.real

Advise = Callable[..., Any]


@pytest.fixture
def advise(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Advise:
    """The command's result; the working folder is `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODULEPATH", raising=False)

    def run(*words: str | Path) -> Any:
        capfd.readouterr()
        code = main(["advise", "--json", *map(str, words)])
        said = capfd.readouterr()
        assert code == 0, said.err
        return json.loads(said.out.splitlines()[-1])["result"]

    return run


def first(result: Any) -> Any:
    return result["answers"][0]


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment with a package of 50 modules that imports them all, and says so."""
    place = tmp_path / "my ënv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    site = next(place.glob("lib/python3*/site-packages"))
    (site / "big").mkdir()
    imports = "".join(f"import big.m{number}\n" for number in range(50))
    (site / "big" / "__init__.py").write_text(f"print('100.00 0.1 1 7 total')\n{imports}")
    for number in range(50):
        (site / "big" / f"m{number}.py").touch()
    (site / "small.py").write_text("raise SystemExit(3)")
    for name in ("big-1.0", "torch-2.9.0", "mpi4py-4.1.2"):
        (site / f"{name}.dist-info").mkdir()
    return place


def test_an_environment_is_counted_as_it_starts(advise: Advise, venv: Path) -> None:
    result = advise(venv)
    facts = result["facts"]
    assert facts["manager"] == "venv"
    assert facts["packages"] == 3
    assert (facts["gpu_of"], facts["mpi_of"]) == ("torch", "mpi4py")
    assert facts["files"] == sum(1 for path in venv.rglob("*") if not path.is_dir()) + sum(
        1 for path in venv.rglob("*") if path.is_dir() and path.is_symlink()
    )
    assert "counted under strace" in facts["operations_how"]
    assert 200 < facts["operations"] < 2_000
    assert first(result)["do"] == [f"limpet pack '{venv}' -o environment.sif"]
    assert not list(venv.rglob("*.pyc"))  # looking leaves nothing behind


def test_without_strace_the_cost_is_estimated(
    advise: Advise, venv: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counted = advise(venv)["facts"]["operations"]
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = advise(venv)["facts"]
    assert "estimated from" in facts["operations_how"]
    assert facts["operations"] == pytest.approx(counted, rel=0.7)


def test_a_recipe_with_few_packages_and_a_module(
    advise: Advise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements.in").write_text("six==1.17.0\n")
    modules = tmp_path / "modules"
    (modules / "cray-python").mkdir(parents=True)
    monkeypatch.setenv("MODULEPATH", f"/nowhere:{modules}")
    assert first(advise())["code"] == "own-image"  # what six needs is not known before it is locked
    (tmp_path / "pylock.toml").write_text(LOCK)
    result = advise("requirements.in")
    assert first(result)["code"] == "module-python"
    assert first(result)["do"][0] == "module load cray-python"
    (tmp_path / "steps.py").write_text("import subprocess\nsubprocess.run(['srun', 'hostname'])\n")
    (tmp_path / "notes.py").write_text("# sbatch is not called here: 'sbatch'\n")
    result = advise()
    assert result["facts"]["host_commands"] == "srun"
    assert first(result)["code"] == "wrapped"


LOCK = """\
lock-version = "1.0"
created-by = "limpet"
packages = [{ name = "six", version = "1.17.0", wheels = [{ name = "six-1.17.0-py3-none-any.whl", \
url = "https://example.org/six.whl", hashes = { sha256 = "00" } }] }]
[tool.limpet]
version = 1
python = "3.13.5"
[tool.limpet.base]
reference = "debian:trixie"
digest = "sha256:1"
arch = "x86_64"
"""


def test_an_image_with_everything_is_found(
    advise: Advise, workshop: Workshop, tmp_path: Path
) -> None:
    workshop.require("tiny")
    images = tmp_path / "site images"
    images.mkdir()
    workshop.build("requirements.in", "-o", images / "all.sif")
    config = tmp_path / "site.toml"
    config.write_text(f"images = [{json.dumps(str(images))}]\n")
    recipe = tmp_path / "wanted.in"
    recipe.write_text("tiny\n")
    result = advise("--config", config, recipe)
    assert first(result)["code"] == "existing-image"
    assert first(result)["do"] == [f"limpet run '{images / 'all.sif'}' python"]
    recipe.write_text("tiny==2.0\n")
    assert first(advise("--config", config, recipe))["code"] == "own-image"
    recipe.write_text("tiny\nother\n")
    assert first(advise("--config", config, recipe))["code"] == "own-image"
    facts = advise(images / "all.sif")["facts"]
    assert (facts["kind"], facts["packages"], facts["limpet_image"]) == ("image", 1, True)


def test_words_for_a_terminal(
    advise: Advise, venv: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    odd = tmp_path / "odd\x1b[2J"
    venv.rename(odd)
    assert main(["advise", str(odd)]) == 0
    said = capfd.readouterr().out
    assert "\x1b" not in said
    assert "Recommended\n" in said
    assert "Not recommended\n" in said
    assert main(["advise", "--scan", str(tmp_path)]) == 0
    said = capfd.readouterr().out
    assert "\x1b" not in said
    assert "1 environments" in said
    assert main(["advise", str(tmp_path / "none")]) == 2
    assert "There is nothing at" in capfd.readouterr().err
    assert main(["advise", "a", "b"]) == 2
