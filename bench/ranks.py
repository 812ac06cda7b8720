"""Ranks of a node share one mount: which processes that takes, and how much memory.

Starts Python by a launcher on 1, 2 and 4 nodes (of the tests' Slurm, all on this machine) with 1 to
16 ranks a node, shared and (`APPTAINER_SHARENS=0`) apart, and counts, over all nodes, squashfuse
processes (each reads the image for itself, with a cache of its own) and memory.

    python bench/ranks.py LAUNCHERS_DIR [--json ranks.json]

LAUNCHERS_DIR is made by `limpet wrap`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.cluster import NODES, Cluster, start_cluster

SCRIPT = "import time; print(1, flush=True); time.sleep(600)"
SIZES = [(1, 1), (1, 4), (1, 16), (2, 4), (2, 16), (4, 4), (4, 16)]


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("folder", type=Path)
    words.add_argument("--json", type=Path)
    asked = words.parse_args()
    rows = []
    with start_cluster() as cluster:
        for nodes, ranks in SIZES:
            for shared in (True, False):
                if not shared and nodes * ranks > 16:
                    continue  # beyond what this machine's memory and patience hold
                row = measure(cluster, asked.folder.resolve(), nodes, ranks, shared=shared)
                print(row, flush=True)
                rows.append(row)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(render(rows))


def measure(
    cluster: Cluster, folder: Path, nodes: int, ranks: int, *, shared: bool
) -> dict[str, int | bool]:
    env = {**os.environ, **cluster.env, **({} if shared else {"APPTAINER_SHARENS": "0"})}
    size = ["srun", "-J", "ranks", f"-N{nodes}", f"--ntasks-per-node={ranks}"]
    running = subprocess.Popen(
        [*size, folder / "bin/python", "-c", SCRIPT],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert running.stdout
    for _ in range(nodes * ranks):
        assert running.stdout.readline() == "1\n"
    squashfuse = [
        pid
        for node in NODES
        for pid, line in cluster.processes(node).items()
        if "squashfuse" in line.split()[0]
    ]
    memory_kb = sum(memory(pid) for pid in squashfuse)
    everything_kb = sum(memory(pid) for node in NODES for pid in cluster.processes(node))
    cluster.run("scancel", "-s", "KILL", "-n", "ranks")
    running.wait(30)
    cluster.wait_until_clean()
    return {
        "nodes": nodes,
        "ranks a node": ranks,
        "shared": shared,
        "squashfuse": len(squashfuse),
        "squashfuse MB": memory_kb // 1024,
        "all MB": everything_kb // 1024,
    }


def memory(pid: int) -> int:
    """A process's share of memory in kB (what several map counts once)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"(?m)^Pss:\s+(\d+) kB", text)
    return int(found[1]) if found else 0


def render(rows: list[dict[str, int | bool]]) -> str:
    names = list(rows[0])
    table = [names, ["---"] * len(names)]
    table += [[{True: "yes", False: "no"}.get(v, str(v)) if isinstance(v, bool) else str(v)
               for v in row.values()] for row in rows]  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


if __name__ == "__main__":
    main()
