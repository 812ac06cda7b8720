"""What the order of files and reading ahead save at a cold start on a slow file system.

    python3 bench/order.py [--rounds N] [--delays MS,MS] [--folder FOLDER] [--limpet COMMAND]

Builds one environment of six scientific packages three times: in the usual order, in the order of
what its modules say that they import (limpet's default), and in the order of a profile. Imports it
from a file system that delays each operation (see slowfs.c), interleaved. `--plain` imports the
packages alone, and not the subpackages that the profile knows of. The runtime alone starts the
program, where nothing else is said; with `archive` Python imports from the module archive, as it
does in limpet's starts. Reads and bytes are counted, times are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from contenders import this_trees_limpet
from slowfs import Counted, build_slowfs, slow_view
from summary import render_markdown

PACKAGES = ("numpy", "scipy", "pandas", "matplotlib", "astropy", "scikit-learn")
IMPORTS = (
    "import numpy, scipy, pandas, matplotlib.pyplot, astropy.table, sklearn.ensemble, scipy.stats"
)
PLAIN_IMPORTS = "import numpy, scipy, pandas, matplotlib, astropy, sklearn"
BARE = ("apptainer", "--quiet", "exec")
PYTHON = "/opt/env/bin/python"

Command = Callable[[Path], list[str]]  # by the folder in which the images are seen
Found = dict[str, list[tuple[float, Counted]]]  # seconds, and what was counted, by way


def main() -> None:
    """Build, measure, show."""
    parser = common_options(__doc__, rounds=7)
    parser.add_argument("--delays", default="1,5", help="milliseconds, with commas between")
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    images = build_images(options)
    program = build_slowfs(options.folder)
    code = PLAIN_IMPORTS if options.plain else IMPORTS
    ways = plan_ways(options.limpet, images, code)
    table = [header("usual")]
    for delay_ms in map(float, options.delays.split(",")):
        found = measure_in_turn(program, images, ways, delay_ms, options.rounds)
        table += rows(delay_ms, found, against="usual order")
    print(render_markdown(table))


def common_options(about: str, rounds: int) -> argparse.ArgumentParser:
    """What all programs know that measure these images."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--limpet", type=shlex.split, default=this_trees_limpet())
    add("--folder", type=Path, default=Path.home() / ".cache/limpet-bench/profile")
    add("--base", default="debian:trixie")
    add("--rounds", type=int, default=rounds)
    return parser


def build_images(options: argparse.Namespace) -> Path:
    """The folder with the same lock's images; what is there stays."""
    images: Path = options.folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    wanted = [word for name in PACKAGES for word in ("--pip", name)]
    command = f"python -c '{IMPORTS}'"
    ways = {"usual": ["--no-profile"], "default": [], "profiled": ["--profile", command]}
    for name, flags in ways.items():
        if not (images / f"{name}.sif").exists():
            flags += ["--lock", str(options.folder / "pylock.toml")]
            flags += ["-o", str(images / f"{name}.sif")]
            build = [*options.limpet, "build", "--base", options.base, *wanted, *flags]
            subprocess.run(build, check=True)
    return images


def plan_ways(limpet: tuple[str, ...], images: Path, code: str) -> dict[str, Command]:
    """What is started, by name."""
    ways = {"usual order": start_by(BARE, "usual.sif", code)}
    for name, image in (("default order", "default.sif"), ("profile order", "profiled.sif")):
        told = subprocess.run(
            [*limpet, "inspect", "--json", images / image], check=True, stdout=subprocess.PIPE
        )
        key = json.loads(told.stdout)["facts"]["modules"]["key"]
        ways[name] = start_by(BARE, image, code)
        archive = (*BARE, "--env", f"LIMPET_MODULES={key}")
        ways[f"{name}, archive"] = start_by(archive, image, code)
    ways["profile order, limpet run"] = start_by((*limpet, "-q", "run"), "profiled.sif", code)
    return ways


def start_by(words: tuple[str, ...], image: str, code: str) -> Command:
    """The import by the words before the image."""
    return lambda place: [*words, str(place / image), PYTHON, "-c", code]


def measure_in_turn(
    program: Path,
    images: Path,
    ways: Mapping[str, Command],
    delay_ms: float,
    rounds: int,
    *,
    at: Path | None = None,
) -> Found:
    """So many cold imports by each way."""
    found: Found = defaultdict(list)
    for _ in range(rounds):
        for name, command in ways.items():
            found[name].append(measure(program, images, command, delay_ms, at))
    return found


def measure(
    program: Path, images: Path, command: Command, delay_ms: float, at: Path | None
) -> tuple[float, Counted]:
    """One cold import: seconds, and what reached the file system."""
    with slow_view(program, images, delay_ms=delay_ms, at=at) as view:
        argv = command(view.place)
        begun_s = time.perf_counter()
        done = subprocess.run(argv, cwd=images, capture_output=True, text=True, env=os.environ)
        wall_s = time.perf_counter() - begun_s
        if done.returncode:
            sys.exit(f"{shlex.join(argv)} failed:\n{done.stderr.strip()[-800:]}")
        return wall_s, view.counted()


def header(against: str) -> list[str]:
    """Of `rows`."""
    times = f"× {against}"
    return ["delay", "start", "reads", times, "MB", times, "cold import s", times]


def rows(delay_ms: float, found: Found, *, against: str) -> list[list[str]]:
    """A line of the table for each way: medians, each with its ratio to that of one of them."""
    middles = {name: medians(samples) for name, samples in found.items()}
    lines = []
    for name, values in middles.items():
        line = [f"{delay_ms:g} ms", name]
        for value, usual, digits in zip(values, middles[against], (0, 1, 2), strict=True):
            line += [f"{value:.{digits}f}", f"{value / usual:.2f}"]
        lines.append(line)
    return lines


def medians(samples: list[tuple[float, Counted]]) -> tuple[float, float, float]:
    """Of reads, megabytes and seconds."""
    return (
        median(counted.reads for _, counted in samples),
        median(counted.read_bytes for _, counted in samples) / 1e6,
        median(wall_s for wall_s, _ in samples),
    )


if __name__ == "__main__":
    main()
