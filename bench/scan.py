"""`limpet advise --scan` against `find`: the same tree, by turns, what each counts and how long.

    python bench/scan.py FOLDER [--rounds N]

`find` counts files and names the marks of environments; it does not say which files are whose.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from limpet.tools.environments import scan

MARKS = ("-name", "conda-meta", "-o", "-name", "pyvenv.cfg", "-o", "-name", ".spack-db")


def count_by_find(folder: Path) -> tuple[int, int]:
    """Files and environments, as somebody would ask for them at a prompt."""
    marked = ["(", *MARKS, ")", "-printf", "M\\n"]
    words = ["find", folder, *marked, "-o", "!", "-type", "d"]
    done = subprocess.run(
        [*words, "-printf", "f\\n"], capture_output=True, text=True, check=False
    ).stdout
    return done.count("f\n") + done.count("M\n"), done.count("M\n")


def count_by_limpet(folder: Path) -> tuple[int, int]:
    found = scan([folder])
    return found.files, len(found.environments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    ways: dict[str, Callable[[Path], tuple[int, int]]] = {
        "find": count_by_find,
        "limpet advise --scan": count_by_limpet,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    counts = {name: way(given.folder) for name, way in ways.items()}  # and warms the caches
    for _ in range(given.rounds):
        for name, way in ways.items():
            started_s = time.perf_counter()
            way(given.folder)
            times[name].append(time.perf_counter() - started_s)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, caches warm")
    for name, found in times.items():
        files, environments = counts[name]
        print(
            f"{name:<22}{statistics.median(found):8.2f} s  ({min(found):.2f}–{max(found):.2f})"
            f"  {files:,} files, {environments:,} environments"
        )


if __name__ == "__main__":
    main()
