"""What is read ahead in jobs: once for a job and node, by launchers and by `limpet run`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.slowfs import build_slowfs
from limpet.tools.images import read_image
from tests.cluster import Counts
from tests.slurm.conftest import LIMPET, User
from tests.waiting import wait_until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("slurm")]

# Says who asks dd for what. Reading ahead, not looking at pages, waits while the gate is there.
DD = """#!/bin/sh
printf '%s %s %s\\n' "$SLURM_JOB_ID" "$SLURMD_NODENAME" "$*" >>"{log}"
case $* in *skip_bytes*) while [ -e "{gate}" ]; do sleep 0.1; done ;; esac
exec /bin/dd "$@"
"""
Asked = tuple[str, str]  # a job and a node


@dataclass
class Shared:
    """Launchers for an image on a file system of which each read takes long, until it is seen."""

    image: Path
    python: Path
    tools: Path
    slowfs: Path
    user: User

    @property
    def wanted_bytes(self) -> int:
        return read_image(str(self.image)).ahead.size_bytes

    @property
    def gate(self) -> Path:
        return self.tools / "gate"

    @contextmanager
    def cold(self, *nodes: str) -> Iterator[Callable[[], list[Counts]]]:
        """These nodes have seen nothing of the image yet."""
        folder, cluster = self.image.parent, self.user.cluster
        with ExitStack() as held:
            views = [cluster.counted(node, folder, self.slowfs, delay_ms=5) for node in nodes]
            counts = [held.enter_context(view) for view in views]
            yield lambda: [count() for count in counts]

    @property
    def readers(self) -> int:
        """How many dd read all of it ahead on one node."""
        text = (self.user.home / "env/.limpet/current/ahead.sh").read_text()
        return len(re.findall(r"\d+:\d+", text))

    def until_read(self, count: int) -> str:
        """For a batch script: goes on when so many dd have come to read ahead, or a minute later.

        Readers end with the job, so it goes on until they are there.
        """
        seen = f"[ $(grep -c skip_bytes '{self.tools}/log') -ge {count} ]"
        return f"for i in $(seq 300); do {seen} && break; sleep 0.2; done\n"

    def job(self, text: str, *options: str) -> str:
        """What a batch job said that finds dd in `tools`."""
        state, said = self.user.job(f'PATH="{self.tools}:$PATH"\n{text}', *options)
        assert state == "COMPLETED", said
        return said

    def asked(self) -> tuple[list[Asked], list[Asked]]:
        """Who has looked at pages, and who has read ahead: an entry for each dd, sorted."""
        lines = [line.split(" ", 2) for line in (self.tools / "log").read_text().splitlines()]
        looked = [(job, node) for job, node, words in lines if "skip_bytes" not in words]
        read = [(job, node) for job, node, words in lines if "skip_bytes" in words]
        return sorted(looked), sorted(read)


@pytest.fixture
def shared(user: User, profiled_image: Path) -> Shared:
    tools = user.home / "tools"
    shared = Shared(
        image=profiled_image,
        python=user.home / "env/bin/python",
        tools=tools,
        slowfs=build_slowfs(user.home / "bench"),
        user=user,
    )
    tools.mkdir()
    (tools / "log").touch()
    (tools / "dd").write_text(DD.format(log=tools / "log", gate=shared.gate))
    (tools / "dd").chmod(0o755)
    with shared.cold("n1"):
        user.said("srun", "-w", "n1", *LIMPET, "-q", "wrap", profiled_image, user.home / "env")
    return shared


ENDS = "import os, sys; print('rank', os.environ['SLURM_PROCID']); sys.exit(7)"


def test_once_for_all_ranks_of_a_node_and_all_steps_of_a_job(shared: Shared) -> None:
    """And nobody notices: the ranks end as they do, and all that is left goes with the job."""
    step = f"srun '{shared.python}' -c \"{ENDS}\"\necho code $?\n"
    left = shared.until_read(2 * shared.readers)
    left += "srun -w n2 -N1 -n1 sh -c 'ls $SLURM_TMPDIR/limpet-*'\n"
    with shared.cold("n1", "n2") as counted:
        said = shared.job(f"{step}{step}{left}", "-w", "n1,n2", "--ntasks-per-node=3").splitlines()
        looked, read = shared.asked()
        nodes = sorted(set(looked))
        assert [node for _, node in nodes] == ["n1", "n2"]
        assert looked == sorted(nodes * 3)
        assert sorted(set(read)) == nodes
        assert read.count(read[0]) == len(read) / 2 == shared.readers
        wait_until(lambda: all(one["read_bytes"] >= shared.wanted_bytes for one in counted()))
    said = [line for line in said if not line.startswith("srun: ")]
    ranks = sorted(f"rank {rank}" for rank in range(6))
    assert [sorted(said[:6]), said[6], sorted(said[7:13]), said[13]] == [ranks, "code 7"] * 2
    assert sum(line.endswith(".ahead") for line in said[14:]) == 1
    shared.user.cluster.wait_until_clean()


def test_neither_step_nor_job_waits_for_it_and_it_ends_with_the_job(shared: Shared) -> None:
    cluster = shared.user.cluster
    ahead = shared.user.home / "env/.limpet/current/ahead.sh"
    more, readers = re.subn(r"(?m)(_limpet_read) (\S.*) &$", r"\1 \2 \2 &", ahead.read_text())
    assert readers == 2
    ahead.write_text(more)  # a small image has hardly more than one part for each of them
    shared.gate.touch()
    with ExitStack() as left, shared.cold("n1", "n2"):
        left.callback(shared.gate.unlink, missing_ok=True)
        step = f"srun '{shared.python}' -c 'print(1)'\n{shared.until_read(4)}"
        begun_s = time.monotonic()
        assert shared.job(step, "-w", "n1,n2", "--ntasks-per-node=2") == "1\n" * 4
        assert time.monotonic() - begun_s < 30  # Slurm waits a minute for whoever has the output
        assert len(shared.asked()[1]) == 4  # two readers on each node
        wait_until(lambda: not any(any(cluster.on_disk(node).iterdir()) for node in ("n1", "n2")))
        shared.gate.unlink()
        cluster.wait_until_clean()
        assert len(shared.asked()[1]) == 4  # there would be more to read


def test_tasks_of_an_array_are_jobs_of_their_own(shared: Shared) -> None:
    """Each looks, and where another one has read the pages already, none is read."""
    script = shared.user.home / "array.sh"
    start = f"srun -n2 '{shared.python}' -c 'print(1)'"
    path = f'PATH="{shared.tools}:$PATH"'
    script.write_text(f"#!/bin/sh\n{path}\n{start}\n{shared.until_read(shared.readers)}")
    out = shared.user.home / "%a.txt"
    with shared.cold("n1") as counted:
        shape = ("--array=0-1", "-w", "n1", "-n2")
        shared.user.said("sbatch", "--parsable", "--wait", "-o", out, *shape, script)
        said = [(shared.user.home / f"{task}.txt").read_text() for task in range(2)]
        assert said == ["1\n1\n"] * 2
        wait_until(lambda: len(shared.asked()[0]) == 6)
        wait_until(lambda: counted()[0]["read_bytes"] >= shared.wanted_bytes)
        looked, read = shared.asked()
        tasks = sorted(set(looked))
        assert len(tasks) == 2
        assert looked == sorted(tasks * 3)
        assert 1 <= len(set(read)) <= 2
        assert shared.job(start, "-w", "n1", "-n2") == "1\n1\n"
        wait_until(lambda: len(shared.asked()[0]) == 9)
        time.sleep(1)
        later, again = shared.asked()
        assert len(later) == 9
        assert set(again) <= set(tasks)  # the last job has read nothing


def test_a_staged_image_is_not_read_ahead(shared: Shared) -> None:
    text = f"limpet stage '{shared.image}'\nsrun '{shared.python}' -c 'print(1)'\n"
    with shared.cold("n1"):
        assert shared.job(text, "-w", "n1", "-n2").endswith("\n1\n1\n")
    assert shared.asked() == ([], [])


def test_limpet_run_reads_ahead_by_the_first_rank_of_a_node(shared: Shared) -> None:
    step = ("srun", "-w", "n1,n2", "--ntasks-per-node=3", *LIMPET, "run")
    with shared.cold("n1", "n2") as counted:
        said = shared.user.said(*step, "--explain", shared.image, "true")
        assert len(re.findall(r"reads ahead  \d+ MB: [345] of 5 pages on fuse were", said)) == 2
        assert said.count("reads ahead  no: the first rank on this node does\n") == 4
        assert shared.user.said(*step, shared.image, "true") == ""
        wait_until(lambda: all(one["read_bytes"] >= shared.wanted_bytes for one in counted()))
        shared.user.cluster.wait_until_clean()
