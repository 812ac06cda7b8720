"""Several ranks on several nodes: one size, right sums, one container a node, and nothing left."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.ranks import measure, prepare
from tests.cluster import Cluster, start_cluster
from tests.slurm.conftest import LIMPET, SUM, Images, User

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("slurm")]

MPI = ("--mpi=pmi2",)
ALL = {f"rank {rank} of 4 sum 10" for rank in range(4)}
HEARD = (4, 5, 6)  # the first rank of a node may hear a signal twice (docs/how-to/slurm.md)


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


def test_a_job_keeps_an_image_mounted(user: User, images: Images) -> None:
    """For what its script starts; a step's tasks have a mount of their own, as ever."""
    where = (
        f"'{images.launchers}/bin/python' -c \"import os; print(os.readlink('/proc/self/ns/pid'))\""
    )
    text = f"export LIMPET_KEEP=15m\n{where}\n{where}\nsrun -n1 {MPI[0]} {where}\n"
    text += f"srun -n2 {MPI[0]} '{images.launchers}/bin/python' sum.py\n"
    text += "limpet kept list; limpet kept end\n"
    state, said = user.job(text, "-N1", "--ntasks-per-node=2")
    assert state == "COMPLETED", said
    first, second, of_step, *ranks, kept, _ = said.splitlines()
    assert first == second != of_step
    assert set(ranks) == {"rank 0 of 2 sum 3", "rank 1 of 2 sum 3"}
    assert "for 900 s after its last program" in kept
    user.cluster.wait_until_clean()


@pytest.mark.parametrize("way", ["run", "launcher"])
def test_ranks_that_would_not_find_each_other(way: str, user: User, images: Images) -> None:
    start: tuple[str | Path, ...] = (*LIMPET, "run", images.mpi, "python")
    if way == "launcher":
        start = (images.launchers / "bin/python",)
    done = user.run("srun", "-N2", "-n4", "--mpi=none", *start, "sum.py")
    assert done.returncode == 125
    assert done.stdout == ""
    assert done.stderr.count("The 4 tasks of this srun start would not find each other.") == 4
    assert done.stderr.count("speaks PMI-1, PMI-2; srun offers nothing.") == 1
    assert done.stderr.count("Start with srun --mpi=pmi2") == 1


def test_a_script_of_limpets_for_several_nodes(user: User, images: Images, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    shape = ("--nodes=2", "--ntasks-per-node=2", f"--output={out}", "--stage")
    script = ("-o", "job.sh", "--submit", "--", "python", "sum.py")
    done = user.limpet("sbatch", images.mpi, *shape, *script)
    assert done.returncode == 0, done.stderr
    assert user.cluster.wait_for_job(done.stdout.strip()) == "COMPLETED", out.read_text()
    assert "srun --mpi=pmi2 " in (user.home / "job.sh").read_text()
    assert lines(out.read_text()) >= ALL
    user.cluster.wait_until_clean()


def test_a_script_of_limpets_uses_staged_launchers(
    user: User, images: Images, tmp_path: Path
) -> None:
    out = tmp_path / "out.txt"
    shape = ("--nodes=2", "--ntasks-per-node=2", f"--output={out}", "--stage")
    script = ("-o", "job.sh", "--submit", "--", "python", "where.py")
    mounts = "print([line for line in open('/proc/self/mountinfo') if 'launchers-' in line][0])\n"
    (user.home / "where.py").write_text(f"{SUM}{mounts}")
    done = user.limpet("sbatch", images.launchers, *shape, *script)
    assert done.returncode == 0, done.stderr
    assert user.cluster.wait_for_job(done.stdout.strip()) == "COMPLETED", out.read_text()
    text = (user.home / "job.sh").read_text()
    assert "stage --path" in text
    assert 'srun --mpi=pmi2 "$launchers"/bin/python where.py' in text
    said = out.read_text()
    assert lines(said) >= ALL
    assert len(re.findall(rf"{user.cluster.local}/job-\d+/limpet-job-\d+/launchers-", said)) >= 4
    user.cluster.wait_until_clean()


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


@pytest.mark.parametrize("first", ["false", "apptainer -q exec --sharens /nowhere.sif true"])
def test_ranks_whose_first_one_does_not_come(first: str, user: User, images: Images) -> None:
    """Or cannot start its container: the others go on without it, in one of their own. So they do
    after half a minute; here they have less patience."""
    config = user.home / "programs"
    script = "import os; print(os.readlink('/proc/self/ns/mnt'))"
    python = images.apart / "bin/python"
    (user.home / "second.sh").write_text(f'exec "{python}" -c "{script}"\n')
    config.write_text(f"0 {first}\n1-2 /bin/sh second.sh\n")
    env = {"LIMPET_RANKS_WAIT_S": "3"}
    done = user.run("srun", "-N1", "-n3", "--multi-prog", config, env=env)
    spaces = done.stdout.split()
    assert len(spaces) == 2, done.stderr
    assert len(set(spaces)) == 1
    user.cluster.wait_until_clean()


# A namespace that has gone gives its name to the next, so all wait until all are there.
SPACE = """\
import os, pathlib, time
task, rank = os.environ["SLURM_ARRAY_TASK_ID"], os.environ["SLURM_PROCID"]
pathlib.Path(f"here-{task}-{rank}").touch()
for _ in range(600):
    if len(list(pathlib.Path().glob("here-*"))) == 6:
        break
    time.sleep(0.1)
os.write(1, f"{task} {os.readlink('/proc/self/ns/mnt')}\\n".encode())
"""


def test_tasks_of_an_array_share_nothing(user: User, images: Images) -> None:
    """They are jobs of their own, though they are on one node; the ranks of each do share."""
    (user.home / "space.py").write_text(SPACE)
    script = user.home / "array.sh"
    script.write_text(f"#!/bin/sh\nsrun -n2 '{images.launchers}/bin/python' space.py\n")
    out = user.home / "%a.txt"
    shape = ("--array=0-2", "-w", "n1", "-n2")
    job = user.said("sbatch", "--parsable", "--wait", "-o", out, *shape, script).strip()
    spaces: list[str] = []
    for task in range(3):
        found = (user.home / f"{task}.txt").read_text().splitlines()
        assert [line.split()[0] for line in found] == [str(task)] * 2, (job, found)
        assert found[0] == found[1]
        spaces += {line.split()[1] for line in found}
    assert len(set(spaces)) == 3


def test_ranks_of_an_unpacked_image(user: User, images: Images) -> None:
    build = ("apptainer", "-q", "build", "--sandbox", "box", images.mpi)
    user.said(*build)
    said = user.said("srun", "-N1", "-n2", *MPI, *LIMPET, "run", "box", "python", "sum.py")
    assert lines(said) == {"rank 0 of 2 sum 3", "rank 1 of 2 sum 3"}


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
    deadline_s = time.monotonic() + 60
    while running.poll() is None and time.monotonic() < deadline_s:
        running.send_signal(signal.SIGINT)  # srun has to see two within a second
        time.sleep(0.2)
    assert running.poll()
    cluster.wait_until_clean(killed=True)


def test_what_ranks_ask_of_the_shared_file_system_and_of_their_node(
    cluster: Cluster, images: Images, tmp_path: Path
) -> None:
    """As `bench/ranks.py` counts it: the image is opened and mounted for each node, not for each
    rank; a rank opens its launcher's files."""
    shared = prepare(tmp_path / "shared", images.mpi)
    one = measure(cluster, shared, "launcher", 2, 1)
    four = measure(cluster, shared, "launcher", 2, 4)
    assert four.image_opens == one.image_opens
    assert four.image_others == one.image_others
    assert four.squashfuse == one.squashfuse == 1
    assert four.beside_opens - one.beside_opens <= 3 * 5
    assert four.beside_others - one.beside_others <= 3 * 7
    run = measure(cluster, shared, "limpet run", 2, 4)
    assert run.squashfuse == 1
    assert run.image_opens <= one.image_opens + 4  # limpet looks into the image itself
    bare = measure(cluster, shared, "apptainer exec", 2, 4)
    assert bare.squashfuse == 4
    assert bare.image_opens >= 4 * four.image_opens
    assert bare.squashfuse_kb > 2 * four.squashfuse_kb > 0


# ---- signals, limits, kills ----------------------------------------------------------------------

# Whoever hears a signal twice may do so in the middle of what it says, or on its way out.
WAITS = """\
import os, signal, sys, time
def told(number, frame):
    os.write(1, b"told %s\\n" % signal.Signals(number).name.encode())
    os._exit(int(sys.argv[1]))
for name in ("SIGTERM", "SIGUSR1"):
    signal.signal(getattr(signal, name), told)
os.write(1, b"ready\\n")
time.sleep(90)
"""


def started(
    user: User,
    images: Images,
    *options: str,
    command: tuple[str | Path, ...] = (),
    ends: str = "7",
) -> subprocess.Popen[str]:
    (user.home / "waits.py").write_text(WAITS)
    command = command or (images.apart / "bin/python",)
    size = ("-N2", "--ntasks-per-node=2", "-J", "waits")
    running = user.start("srun", *size, *options, *command, "waits.py", ends)
    assert running.stdout
    for _ in range(4):
        assert running.stdout.readline() == "ready\n"
    return running


def ended(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = running.communicate(timeout=60)
    return running.returncode, out, err


def number(user: User) -> str:
    return user.said("squeue", "-h", "-n", "waits", "-t", "R", "-o", "%i").strip()


def test_scancel_reaches_the_program(user: User, images: Images) -> None:
    running = started(user, images)
    user.said("scancel", number(user))
    _, out, _ = ended(running)
    assert out.count("told SIGTERM") in HEARD
    user.cluster.wait_until_clean()


@pytest.mark.parametrize("way", ["run", "launcher"])
def test_a_rank_that_hears_a_signal_ends_as_it_says(way: str, user: User, images: Images) -> None:
    """Of ranks that joined a container too: the task is not ended by what the program handles."""
    command: tuple[str | Path, ...] = (images.apart / "bin/python",)
    if way == "run":
        command = (*LIMPET, "run", "--mpi", "none", images.mpi, "python")
    running = started(user, images, command=command)
    user.said("scancel", "-s", "USR1", number(user))
    code, out, err = ended(running)
    assert out.count("told SIGUSR1") in HEARD
    assert code == 7, err
    assert {line.split(": ")[-1] for line in err.splitlines()} == {"Exited with exit code 7"}
    user.cluster.wait_until_clean()
    running = started(user, images, command=command, ends="0")
    user.said("scancel", "-s", "TERM", f"{number(user)}.0")
    code, out, err = ended(running)
    assert out.count("told SIGTERM") in HEARD
    assert code == 0, err
    user.cluster.wait_until_clean()


@pytest.fixture
def signals_all(tmp_path: Path, cache_dir: Path) -> Iterator[User]:
    """On a cluster that signals all that a task has started: proctrack/linuxproc does."""
    home = tmp_path / "home"
    home.mkdir()
    with start_cluster(tasks_only=False) as cluster:
        yield User(cluster=cluster, home=home, cache=cache_dir)


def test_where_all_processes_are_signalled(signals_all: User, images: Images) -> None:
    """The runtime and what serves the image are signalled too, and die of it. The programs hear it,
    also twice, for the runtime hands it on; but what they say may come too late, when their task is
    over. That the tasks end as they say cannot be had, with the runtime alone as little."""
    bare = ("apptainer", "-q", "exec", images.mpi, "/opt/env/bin/python")
    for command in ((images.apart / "bin/python",), bare):
        running = started(signals_all, images, command=command)
        signals_all.said("scancel", "-s", "USR1", number(signals_all))
        code, out, err = ended(running)
        assert lines(out) <= {"told SIGUSR1"}
        assert code > 128, err
        signals_all.cluster.wait_until_clean(killed=True)


def test_a_time_limit_reaches_the_program(user: User, images: Images) -> None:
    """Limits are whole minutes, and Slurm looks at them twice a minute: this one is brought on."""
    running = started(user, images, "--time=5")
    user.said("scontrol", "update", f"JobId={number(user)}", "EndTime=now+1")
    out, err = running.communicate(timeout=60)
    assert "DUE TO TIME LIMIT" in err
    assert out.count("told SIGTERM") in HEARD
    assert running.returncode != 0
    user.cluster.wait_until_clean()


def test_after_sigkill_nothing_is_left(user: User, images: Images) -> None:
    """Files in memory are the next step's to remove: none runs any more that could."""
    running = started(user, images, "-w", "n1,n2")
    job = number(user)
    user.said("scancel", "-s", "KILL", f"{job}.0")
    code, out, _ = ended(running)
    assert (code, out) == (137, "")
    user.cluster.wait_for_job(job)
    user.cluster.wait_until_clean(killed=True)
    marks = Path(f"/proc/{user.cluster.daemons['n1'].pid}/root/dev/shm")
    for name in ("limpet.999999.1.first", "sharens_instance_999999"):  # of processes long gone
        (marks / name).touch()
    (marks / "limpet.999999.d").mkdir()
    python = images.launchers / "bin/python"
    user.said("srun", "-w", "n1,n2", "--ntasks-per-node=2", python, "-c", "")
    user.cluster.wait_until_clean()


def test_in_a_step_without_a_place_of_the_jobs_own(user: User, images: Images) -> None:
    """As on sites that give jobs none: the runtime's record is in the home, and goes again."""
    python = images.apart / "bin/python"
    start = ("srun", "-w", "n1", "-n2", "env", "-u", "SLURM_TMPDIR", python)
    assert user.said(*start, "-c", "print(1)") == "1\n1\n"
    records = user.home / ".apptainer/instances/app/n1"
    assert records.is_dir()
    assert list(records.rglob("sharens*")) == []
