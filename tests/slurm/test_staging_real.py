"""An image on the nodes' own disks: once, whole, or not at all; and what may be in the way."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.slurm.conftest import LIMPET, Images, User
from tests.waiting import wait_until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("slurm")]

WHERE = "import os; print('from', os.environ['APPTAINER_CONTAINER'])"
QUIET = {"SLURM_JOB_ID": "", "SLURM_JOB_NUM_NODES": ""}


def test_staged_once_and_used_by_all_starts(user: User, images: Images, cluster: Cluster) -> None:
    text = f"cd '{images.mpi.parent}'\nlimpet stage mpi.sif\nlimpet stage apart\n"
    text += f'srun apart/bin/python -c "{WHERE}"\n'
    text += f'limpet run mpi.sif python -c "{WHERE}"\n'
    text += "limpet stage --clean\nsrun sh -c 'ls $SLURM_TMPDIR'\n"
    state, said = user.job(text, "-N2", "--ntasks-per-node=2")
    assert state == "COMPLETED", said
    lines = said.splitlines()
    assert "was copied" in lines[0]
    assert "is there already" in lines[1]
    copy = rf"from {cluster.local}/job-\d+/limpet-job-\S+"
    assert [bool(re.fullmatch(copy, line)) for line in lines[2:7]] == [True] * 5, said
    assert "limpet-job" not in "".join(lines[7:])
    cluster.wait_until_clean()


RANKS = """\
limpet -q stage apart >/dev/null
launchers=$(limpet stage --path apart)
touch "$HOME/staged"
until [ -e "$HOME/go" ]; do sleep 0.1; done
srun "$launchers/bin/python" -c "{where}"
touch "$HOME/started"
until [ -e "$HOME/end" ]; do sleep 0.1; done
"""


def test_ranks_of_staged_launchers_touch_nothing_that_is_shared(
    user: User, images: Images, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No look-up, open or read: image and launchers lie in a folder in which each one counts."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    program = importlib.import_module("slowfs").build_slowfs(tmp_path / "bench")
    folder = images.mpi.parent
    script = user.home / "job.sh"
    of_limpet = f'limpet() {{ {" ".join(LIMPET)} "$@"; }}\ncd {str(folder)!r}\n'
    then = RANKS.format(where=WHERE)
    script.write_text(f"#!/bin/bash\n{of_limpet}{then}".replace("srun", 'cd "$HOME"; srun'))
    out = user.home / "out.txt"
    with (
        cluster.counted("n1", folder, program) as first,
        cluster.counted("n2", folder, program) as second,
    ):
        words = ("-w", "n1,n2", "--ntasks-per-node=4", "-o", out, script)
        job = user.said("sbatch", "--parsable", *words).strip()
        wait_until((user.home / "staged").exists)
        before = [first(), second()]
        (user.home / "go").touch()
        wait_until((user.home / "started").exists)
        after = [first(), second()]
        (user.home / "end").touch()
        assert cluster.wait_for_job(job) == "COMPLETED", out.read_text()
    assert before[0]["opens"] > 0, "the staging reads what it stages"
    assert after == before, out.read_text()
    said = out.read_text().splitlines()
    assert sum(line.startswith(f"from {cluster.local}/") for line in said) == 8, said
    cluster.wait_until_clean()


def test_a_full_disk_on_one_node(user: User, images: Images, cluster: Cluster) -> None:
    """That node alone goes on with the shared file, of three; a second staging copies nothing."""
    text = f"cd '{images.mpi.parent}'\nlimpet stage mpi.sif\necho code $?\n"
    text += f'srun -l apart/bin/python -c "{WHERE}"\nlimpet stage mpi.sif\n'
    text += "srun -l sh -c 'ls -A $SLURM_TMPDIR/limpet-job-*'\n"
    with cluster.mounted("n2", cluster.local, size="1m"):
        _, said = user.job(text, "-w", "n1,n2,n3", "--ntasks-per-node=1")
        first, code, *starts = said.splitlines()
        assert ", on 2 nodes. The shared file is used on n2: " in first, said
        assert "has 1.0 MB of room on n2, and the image needs " in first
        assert first.count("was copied") == said.count("was copied") == 1
        assert code == "code 0"
        copy = rf"from {cluster.local}/job-\d+/limpet-job-\S+"
        for rank, place in ((0, copy), (1, f"from {re.escape(str(images.mpi))}"), (2, copy)):
            assert re.fullmatch(f"{rank}: {place}", sorted(starts[:3])[rank]), said
        assert "is there already, on 2 nodes. The shared file is used on n2: " in starts[3]
        assert {line[:2] for line in starts[4:] if line.endswith(".sif")} == {"0:", "2:"}
        assert ".part-" not in said
    cluster.wait_until_clean()


def test_full_disks_on_all_nodes(user: User, images: Images, cluster: Cluster) -> None:
    text = f"limpet stage '{images.mpi}'\necho code $?\nls -A $SLURM_TMPDIR/*\n"
    with (
        cluster.mounted("n1", cluster.local, size="1m"),
        cluster.mounted("n2", cluster.local, size="1m"),
    ):
        _, said = user.job(text, "-w", "n1,n2")
    assert f"limpet: The shared file {images.mpi} is used: " in said
    assert "has 1.0 MB of room on n1" in said
    assert "code 0" in said
    assert ".sif" not in said.partition("code 0")[2]


def test_interrupted_half_way(user: User, images: Images, cluster: Cluster) -> None:
    """What a broken sbcast has left is not taken for the image, and the next staging is right."""
    text = f"""cd '{images.mpi.parent}'
limpet stage mpi.sif
copy=$(echo $SLURM_TMPDIR/limpet-job-*/*.sif)
srun sh -c "head -c 1000000 '$copy' >'$copy.part-0123' && rm '$copy'"
srun -N1 -n1 env/bin/python -c "{WHERE}"
srun sh -c "head -c 1000000 '$copy.part-0123' >'$copy'"
limpet stage mpi.sif
srun -N2 sh -c "cmp '$copy' mpi.sif && echo same"
"""
    _, said = user.job(text, "-N2", "--ntasks-per-node=1")
    assert f"from {images.mpi}" in said
    assert said.count("was copied") == 2
    assert said.count("same") == 2


def test_killed_in_the_middle_nothing_has_the_copys_name(
    user: User, images: Images, cluster: Cluster
) -> None:
    slow = user.home / "bin/sbcast"
    slow.parent.mkdir()
    end = user.home / "end"
    waits = f"for i in $(seq 600); do [ -e '{end}' ] && break; sleep 0.1; done"
    slow.write_text(f'#!/bin/sh\neval dest=\\${{$#}}\necho half >"$dest"\n{waits}\n')
    slow.chmod(0o755)
    text = f"""PATH='{slow.parent}':$PATH
{" ".join(LIMPET)} stage '{images.mpi}' &
for i in $(seq 600); do [ -s $SLURM_TMPDIR/limpet-job-*/*.part-* ] && break; sleep 0.1; done
kill -KILL $!; wait
ls $SLURM_TMPDIR/limpet-job-*
touch '{end}'
"""
    _, said = user.job(text, "-N1")
    assert re.search(r"(?m)\.sif\.part-\w+$", said), said
    assert not re.search(r"(?m)\.sif$", said), said


# ---- bad input -----------------------------------------------------------------------------------


def test_outside_a_job(user: User, images: Images) -> None:
    done = user.limpet("stage", images.mpi, env=QUIET)
    assert done.returncode == 9
    assert "not in a Slurm job" in done.stderr


def test_variables_of_another_job(user: User, images: Images) -> None:
    left = {"SLURM_JOB_ID": "99999", "SLURM_JOB_NUM_NODES": "2", "TMPDIR": "/tmp"}
    done = user.limpet("stage", images.mpi, env=left)
    assert done.returncode == 9
    assert "left over" in done.stderr
    broken = user.limpet("stage", images.mpi, env={**left, "SLURM_JOB_NUM_NODES": "many"})
    assert "make no sense" in broken.stderr
    # starts go on with the file that they were given, alone
    of_ranks = {**left, "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_NODEID": "0", "SLURM_LOCALID": "1"}
    started = user.limpet("run", images.mpi, "python", "-c", WHERE, env=of_ranks)
    assert started.stdout == f"from {images.mpi}\n", started.stderr


@pytest.mark.parametrize(("daemon", "says"), [("slurmctld", "controller"), ("munged", "MUNGE")])
def test_slurm_does_not_answer(
    daemon: str, says: str, user: User, images: Images, cluster: Cluster
) -> None:
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2"}
    with cluster.stopped(daemon):
        words = ("sbatch", images.mpi, "--mpi", "none", "--submit", "--", "true")
        submitted = user.run(*LIMPET, *words)
        staged = user.limpet("stage", images.mpi, env=job)
        started = user.limpet("run", images.mpi, "python", "-c", "print(1)", env=job)
    for done in (submitted, staged):
        assert done.returncode == 9
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) <= 3
    assert started.stdout == "1\n", started.stderr  # a start asks Slurm for nothing


def test_a_node_without_the_runtime(user: User, images: Images, cluster: Cluster) -> None:
    with cluster.without("n2", "apptainer"):
        for start in (
            (*LIMPET, "run", images.mpi, "true"),
            (images.apart / "bin/python", "-V"),
        ):
            done = user.run("srun", "-l", "-w", "n1,n2", "-n2", *start)
            assert "1: limpet: " in done.stderr
            assert "PATH" in done.stderr or "cannot be started" in done.stderr
            assert "task 1: Exited with exit code 125" in done.stderr


def test_a_node_with_an_older_runtime(user: User, images: Images, cluster: Cluster) -> None:
    """One that cannot put several ranks into one container, where MPI needs just that."""
    with cluster.answering("n2", "apptainer", "apptainer version 1.1.9"):
        start = (*LIMPET, "run", images.mpi, "python", "sum.py")
        two = ("srun", "-w", "n2", "-n2", "--mpi=pmi2")
        done = user.run(*two, *start)
        assert done.returncode == 125
        assert "limpet: The 2 ranks on n2 need one container, which Apptainer 1.1.9" in done.stderr
        assert "1.3" in done.stderr
        # without MPI each has a container of its own, as ever
        done = user.run(*two, *LIMPET, "run", "--mpi", "none", images.mpi, "true")
        assert done.returncode == 0, done.stderr


def test_an_image_that_a_node_does_not_see(user: User, images: Images, cluster: Cluster) -> None:
    launchers = user.home / "launchers"
    user.said(*LIMPET, "-q", "wrap", "--mpi", "none", images.mpi, launchers)
    with cluster.mounted("n2", images.mpi.parent):
        for start in (
            (*LIMPET, "run", images.mpi, "true"),
            (launchers / "bin/python", "-V"),
        ):
            done = user.run("srun", "-l", "-w", "n1,n2", "-n2", *start)
            assert "1: limpet: " in done.stderr, done.stderr
            assert str(images.mpi) in done.stderr
            assert "task 1: Exited with exit code 125" in done.stderr
            assert "task 0" not in done.stderr
