"""What `limpet run --keep` spares: starts in a kept image against starts that mount it.

    bench/keep.py IMAGE [--rounds 15] [--import NAME] [--processes 1 8 32]

Starts are taken in turn, so that what else the machine does meets all alike. For several processes
at once, a program that imports and waits is started as often as asked, and what serves the image
is counted: FUSE processes, and the memory (proportional set size) of these and of the runtime's.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
TARGET = 0.6
SERVERS = ("squashfuse", "fuse-overlayfs", "Apptainer", "appinit", "starter")


def limpet(*words: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "limpet", *map(str, words)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


def said(*words: str | Path) -> str:
    done = subprocess.run(
        limpet(*words), env=environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def planned(image: Path, program: list[str]) -> list[str]:
    """The command that `limpet run` becomes, as a line for the shell."""
    return ["sh", "-c", said("run", "--dry-run", image, *program)]


def in_instance(cold: list[str], name: str, image: Path) -> list[str]:
    """The same with the instance in the image's place: what is mounted is mounted there."""
    words = shlex.split(cold[2].splitlines()[-1])
    at = words.index("exec")
    inside = words[words.index(str(image)) + 1 :]
    runtime = [*words[:at], "exec", "--no-eval"]
    lines = [*cold[2].splitlines()[:-1], shlex.join([*runtime, f"instance://{name}", *inside])]
    return ["sh", "-c", "\n".join(lines)]


def seconds(argv: list[str]) -> float:
    begun_s = time.perf_counter()
    subprocess.run(argv, env=environment(), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun_s


def compare_starts(image: Path, program: list[str], rounds: int) -> dict[str, object]:
    said("run", "--keep", image, "true")
    name = next(
        one["name"]
        for one in json.loads(said("kept", "list", "--json"))["kept"]
        if one["image"] == str(image)
    )
    cold = planned(image, program)
    contestants = {
        "runtime, mounts": cold,
        "runtime, kept": in_instance(cold, name, image),
        "limpet run": limpet("run", image, *program),
        "limpet run --keep": limpet("run", "--keep", image, *program),
    }
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, argv in contestants.items():
            one = seconds(argv)
            if turn:
                taken[name].append(one)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    ratio = medians["runtime, kept"] / medians["runtime, mounts"]
    return {
        "program": shlex.join(program),
        "median_s": {name: round(value, 3) for name, value in medians.items()},
        "ratio": round(ratio, 3),
        "ratio of limpet run": round(medians["limpet run --keep"] / medians["limpet run"], 3),
        "target": TARGET,
        "reached": ratio <= TARGET,
    }


def servers() -> tuple[int, int]:
    """FUSE processes of this user, and kilobytes of memory of all that serve images."""
    mounts = kilobytes = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
            if not any(name in words for name in SERVERS) or folder.stat().st_uid != os.getuid():
                continue
            rollup = (folder / "smaps_rollup").read_text()
        except OSError:
            continue
        mounts += "squashfuse" in words
        kilobytes += int(rollup.partition("\nPss:")[2].split()[0])
    return mounts, kilobytes


def compare_crowds(image: Path, code: str, count: int) -> dict[str, object]:
    """`count` programs at once, each with a mount of its own and all in one."""
    found: dict[str, object] = {"processes": count}
    program = ["python", "-c", f"{code}; print(flush=True); input()"]
    for name, words in (("mounted", ("run",)), ("kept", ("run", "--keep"))):
        if name == "kept":
            said("run", "--keep", image, "true")
        idle = servers() if name == "mounted" else (0, 0)
        begun_s = time.perf_counter()
        running = [
            subprocess.Popen(
                limpet(*words, image, *program),
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for _ in range(count)
        ]
        for one in running:
            assert one.stdout
            one.stdout.readline()
        wall_s = time.perf_counter() - begun_s
        mounts, kilobytes = servers()
        for one in running:
            one.communicate(b"\n")
        found[name] = {
            "wall_s": round(wall_s, 2),
            "fuse_processes": mounts - idle[0],
            "memory_mib": round((kilobytes - idle[1]) / 1024),
        }
        said("kept", "end")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--import", dest="imported", default="json")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 8, 32])
    options = parser.parse_args()
    image = options.image.resolve()
    code = f"import {options.imported}"
    said("kept", "end")
    for program in (["true"], ["python", "-c", code]):
        print(json.dumps(compare_starts(image, program, options.rounds)), flush=True)
    said("kept", "end")
    for count in options.processes:
        print(json.dumps(compare_crowds(image, code, count)), flush=True)


if __name__ == "__main__":
    main()
