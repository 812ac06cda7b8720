"""The example that compiles MPICH in its base, from Debian's source package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mpi.conftest import Worker
from tests.mpi.test_mpi_real import check_ranks

EXAMPLE = Path(__file__).parents[2] / "examples/mpich-from-source"

pytestmark = pytest.mark.real

# Nearly all of MPICH's files begin with one large header. Compiled once, it takes two thirds off
# the processor time of `make`.
HEADER = """
flags=$(make -n V=1 src/binding/c/pt2pt/lib_libmpi_la-send.lo |
    sed -n 's/.*--mode=compile gcc//; s/ -c -o .*//p')
header=src/include/mpiimpl.h
eval "gcc $flags -x c-header -fPIC -DPIC -o $header.gch $header"
"""


def test_mpich_of_debians_source_serves_mpi4py(worker: Worker) -> None:
    shutil.copytree(EXAMPLE, worker.folder / "example")
    recipe = worker.folder / "example/limpet.toml"
    configured, make, rest = recipe.read_text().partition("make -j")
    assert make
    recipe.write_text(configured + HEADER + make + rest)
    build = worker.limpet("-q", "build", "example/limpet.toml", "-o", "own.sif")
    worker.said(*build, timeout_s=1800)
    told = worker.said(*worker.limpet("mpi", "own.sif"))
    assert "(libmpi.so.12), speaks PMI-1, PMI-2: /usr/local/lib/libmpi.so.12" in told
    run = worker.limpet("run", "own.sif", "mpiexec", "-n", "2", "python")
    check_ranks(worker.said(*run, "x.py"), 2, "MPICH", "/usr/local/lib/libmpi.so.12")
    assert "pi is about 3.141593, said 2 ranks" in worker.said(*run, "example/pi.py")
