"""How long limpet itself takes to start, as a multiple of `python -c pass`.

    python3 bench/launch.py [--limpet COMMAND] [--image IMAGE] [--rounds N]

With an image, `limpet run --dry-run` is measured too: all that limpet adds to a launch.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from summary import render_markdown


def main() -> None:
    """Measure, interleaved, and show the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--limpet", type=shlex.split, default=[sys.executable, "-m", "limpet"], help="its command")
    add("--python", default=sys.executable, help="the interpreter of limpet's command")
    add("--image", type=Path, help="an image to plan a launch of")
    add("--rounds", type=int, default=21)
    options = parser.parse_args()
    ways = {
        "python -c pass": [options.python, "-c", "pass"],
        "limpet --version": [*options.limpet, "--version"],
        "limpet --help": [*options.limpet, "--help"],
    }
    if options.image:
        run = ["run", "--dry-run", str(options.image), "python3", "-c", "pass"]
        ways["limpet run --dry-run"] = [*options.limpet, *run]
    print(compare(ways, options.rounds))


def compare(ways: Mapping[str, Sequence[str]], rounds: int) -> str:
    """A table of commands that were run in turn, with their ratios to the first one."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, argv in ways.items():
            wall_s = _time(argv)
            if number:  # the first one warms the page cache
                times[name].append(wall_s)
    first = next(iter(ways))
    table = [["command", "median ms", "least–most ms", f"× {first}"]]
    for name, walls in times.items():
        middle = median(walls)
        spread = f"{min(walls) * 1000:.0f}–{max(walls) * 1000:.0f}"
        ratio = f"{middle / median(times[first]):.2f}"
        table.append([name, f"{middle * 1000:.1f}", spread, ratio])
    return render_markdown(table)


def _time(argv: Sequence[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True)
    wall_s = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"{shlex.join(argv)} failed:\n{done.stderr.strip()[-800:]}")
    return wall_s


if __name__ == "__main__":
    main()
