"""Several ranks on several nodes: one size, right sums, one container a node, and nothing left."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.slurm.conftest import LIMPET, Images, User

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("slurm")]

MPI = ("--mpi=pmi2",)
ALL = {f"rank {rank} of 4 sum 10" for rank in range(4)}


def lines(text: str) -> set[str]:
    return set(text.splitlines())


@pytest.mark.parametrize("way", ["run", "launcher"])
def test_ranks_on_two_nodes_find_each_other(way: str, user: User, images: Images) -> None:
    start: tuple[str | Path, ...] = (*LIMPET, "run", images.mpi, "python")
    if way == "launcher":
        start = (images.launchers / "bin/python",)
    said = user.said("srun", "-N2", "-n4", *MPI, *start, "sum.py")
    assert lines(said) == ALL
    user.cluster.wait_until_clean()


def test_in_a_batch_job(user: User, images: Images) -> None:
    text = f"limpet run '{images.mpi}' python sum.py; echo code $?\n"
    text += f"srun {MPI[0]} '{images.launchers}/bin/python' sum.py\n"
    state, said = user.job(text, "-N2", "--ntasks-per-node=2")
    assert state == "COMPLETED", said
    assert lines(said) == {"rank 0 of 1 sum 1", "code 0", *ALL}


@pytest.mark.parametrize("way", ["run", "launcher"])
def test_ranks_that_would_not_find_each_other(way: str, user: User, images: Images) -> None:
    start: tuple[str | Path, ...] = (*LIMPET, "run", images.mpi, "python")
    if way == "launcher":
        start = (images.launchers / "bin/python",)
    done = user.run("srun", "-N2", "-n4", *start, "sum.py")
    assert done.returncode == 125
    assert done.stdout == ""
    assert done.stderr.count("The 4 tasks of this srun start would not find each other.") == 4
    assert done.stderr.count("speaks PMI-1, PMI-2; srun offers nothing.") == 1
    assert done.stderr.count("Start with srun --mpi=pmi2") == 1


def test_the_images_own_mpiexec(user: User, images: Images) -> None:
    launchers = images.launchers / "bin"
    said = user.said(launchers / "mpiexec", "-n", "4", launchers / "python", "sum.py")
    assert lines(said) == ALL


def test_short_programs_of_many_ranks_all_start(user: User, images: Images) -> None:
    """The runtime alone fails here: the rank that the others join has ended before they come."""
    python = images.apart / "bin/python"
    for _ in range(3):
        user.said("srun", "-N1", "-n12", python, "-c", "")


def test_exit_codes_come_back(user: User, images: Images) -> None:
    script = "import os, sys; sys.exit(int(os.environ['SLURM_PROCID']) * 11)"
    python = images.apart / "bin/python"
    done = user.run("srun", "-N1", "-n3", python, "-c", script)
    assert done.returncode == 22
    assert "task 1: Exited with exit code 11" in done.stderr
    assert "task 2: Exited with exit code 22" in done.stderr


def test_ranks_of_different_images_do_not_share_silently(user: User, images: Images) -> None:
    config = user.home / "programs"
    run = " ".join(LIMPET)
    config.write_text(
        f"0 {run} run --mpi none '{images.mpi}' true\n1 {run} run '{images.other}' true\n"
    )
    done = user.run("srun", "-N1", "-n2", "--multi-prog", config)
    assert done.returncode == 125
    assert "not started alike" in done.stderr
    apart = {"APPTAINER_SHARENS": "0"}
    assert user.run("srun", "-N1", "-n2", "--multi-prog", config, env=apart).returncode == 0


# ---- one mount a node ----------------------------------------------------------------------------


def test_ranks_of_a_node_share_one_mount(user: User, images: Images, cluster: Cluster) -> None:
    script = "import time; print(1, flush=True); time.sleep(60)"
    python = images.apart / "bin/python"
    running = user.start("srun", "-w", "n1,n2", "--ntasks-per-node=4", python, "-c", script)
    assert running.stdout
    for _ in range(8):
        assert running.stdout.readline() == "1\n"
    for node in ("n1", "n2"):
        words = list(cluster.processes(node).values())
        assert sum("squashfuse" in line.split()[0] for line in words) == 1, words
        assert sum(line.startswith("/opt/env/bin/python") for line in words) == 4, words
    running.send_signal(signal.SIGINT)
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    assert running.wait(20) != 0
    cluster.wait_until_clean()


# ---- signals, limits, kills ----------------------------------------------------------------------

WAITS = """\
import signal, sys, time
def told(number, frame):
    print("told", signal.Signals(number).name, flush=True)
    sys.exit(7)
for name in ("SIGTERM", "SIGUSR1"):
    signal.signal(getattr(signal, name), told)
print("ready", flush=True)
time.sleep(90)
"""


def started(user: User, images: Images, *options: str) -> subprocess.Popen[str]:
    (user.home / "waits.py").write_text(WAITS)
    python = images.apart / "bin/python"
    running = user.start(
        "srun", "-N2", "--ntasks-per-node=2", "-J", "waits", *options, python, "waits.py"
    )
    assert running.stdout
    for _ in range(4):
        assert running.stdout.readline() == "ready\n"
    return running


def ended(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = running.communicate(timeout=20)
    return running.returncode, out, err


def number(user: User) -> str:
    return user.said("squeue", "-h", "-n", "waits", "-t", "R", "-o", "%i").strip()


def test_scancel_reaches_the_program(user: User, images: Images) -> None:
    running = started(user, images)
    user.said("scancel", number(user))
    _, out, _ = ended(running)
    assert out.count("told SIGTERM") == 4
    user.cluster.wait_until_clean()


def test_a_signal_of_ones_own_reaches_the_program_and_its_code_comes_back(
    user: User, images: Images
) -> None:
    running = started(user, images)
    user.said("scancel", "-s", "USR1", number(user))
    code, out, _ = ended(running)
    assert out.count("told SIGUSR1") == 4
    # of the ranks that joined, Slurm sees the runtime's process end
    assert code in (7, 128 + signal.SIGUSR1)
    user.cluster.wait_until_clean()


def test_after_sigkill_nothing_is_left(user: User, images: Images) -> None:
    running = started(user, images)
    user.said("scancel", "-s", "KILL", number(user))
    code, _, _ = ended(running)
    assert code in (137, 143)
    user.cluster.wait_until_clean()


def test_in_a_step_without_a_place_of_the_jobs_own(user: User, images: Images) -> None:
    """As on sites that give jobs none: the runtime's record is in the home, and goes again."""
    python = images.apart / "bin/python"
    start = ("srun", "-N1", "-n2", "env", "-u", "SLURM_TMPDIR", python)
    assert user.said(*start, "-c", "print(1)") == "1\n1\n"
    records = user.home / ".apptainer/instances/app"
    assert list(Path(records).rglob("sharens*")) == []
