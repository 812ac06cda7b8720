"""A launcher's start against the bare `apptainer exec` command that it ends in.

    bench/launcher.py IMAGE [--pairs 40] [--program true]

The two are started in turn, so that what else the machine does meets both alike; the ratio is
taken pair by pair, with the interval in which the median of those ratios lies. The bare command
is the one that the launcher itself becomes, with the same options, mounts and environment: the
difference is what the launcher costs. Also told: the same command as the only line of a script for
that shell, which is what starting the shell alone costs, and a minimal `apptainer exec IMAGE
PROGRAM`. PROGRAM is given nothing to read.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
SHELLS = ("dash", "bash")
TARGET = 1.02


def wrap(image: Path, folder: Path, program: str) -> Path:
    """A launcher of the program, which lies in /usr/bin of every image."""
    words: list[str | Path] = [sys.executable, "-P", "-m", "limpet", "wrap", image, folder]
    words += ["--folder", "/usr/bin", "--only", program]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
    return folder / "bin" / program


def with_runtime(launcher: Path, runtime: Path, folder: Path) -> Path:
    """The launcher in a copy of its folder, made to start another runtime."""
    root = launcher.parent.parent
    shutil.copytree(root, folder, symlinks=True)
    changed = folder / "bin" / launcher.name
    text = changed.read_text()
    for name, value in (("root", folder), ("runtime", runtime)):
        text = re.sub(rf"(?m)^_limpet_{name}=/.*$", f"_limpet_{name}='{value}'", text, count=1)
    changed.write_text(text)
    return changed


def final_command(launcher: Path, shell: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """What the launcher becomes: its last line is made to write that down."""
    told = folder / "told"
    spy = folder / "spy"
    spy.write_text(
        f"#!{sys.executable} -I\n"
        "import json, sys\n"
        "pairs = open('/proc/self/environ', encoding='utf-8').read().split('\\0')[:-1]\n"
        f"json.dump([sys.argv, dict(p.split('=', 1) for p in pairs)], open({str(told)!r}, 'w'))\n"
    )
    spy.chmod(0o755)
    changed = with_runtime(launcher, spy, folder / "spied")
    subprocess.run([shell, changed], check=True)
    argv, environment = json.loads(told.read_text())
    runtime = re.search(r"(?m)^_limpet_runtime='?(/[^'\n]*)", launcher.read_text())
    assert runtime
    return [runtime[1], *argv[1:]], environment


def measure(argv: list[str], environment: dict[str, str]) -> float:
    """Wall seconds of one start."""
    start = time.perf_counter()
    subprocess.run(
        argv,
        env=environment,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def own_part(launcher: Path, shell: str, folder: Path, rounds: int) -> float:
    """Seconds that the shell takes, with `true` for a runtime, less those of `true` alone.

    On a busy machine a start's own noise is far larger than this.
    """
    place = with_runtime(launcher, Path("/bin/true"), folder / "own part")
    session = dict(os.environ)
    pairs = [
        (measure([shell, str(place)], session), measure(["/bin/true"], session))
        for _ in range(rounds)
    ]
    return statistics.median(one - other for one, other in pairs)


def paired(ones: list[float], others: list[float]) -> tuple[float, tuple[float, float]]:
    """The median of the pairs' ratios, and the ratios between which it lies with 95 %.

    These are order statistics, by the binomial distribution's normal approximation: they assume
    nothing about the noise.
    """
    ratios = sorted(one / other for one, other in zip(ones, others, strict=True))
    middle, away = (len(ratios) - 1) / 2, 0.98 * math.sqrt(len(ratios))
    low, high = max(0, math.floor(middle - away)), min(len(ratios) - 1, math.ceil(middle + away))
    return statistics.median(ratios), (ratios[low], ratios[high])


def compare(image: Path, shell: str, program: str, pairs: int) -> dict[str, object]:
    """Interleaved starts, each round in a new order."""
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        folder = Path(name)
        launcher = wrap(image, folder / "env", program)
        session = dict(os.environ)
        own_s = own_part(launcher, shell, folder, 2 * pairs)
        argv, environment = final_command(launcher, shell, folder)
        script = folder / "script"
        script.write_text(f"exec {shlex.join(argv)}\n")
        contestants = {
            "launcher": ([shell, str(launcher)], session),
            "same command": (argv, environment),
            "same command in a script": ([shell, str(script)], environment),
            "minimal exec": ([argv[0], "--quiet", "exec", str(image), program], session),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(pairs + 2):
            for name in random.sample(list(contestants), len(contestants)):
                taken = measure(*contestants[name])
                if turn >= 2:
                    seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio, interval = paired(seconds["launcher"], seconds["same command"])
    script_ratio, _ = paired(seconds["same command in a script"], seconds["same command"])
    return {
        "shell": shell,
        "pairs": pairs,
        "median_s": {name: round(value, 4) for name, value in medians.items()},
        "ratio": round(ratio, 4),
        "ratio_95": [round(value, 4) for value in interval],
        "ratio_of_a_script": round(script_ratio, 4),
        "own_part_ms": round(own_s * 1000, 2),
        "ratio_by_own_part": round(1 + own_s / medians["same command"], 4),
        "target": TARGET,
        "reached": ratio <= TARGET,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--program", default="true")
    options = parser.parse_args()
    for shell in SHELLS:
        if shutil.which(shell):
            found = compare(options.image.absolute(), shell, options.program, options.pairs)
            print(json.dumps(found))


if __name__ == "__main__":
    main()
