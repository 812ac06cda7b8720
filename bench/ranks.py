"""Ranks of a node share one mount: what reaches the shared file system, processes, memory.

Starts an image's Python on 1, 2 and 4 nodes with 1, 4 and 16 ranks on each, by `limpet run`, by a
launcher and by a bare `apptainer exec`. The nodes are those of the tests' Slurm, all on this
machine, and a plain user's own. Counted on each node are the operations that reach the folders
which would lie on a cluster's shared file system (through `slowfs.c`, without a delay): the
image's, and that of the launchers or, for `limpet run`, of limpet and its Python. While all ranks
wait, their processes are counted and what memory they have. Nothing is timed.

    python bench/ranks.py IMAGE [--json ranks.json]

IMAGE is one that limpet has made. The table has the node with the highest number.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.slowfs import build_slowfs
from tests.cluster import NODES, Cluster, Counts, start_cluster

SOURCE = Path(__file__).parents[1] / "src"
LIMPET = (sys.executable, "-P", "-m", "limpet")
WAITS = "import time; print(1, flush=True); time.sleep(600)"
PYTHON = "/opt/env/bin/python"
WAYS = ("limpet run", "launcher", "apptainer exec")


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What lies on the shared file system: an image, alone in its folder, and its launchers."""

    image: Path
    launchers: Path
    home: Path
    slowfs: Path

    @property
    def env(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"}

    def command(self, way: str) -> tuple[str | Path, ...]:
        if way == "limpet run":
            return (*LIMPET, "run", "--mpi", "none", self.image, "python")
        if way == "launcher":
            return (self.launchers / "bin/python",)
        return ("apptainer", "--quiet", "exec", self.image, PYTHON)

    def beside(self, way: str) -> tuple[Path, ...]:
        """Folders that a start reads beside the image's."""
        of_limpet = (SOURCE, Path(sys.prefix))
        return {"limpet run": of_limpet, "launcher": (self.launchers,)}.get(way, ())


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one step took, on the node where it took most."""

    way: str
    nodes: int
    ranks: int
    image_opens: int
    image_others: int
    image_reads: int
    beside_opens: int
    beside_others: int
    squashfuse: int
    squashfuse_kb: int
    runtime_kb: int


def prepare(folder: Path, image: Path) -> Shared:
    """The shared folder, for an image that is copied into it."""
    for name in ("image", "home"):
        (folder / name).mkdir(parents=True)
    shared = Shared(
        image=folder / "image" / "mpi.sif",
        launchers=folder / "launchers",
        home=folder / "home",
        slowfs=build_slowfs(folder / "bench"),
    )
    shutil.copy(image, shared.image)
    wrap = ("-q", "wrap", "--mpi", "none", shared.image, shared.launchers)
    subprocess.run([*LIMPET, *wrap], env={**os.environ, **shared.env}, check=True)
    return shared


def measure(cluster: Cluster, shared: Shared, way: str, nodes: int, ranks: int) -> Row:
    """One step of so many ranks on each of so many nodes."""
    names = NODES[:nodes]
    size = ["-J", "ranks", "-w", ",".join(names), f"--ntasks-per-node={ranks}"]
    with ExitStack() as held:

        def counted(node: str, folder: Path) -> Callable[[], Counts]:
            return held.enter_context(cluster.counted(node, folder, shared.slowfs))

        image = [counted(node, shared.image.parent) for node in names]
        beside = [[counted(node, one) for one in shared.beside(way)] for node in names]
        running = subprocess.Popen(
            ["srun", *size, *map(str, shared.command(way)), "-c", WAITS],
            env={**os.environ, **shared.env, **cluster.env},
            cwd=shared.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert running.stdout
        for _ in range(nodes * ranks):
            assert running.stdout.readline() == "1\n"
        seen = [_processes(cluster, node) for node in names]
        cluster.run("scancel", "-s", "KILL", "-n", "ranks")
        running.wait(60)
        cluster.wait_until_clean(60, killed=True)
        of_image = [one() for one in image]
        others = [[one() for one in many] for many in beside]
    return Row(
        way=way,
        nodes=nodes,
        ranks=ranks,
        image_opens=max(one["opens"] for one in of_image),
        image_others=max(_others(one) for one in of_image),
        image_reads=max(one["reads"] for one in of_image),
        beside_opens=max(sum(one["opens"] for one in many) for many in others),
        beside_others=max(sum(_others(one) for one in many) for many in others),
        squashfuse=max(len(one["squashfuse"]) for one in seen),
        squashfuse_kb=max(sum(one["squashfuse"]) for one in seen),
        runtime_kb=max(sum(one["runtime"]) for one in seen),
    )


def _others(counts: Counts) -> int:
    """Metadata operations beside opens."""
    return counts["attributes"] + counts["links"] + counts["listings"]


def _processes(cluster: Cluster, node: str) -> dict[str, list[int]]:
    """Memory in kB of each process on a node that is not the program's own."""
    found: dict[str, list[int]] = {"squashfuse": [], "runtime": []}
    for pid, line in cluster.processes(node).items():
        if not line.startswith(PYTHON):
            kind = "squashfuse" if "squashfuse" in line.split()[0] else "runtime"
            found[kind].append(memory_kb(pid))
    return found


def memory_kb(pid: int) -> int:
    """A process's share of memory: what several map counts once (PSS)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"(?m)^Pss:\s+(\d+) kB", text)
    return int(found[1]) if found else 0


def render(rows: list[Row]) -> str:
    """The table of the documentation, all numbers of one node."""
    table = [
        ["start", "nodes", "ranks a node", "image: opens", "others", "reads"],
        ["---"] * 6,
    ]
    table[0] += ["beside it: opens", "others", "squashfuse", "its MB", "runtime's MB"]
    table[1] += ["---"] * 5
    for row in rows:
        numbers = [row.nodes, row.ranks, row.image_opens, row.image_others, row.image_reads]
        numbers += [row.beside_opens, row.beside_others, row.squashfuse]
        numbers += [round(row.squashfuse_kb / 1000), round(row.runtime_kb / 1000)]
        table.append([f"`{row.way}`" if " " in row.way else row.way, *map(str, numbers)])
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("image", type=Path)
    words.add_argument("--json", type=Path)
    words.add_argument("--nodes", type=int, nargs="+", default=(1, 2, 4))
    words.add_argument("--ranks", type=int, nargs="+", default=(1, 4, 16), help="on each node")
    asked = words.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, start_cluster() as cluster:
        shared = prepare(Path(folder), asked.image)
        for nodes in asked.nodes:
            for ranks in asked.ranks:
                for way in WAYS:
                    rows.append(measure(cluster, shared, way, nodes, ranks))
                    print(rows[-1], file=sys.stderr, flush=True)
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(render(rows))


if __name__ == "__main__":
    main()
