"""The examples in `examples/slurm`, over two nodes."""

from __future__ import annotations

import shutil

import pytest

from tests.slurm.conftest import EXAMPLES, Images, User

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("slurm")]

START = ("srun", "-N2", "--ntasks-per-node=2", "--mpi=pmi2")


@pytest.fixture
def example(user: User) -> None:
    for path in EXAMPLES.iterdir():
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


@pytest.mark.usefixtures("example")
def test_a_file_a_rank_and_a_view_of_all(user: User, images: Images) -> None:
    python = images.launchers / "bin/python"
    said = user.said(*START, python, "h5py_parts.py", "parts")
    assert said == "all read what their neighbours wrote: True\n"


@pytest.mark.usefixtures("example")
def test_dask_and_joblib_over_two_nodes(user: User, images: Images) -> None:
    out = user.home / "out.txt"
    shape = ("-N2", "--ntasks-per-node=1", "-w", "n1,n2")
    job = user.said("sbatch", "--parsable", "-o", out, *shape, "dask.sh", images.launchers).strip()
    assert user.cluster.wait_for_job(job) == "COMPLETED", out.read_text()
    said = out.read_text()
    assert "dask ran on ['n1', 'n2']" in said, said
    assert "joblib's sum 328350" in said
    user.cluster.wait_until_clean()
