"""One image with packages that write at import, shared by all tests of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Base, SharedOnce
from tests.places.wheels import MODULES, make_wheels

SOURCE = Path(__file__).parents[2] / "src"


def build(
    folder: Path, cache: Path, *names: str, more: str = "", output: str = "image.sif"
) -> Path:
    """An image of hand-made packages; `more` is put at the end of its limpet.toml."""
    make_wheels(folder / "wheels", *names)
    pip = ", ".join(f'"{name}"' for name in names)
    links = str(folder / "wheels")
    (folder / "limpet.toml").write_text(
        f'[image]\nbase = "debian:trixie"\n'
        f'[packages]\npip = [{pip}]\nfind_links = ["{links}"]\n{more}'
    )
    argv = [sys.executable, "-P", "-m", "limpet", "-q", "build", "limpet.toml"]
    done = subprocess.run(
        [*argv, "--force", "-o", output],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "LIMPET_CACHE_DIR": str(cache)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / output


@pytest.fixture(scope="session")
def image(
    shared_once: SharedOnce, run_folder: Path, debian_base: Base, cache_dir: Path
) -> Iterator[Path]:
    """All packages of `wheels.py`, with nothing done for them."""

    def make() -> str:
        folder = run_folder / "places ä"
        folder.mkdir()
        return str(build(folder, cache_dir, *MODULES))

    yield Path(shared_once("places-image", make))
