"""MPI under a real Slurm of four nodes: what srun offers, what the image speaks, what is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, missing_programs, start_cluster
from tests.mpi.conftest import Worker
from tests.mpi.test_mpi_real import HOSTS, OWN, check_ranks

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(missing_programs()), reason="needs slurm-wlm and munge"),
]


@pytest.fixture(scope="module")
def cluster(libpmix: Path | None) -> Iterator[Cluster]:
    with start_cluster(libpmix) as made:
        yield made


def test_srun_with_pmi2_serves_the_images_mpich_and_the_hosts(
    cluster: Cluster, worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path]
) -> None:
    srun = ("srun", "-N2", "-n4", "--mpi=pmi2")
    run = worker.limpet("run", mpi_images["mpich"], "python", "x.py")
    check_ranks(worker.said(*srun, *run, env=cluster.env), 4, "4.3.2", OWN)
    run = worker.limpet("run", "--mpi", "host", mpi_images["mpich"], "python", "x.py")
    env = cluster.env | {"LD_LIBRARY_PATH": str(hosts["mpich-4.3.1"] / "lib")}
    said = worker.said(*srun, *run, env=env)
    check_ranks(said, 4, "4.3.1", f"{HOSTS}/libmpi.so.12")


def test_srun_with_pmix_serves_the_images_open_mpi(
    cluster: Cluster, libpmix: Path | None, worker: Worker, mpi_images: dict[str, Path]
) -> None:
    """Several ranks on each of two nodes, by `limpet run` and by launchers."""
    if not libpmix:
        pytest.skip("needs the PMIx library of Debian 12, which its Slurm was built for")
    assert "pmix_v4" in worker.said("srun", "--mpi=list", env=cluster.env)
    srun = ("srun", "-N2", "-n4", "--mpi=pmix")
    library = "/opt/env/lib/libmpi.so.40"
    run = worker.limpet("run", mpi_images["openmpi"], "python", "x.py")
    said = worker.said(*srun, *run, env=cluster.env)
    check_ranks(said, 4, "Open MPI v5.0.11", library)
    worker.said(*worker.limpet("-q", "wrap", mpi_images["openmpi"], "env"))
    said = worker.said(*srun, worker.folder / "env/bin/python", "x.py", env=cluster.env)
    check_ranks(said, 4, "Open MPI v5.0.11", library)
    cluster.wait_until_clean()


def test_srun_with_pmi2_serves_the_images_intel_mpi(cluster: Cluster, worker: Worker) -> None:
    """On each node as many: three and one this Intel MPI cannot do without a container either."""
    pip = ("--pip", "mpi4py", "--pip", "impi-rt==2021.11.0")
    worker.said(*worker.limpet("-q", "build", "--base", "debian:trixie", *pip, "-o", "intel.sif"))
    run = worker.limpet("run", "intel.sif", "python", "x.py")
    srun = ("srun", "-N2", "--ntasks-per-node=2", "--mpi=pmi2")
    said = worker.said(*srun, *run, env=cluster.env)
    check_ranks(said, 4, "Intel(R) MPI Library 2021.11", "/opt/env/lib/libmpi.so")


def test_condas_mpi_serves_ranks_and_gives_way_to_the_hosts(
    cluster: Cluster,
    worker: Worker,
    hosts: dict[str, Path],
    conda_channel: Path,
    mpi_channel: Path,
) -> None:
    """conda's mpi4py is linked to the environment's library by an RPATH."""
    (worker.folder / "limpet.toml").write_text(
        '[image]\nbase = "debian:trixie"\n\n[packages]\n'
        f'channels = ["{mpi_channel}", "{conda_channel}"]\nconda = ["mpi4py", "mpich"]\n'
    )
    worker.said(*worker.limpet("-q", "build", "limpet.toml", "-o", "conda.sif"))
    told = worker.said(*worker.limpet("mpi", "conda.sif"), env=cluster.env)
    assert "MPICH 4.3.2 (libmpi.so.12), speaks PMI-1, PMI-2: /opt/env/lib/libmpi.so.12" in told
    srun = ("srun", "-N2", "-n4", "--mpi=pmi2")
    run = worker.limpet("run", "conda.sif", "python", "x.py")
    check_ranks(worker.said(*srun, *run, env=cluster.env), 4, "4.3.2", OWN)
    said = worker.said(*worker.limpet("run", "conda.sif", "mpiexec", "-n", "2", "python", "x.py"))
    check_ranks(said, 2, "4.3.2", OWN)
    run = worker.limpet("run", "--mpi", "host", "conda.sif", "python", "x.py")
    env = cluster.env | {"LD_LIBRARY_PATH": str(hosts["mpich-4.3.1"] / "lib")}
    said = worker.said(*srun, *run, env=env)
    assert said.count("4.3.1") == 4, said
    assert said.count(" of 4 sum 10 ") == 4, said


def test_four_tasks_without_pmi_are_never_rank_0_of_1(
    cluster: Cluster, worker: Worker, mpi_images: dict[str, Path]
) -> None:
    run = worker.limpet("run", mpi_images["mpich"], "python", "x.py")
    done = worker.run("srun", "-N2", "-n4", "--mpi=none", *run, env=cluster.env)
    assert done.returncode == 125
    assert done.stdout == ""
    assert "The 4 tasks of this srun start would not find each other." in done.stderr
    assert done.stderr.count("srun offers nothing. Each would be rank 0 of 1.") == 1
    assert "Start with srun --mpi=pmi2" in done.stderr
    plain = worker.limpet("run", "--mpi", "none", mpi_images["mpich"], "python", "-c", "print(1)")
    env = cluster.env | {"APPTAINER_SHARENS": "false"}
    said = worker.said("srun", "-n2", *plain, env=env)
    assert said.split() == ["1", "1"]


def test_open_mpi_without_pmix_is_refused_and_the_list_is_named(
    cluster: Cluster, worker: Worker, mpi_images: dict[str, Path]
) -> None:
    run = worker.limpet("run", mpi_images["openmpi"], "python", "x.py")
    done = worker.run("srun", "-n2", "--mpi=pmi2", *run, env=cluster.env)
    assert done.returncode == 125
    assert "Open MPI 5.0.11 (/opt/env/lib/libmpi.so.40) speaks PMIx" in done.stderr
    assert "srun offers PMI-1, PMI-2" in done.stderr
    told = worker.said(*worker.limpet("mpi", mpi_images["mpich"]), env=cluster.env)
    assert "pmi2" in told.partition("slurm    srun --mpi=")[2].splitlines()[0]
    assert "choice   the image's, with srun --mpi=pmi2" in told


def test_a_batch_scripts_own_environment_is_no_parallel_start(
    cluster: Cluster, worker: Worker, mpi_images: dict[str, Path]
) -> None:
    """SLURM_NTASKS is 4 there, and yet there is one program. Nor is what the job leaves behind."""
    run = " ".join(f"'{word}'" for word in worker.limpet("run", mpi_images["mpich"]))
    script = worker.folder / "job.sh"
    script.write_text(
        "#!/bin/sh\n#SBATCH -N2 -n4\n"
        f"{run} python x.py\n"
        f"srun -n1 env > step.env\n"
        f"srun --mpi=pmi2 {run} python x.py\n"
    )
    out = worker.folder / "out"
    worker.said("sbatch", "--wait", "-o", out, script, env=cluster.env)
    first, *ranks = [line for line in out.read_text().splitlines() if line.startswith("rank")]
    assert first.startswith("rank 0 of 1 sum 1")
    check_ranks("\n".join(ranks), 4, "4.3.2", OWN)

    step = (worker.folder / "step.env").read_text().splitlines()
    stale = dict(line.partition("=")[::2] for line in step if line.startswith(("SLURM_", "PMI_")))
    stale |= {"SLURM_STEP_NUM_TASKS": "4"}
    said = worker.said(*worker.limpet("run", mpi_images["mpich"], "python", "x.py"), env=stale)
    assert said.startswith("rank 0 of 1 sum 1")
