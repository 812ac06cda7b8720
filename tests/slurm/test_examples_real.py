"""The examples in `examples/slurm`, over two nodes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.slurm.conftest import Images, User

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("slurm")]

EXAMPLES = Path(__file__).parents[2] / "examples/slurm"
START = ("srun", "-N2", "--ntasks-per-node=2", "--mpi=pmi2")


@pytest.fixture
def example(user: User) -> None:
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, user.home)


@pytest.mark.usefixtures("example")
def test_a_pool_of_workers(user: User, images: Images) -> None:
    python = images.launchers / "bin/python"
    said = user.said(*START, python, "-m", "mpi4py.futures", "futures.py")
    assert "sum 328350 on ['n" in said


@pytest.mark.usefixtures("example")
def test_parallel_writing_to_one_file(user: User, images: Images) -> None:
    python = images.launchers / "bin/python"
    said = user.said(*START, python, "parallel_io.py", "parts.bin")
    assert said == "all read what their neighbours wrote: True\n"
    assert (user.home / "parts.bin").stat().st_size == 4 * 100_000 * 8
