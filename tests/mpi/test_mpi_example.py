"""The example that compiles MPICH in its base, from Debian's source package.

That takes some 200 s of processor time, once: the tests' cache keeps the base that it makes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mpi.conftest import Worker
from tests.mpi.test_mpi_real import check_ranks

EXAMPLE = Path(__file__).parents[2] / "examples/mpich-from-source"

pytestmark = pytest.mark.real


def test_mpich_of_debians_source_serves_mpi4py(worker: Worker) -> None:
    shutil.copytree(EXAMPLE, worker.folder / "example")
    build = worker.limpet("-q", "build", "example/limpet.toml", "-o", "own.sif")
    worker.said(*build, timeout_s=1800)
    told = worker.said(*worker.limpet("mpi", "own.sif"))
    assert "(libmpi.so.12), speaks PMI-1, PMI-2: /usr/local/lib/libmpi.so.12" in told
    run = worker.limpet("run", "own.sif", "mpiexec", "-n", "2", "python")
    check_ranks(worker.said(*run, "x.py"), 2, "MPICH", "/usr/local/lib/libmpi.so.12")
    assert "pi is about 3.141593, said 2 ranks" in worker.said(*run, "example/pi.py")
