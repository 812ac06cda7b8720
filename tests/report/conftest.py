"""One browser for a worker, and two images with a few real packages for a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Base, SharedOnce
from tests.report.browser import Browser, open_browser

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Debian's Chromium."""
    with open_browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="session")
def pair(
    shared_once: SharedOnce, run_folder: Path, debian_base: Base, cache_dir: Path
) -> tuple[Path, Path]:
    """Two images: `requests` and what it needs; an older one with `tabulate` besides."""

    def make() -> list[str]:
        folder = run_folder / "report ä"
        folder.mkdir()
        for name, lines in (
            ("new", "requests\n"),
            ("old", "requests==2.31.0\ntabulate==0.9.0\n"),
        ):
            (folder / f"{name}.txt").write_text(lines)
            argv = [sys.executable, "-P", "-m", "limpet", "-q", "build", f"{name}.txt"]
            done = subprocess.run(
                [*argv, "--base", debian_base.reference, "-o", f"{name}.sif"],
                env={**os.environ, "PYTHONPATH": str(SOURCE), "LIMPET_CACHE_DIR": str(cache_dir)},
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        return [str(folder / "old.sif"), str(folder / "new.sif")]

    old, new = shared_once("report-pair", make)
    return Path(old), Path(new)
