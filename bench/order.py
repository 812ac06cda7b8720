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
from pathlib import Path
from statistics import median

from slowfs import Counted, build_slowfs, slow_view
from summary import render_markdown

PACKAGES = ("numpy", "scipy", "pandas", "matplotlib", "astropy", "scikit-learn")
IMPORTS = (
    "import numpy, scipy, pandas, matplotlib.pyplot, astropy.table, sklearn.ensemble, scipy.stats"
)
PLAIN_IMPORTS = "import numpy, scipy, pandas, matplotlib, astropy, sklearn"


def main() -> None:
    """Build, measure, show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--limpet", type=shlex.split, default=[sys.executable, "-m", "limpet"])
    add("--folder", type=Path, default=Path.home() / ".cache/limpet-bench/profile")
    add("--base", default="debian:trixie")
    add("--delays", default="1,5", help="milliseconds, with commas between")
    add("--rounds", type=int, default=7)
    add("--plain", action="store_true")
    options = parser.parse_args()
    images = options.folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    build_images(options.limpet, options.base, images)
    program = build_slowfs(options.folder)
    ways = plan_ways(options.limpet, images)
    table = [["delay", "start", "reads", "MB", "cold import s", "× usual order"]]
    for delay_ms in map(float, options.delays.split(",")):
        found: dict[str, list[tuple[float, Counted]]] = defaultdict(list)
        for _ in range(options.rounds):
            for name, (words, image) in ways.items():
                code = PLAIN_IMPORTS if options.plain else IMPORTS
                found[name].append(measure(program, images, words, image, code, delay_ms))
        table += rows(delay_ms, found)
    print(render_markdown(table))


def plan_ways(limpet: list[str], images: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    """Each way's words before the image, and its image."""
    bare = ("apptainer", "--quiet", "exec")
    ways: dict[str, tuple[tuple[str, ...], str]] = {"usual order": (bare, "usual.sif")}
    for name, image in (("default order", "default.sif"), ("profile order", "profiled.sif")):
        told = subprocess.run(
            [*limpet, "inspect", "--json", images / image], check=True, stdout=subprocess.PIPE
        )
        key = json.loads(told.stdout)["facts"]["modules"]["key"]
        ways[name] = (bare, image)
        ways[f"{name}, archive"] = ((*bare, "--env", f"LIMPET_MODULES={key}"), image)
    ways["profile order, limpet run"] = ((*limpet, "-q", "run"), "profiled.sif")
    return ways


def build_images(limpet: list[str], base: str, images: Path) -> None:
    """The same lock three times; what is there stays."""
    wanted = [word for name in PACKAGES for word in ("--pip", name)]
    command = f"python -c '{IMPORTS}'"
    ways = {"usual": ["--no-profile"], "default": [], "profiled": ["--profile", command]}
    for name, flags in ways.items():
        if not (images / f"{name}.sif").exists():
            lock = images.parent / "pylock.toml"
            flags += ["--lock", str(lock), "-o", str(images / f"{name}.sif")]
            subprocess.run([*limpet, "build", "--base", base, *wanted, *flags], check=True)


def measure(
    program: Path,
    images: Path,
    words: tuple[str, ...],
    image: str,
    code: str,
    delay_ms: float,
) -> tuple[float, Counted]:
    """One cold import: seconds, and what reached the file system."""
    with slow_view(program, images, delay_ms=delay_ms) as view:
        argv = [*words, str(view.place / image), "/opt/env/bin/python", "-c", code]
        begun_s = time.perf_counter()
        done = subprocess.run(argv, cwd=images, capture_output=True, text=True, env=os.environ)
        wall_s = time.perf_counter() - begun_s
        if done.returncode:
            sys.exit(f"{shlex.join(argv)} failed:\n{done.stderr.strip()[-800:]}")
        return wall_s, view.counted()


def rows(delay_ms: float, found: dict[str, list[tuple[float, Counted]]]) -> list[list[str]]:
    """A line of the table for each way."""
    usual_s = median(wall_s for wall_s, _ in found["usual order"])
    lines = []
    for name, samples in found.items():
        wall_s = median(wall_s for wall_s, _ in samples)
        reads = median(counted.reads for _, counted in samples)
        megabytes = median(counted.read_bytes for _, counted in samples) / 1e6
        figures = [f"{reads:.0f}", f"{megabytes:.1f}", f"{wall_s:.2f}", f"{wall_s / usual_s:.2f}"]
        lines.append([f"{delay_ms:g} ms", name, *figures])
    return lines


if __name__ == "__main__":
    main()
