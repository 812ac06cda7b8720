"""The launch tests' small images and throw-away homes, and images with a Python in them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import Base
from tests.isolation.expected import OWN_NUMPY
from tests.launch.conftest import (
    SOURCE,
    foreign_sif,
    layer_squashfs,
    limpet_sif,
    person,
    root_squashfs,
    work,
)

__all__ = ["foreign_sif", "layer_squashfs", "limpet_sif", "person", "root_squashfs", "work"]


@pytest.fixture(scope="session")
def own_image(work: Path, debian_base: Base, cache_dir: Path) -> Path:
    """An image of limpet's own with a numpy of no other version than its own."""
    folder = work / "own"
    folder.mkdir()
    wheel = folder / f"numpy-{OWN_NUMPY}-py3-none-any.whl"
    info = f"numpy-{OWN_NUMPY}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("numpy/__init__.py", f"__version__ = {OWN_NUMPY!r}\n")
        metadata = f"Metadata-Version: 2.1\nName: numpy\nVersion: {OWN_NUMPY}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    (folder / "requirements.in").write_text(f"./{wheel.name}\n")
    words = ("build", "requirements.in", "--base", debian_base.reference, "-o", "own.sif")
    subprocess.run(
        [sys.executable, "-P", "-m", "limpet", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "LIMPET_CACHE_DIR": str(cache_dir)},
        check=True,
        capture_output=True,
    )
    return folder / "own.sif"


@pytest.fixture(scope="session")
def base_image(debian_base: Base) -> Path:
    """A foreign image whose Python is the system's own."""
    return debian_base.sif
