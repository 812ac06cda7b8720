"""Man pages: those that are kept are those that the commands give, and roff has no complaint."""

from __future__ import annotations

import importlib.util
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "man"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/render_reference.py, as a module."""
    spec = importlib.util.spec_from_file_location(
        "render_reference", ROOT / "scripts" / "render_reference.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_kept_pages_are_in_step(script: ModuleType) -> None:
    made = script.man_pages()
    assert {path.name for path in KEPT.iterdir()} == set(made), "scripts/render_reference.py"
    for name, text in made.items():
        assert (KEPT / name).read_text() == text, f"{name}: scripts/render_reference.py writes it"


def test_a_wheel_brings_them() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shared = table["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared == {"man": "share/man/man1"}


def test_text_is_text_to_roff(script: ModuleType) -> None:
    assert script.roff(".so x\n a") == "\\&.so x\n\\& a"
    assert script.roff("'x\\n-") == "\\(aqx\\en\\-"


@pytest.mark.real
def test_roff_has_no_complaint() -> None:
    pages = sorted(KEPT.glob("*.1"))
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-P-cbou", "-ww", *pages],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("LIMPET-BUILD(1)", "SYNOPSIS", "limpet-report(1)"):
        assert words in done.stdout
