"""What keeping an image mounted spares: starts in a kept image against starts that mount it.

    bench/keep.py IMAGE [--rounds 15] [--import NAME] [--processes 1 8 32]

Starts are taken in turn, so that what else the machine does meets all alike: those of the runtime
alone, of `limpet run` without and with `--keep`, and of a launcher without and with `LIMPET_KEEP`.
For several processes at once, a program that imports and waits is started as often as asked, and
what serves the image is counted: FUSE processes, and the memory (proportional set size) of these
and of the runtime's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
TARGET = 0.6
SERVERS = ("squashfuse", "fuse-overlayfs", "Apptainer", "appinit", "starter")


def limpet(*words: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "limpet", *map(str, words)]


def environment() -> dict[str, str]:
    # An installed limpet has its byte code; this tree may not be this user's to write to.
    code = Path.home() / ".cache/limpet-bench/pyc"
    return {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONPYCACHEPREFIX": str(code)}


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


def wrap(image: Path, folder: Path, program: str) -> Path:
    """A launcher of the program."""
    folders = ("--folder", "/usr/bin", "--folder", "/opt/env/bin")
    said("wrap", image, folder, *folders, "--only", program)
    return folder / "bin" / program


def seconds(argv: list[str], **more: str) -> float:
    env = environment() | more
    begun_s = time.perf_counter()
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun_s


def compare_starts(image: Path, program: list[str], rounds: int, folder: Path) -> dict[str, object]:
    said("run", "--keep", image, "true")
    name = next(
        one["name"]
        for one in json.loads(said("kept", "list", "--json"))["kept"]
        if one["image"] == str(image)
    )
    cold = planned(image, program)
    launcher = [str(wrap(image, folder, program[0])), *program[1:]]
    contestants = {
        "runtime, mounts": cold,
        "runtime, kept": in_instance(cold, name, image),
        "limpet run": limpet("run", image, *program),
        "limpet run --keep": limpet("run", "--keep", image, *program),
        "launcher": launcher,
        "launcher, LIMPET_KEEP": launcher,
    }
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, argv in contestants.items():
            one = seconds(argv, LIMPET_KEEP="15m" if name.endswith("LIMPET_KEEP") else "")
            if turn:
                taken[name].append(one)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    ratio = medians["runtime, kept"] / medians["runtime, mounts"]
    by_launcher = medians["launcher, LIMPET_KEEP"] / medians["launcher"]
    return {
        "program": shlex.join(program),
        "median_s": {name: round(value, 3) for name, value in medians.items()},
        "ratio": round(ratio, 3),
        "ratio of limpet run": round(medians["limpet run --keep"] / medians["limpet run"], 3),
        "ratio of launchers": round(by_launcher, 3),
        "target": TARGET,
        "reached": max(ratio, by_launcher) <= TARGET,
    }


def servers(image: Path, starts: list[int]) -> tuple[int, int]:
    """FUSE processes of these starts and of what keeps the image, and kilobytes of memory of all
    that serve it: others on this machine may run containers, too."""
    words: dict[int, str] = {}
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(stat[1])
            words[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
    kept = [one["name"] for one in json.loads(said("kept", "list", "--json"))["kept"]]
    marks = (str(image), *kept)
    ours = {pid for pid, said_ in words.items() if any(mark in said_ for mark in marks)}
    ours |= set(starts)
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    mounts = kilobytes = 0
    for pid in ours & words.keys():
        if any(name in words[pid] for name in SERVERS):
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                kilobytes += int(rollup.partition("\nPss:")[2].split()[0])
                mounts += "squashfuse" in words[pid]
    return mounts, kilobytes


def compare_crowds(image: Path, code: str, count: int) -> dict[str, object]:
    """`count` programs at once, each with a mount of its own and all in one."""
    found: dict[str, object] = {"processes": count}
    program = ["python", "-c", f"{code}; print(flush=True); input()"]
    for name, words in (("mounted", ("run",)), ("kept", ("run", "--keep"))):
        if name == "kept":
            said("run", "--keep", image, "true")
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
        mounts, kilobytes = servers(image, [one.pid for one in running])
        for one in running:
            one.communicate(b"\n")
        found[name] = {
            "wall_s": round(wall_s, 2),
            "fuse_processes": mounts,
            "memory_mib": round(kilobytes / 1024),
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
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        for program in (["true"], ["python", "-c", code]):
            found = compare_starts(image, program, options.rounds, Path(name, program[0]))
            print(json.dumps(found), flush=True)
    said("kept", "end")
    for count in options.processes:
        print(json.dumps(compare_crowds(image, code, count)), flush=True)


if __name__ == "__main__":
    main()
