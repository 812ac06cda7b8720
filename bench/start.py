"""How long Python takes to start and import, through limpet's images and other ways.

    python3 bench/start.py [--quick] [--rounds 7] [--delays 0 0.2 1 5] [--minutes 11]

Run as a plain user. All contenders (bench/start_peers.py) lie in one folder and are started in
turn, in every round in another order. Delay 0 is the local disk: *cold*, after the contents of what
is started were dropped from the page cache (its names and attributes stay there: only root can drop
these), and *warm*, right afterwards. Other delays are milliseconds that each operation takes on an
emulated slow file system (bench/slowfs.c), mounted anew for each start; what reaches it is counted.
With --again the longest delay is measured a second time in the same mount. `kept` has no cold start
of its own: its instance was there.

The peers are made once and kept below --work (--make does only that); limpet's image is made anew.
The first and the last delay come first. What is between them is measured --rounds times, too, but
no new round begins after --minutes. From 5 ms on a virtual environment waits for nine tenths of its
time: its starts run all at once, each in a mount of its own, before the rounds. Exit 0 whatever the
outcome.
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
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from build import RECIPES, say
from contenders import environment, this_trees_limpet
from measure import adopt_orphans
from slowfs import Counted, build_slowfs, slow_view
from start_peers import Peer, make_peers, peers

HERE = Path(__file__).resolve().parent
COLD_TARGET, VENV_TARGET, WARM_TARGET = 0.65, 0.1, 1.0
OURS = ("limpet", "launcher", "kept")
NAMES = [one.name for one in peers(())]
QUICK_IMPORT = "numpy, scipy.linalg, pandas"
SLOW_MS = 5.0  # from here on a venv is started less often


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One start."""

    peer: str
    delay_ms: float
    state: str
    wall_s: float
    metadata: int = 0
    reads: int = 0
    read_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is started, and with what."""

    shared: Path
    code: str
    limpet: tuple[str, ...]
    env: dict[str, str]
    slowfs: Path

    def run(self, peer: Peer, place: Path) -> float:
        """Seconds of one start; a failure ends the bench."""
        argv = (*peer.command(place), "-c", self.code)
        begun_s = time.perf_counter()
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True)
        taken_s = time.perf_counter() - begun_s
        if done.returncode:
            raise SystemExit(f"{peer.name} does not start: {shlex.join(argv)}\n{done.stderr}")
        return taken_s

    def end_kept(self) -> None:
        """Let go of what is kept mounted."""
        subprocess.run((*self.limpet, "kept", "end"), env=self.env, capture_output=True)


def drop(place: Path) -> None:
    """Have the kernel forget the contents of a file, or of all files in a folder."""
    paths = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def files_of(peer: Peer, shared: Path) -> Path:
    """What lies on the file system for a peer."""
    return {
        "venv": shared / "venv",
        "tykky": shared / "tykky",
    }.get(peer.name, shared / ("limpet.sif" if peer.name in OURS else f"{peer.name}.sif"))


def start_local(bench: Bench, peer: Peer) -> list[Sample]:
    """Cold, as far as a user can make it so, and warm."""
    samples = []
    if peer.kept:
        bench.run(peer, bench.shared)
    else:
        drop(files_of(peer, bench.shared))
        taken_s = bench.run(peer, bench.shared)
        samples = [Sample(peer=peer.name, delay_ms=0, state="cold", wall_s=taken_s)]
    taken_s = bench.run(peer, bench.shared)
    return [*samples, Sample(peer=peer.name, delay_ms=0, state="warm", wall_s=taken_s)]


def start_slow(bench: Bench, peer: Peer, delay_ms: float, *, again: bool) -> list[Sample]:
    """In a new mount of the slow file system, once or twice."""
    samples = []
    with slow_view(bench.slowfs, bench.shared, delay_ms=delay_ms) as view:
        try:
            before = view.counted()
            for state in ("cold", "again") if again else ("cold",):
                taken_s = bench.run(peer, view.place)
                after = view.counted()
                one = Sample(peer=peer.name, delay_ms=delay_ms, state=state, wall_s=taken_s)
                samples.append(with_counts(one, before, after))
                before = after
        finally:
            if peer.kept:
                bench.end_kept()
    return samples[1:] if peer.kept else samples


def with_counts(sample: Sample, before: Counted, after: Counted) -> Sample:
    """The sample with what reached the file system between the two looks."""
    return replace(
        sample,
        metadata=after.metadata - before.metadata,
        reads=after.reads - before.reads,
        read_bytes=after.read_bytes - before.read_bytes,
    )


def start_at_once(bench: Bench, peer: Peer, delay_ms: float, rounds: int) -> list[Sample]:
    """Starts that mostly wait, side by side."""
    with ThreadPoolExecutor(rounds) as pool:
        found = pool.map(lambda _: start_slow(bench, peer, delay_ms, again=False), range(rounds))
        return [sample for samples in found for sample in samples]


def measure(bench: Bench, delays: list[float], options: argparse.Namespace) -> list[Sample]:
    """All in turn; the first local round warms what is warm for all, and does not count."""
    members = [one for one in peers(bench.limpet) if one.name in options.only]
    begun_s = time.perf_counter()
    samples: list[Sample] = []
    for peer in members:
        bench.run(peer, bench.shared)
    bench.end_kept()
    waiting = [one for one in members if one.name == "venv"]
    for delay_ms in (one for one in delays if one >= SLOW_MS):
        for peer in waiting:
            samples += start_at_once(bench, peer, delay_ms, options.rounds)
            say(f"{peer.name}, {delay_ms:g} ms: done")
    ends = sorted({delays[0], delays[-1]})
    for part in (ends, [one for one in delays if one not in ends]):
        for number in range(options.rounds if part else 0):
            if part is not ends and time.perf_counter() - begun_s > 60 * options.minutes:
                break
            turn = number % len(members)
            for delay_ms in part:
                for peer in members[turn:] + members[:turn]:
                    if not (peer in waiting and delay_ms >= SLOW_MS):
                        samples += start_once(bench, peer, delay_ms, options)
                bench.end_kept()
                say(f"round {number + 1} of {options.rounds}, {delay_ms:g} ms: done")
    return samples


def start_once(
    bench: Bench, peer: Peer, delay_ms: float, options: argparse.Namespace
) -> list[Sample]:
    """One contender's turn in a round."""
    if not delay_ms:
        return start_local(bench, peer)
    again = options.again and delay_ms == max(options.delays)
    return start_slow(bench, peer, delay_ms, again=again) if again or not peer.kept else []


# ---- results -------------------------------------------------------------------------------------


def medians(samples: list[Sample]) -> dict[tuple[float, str], dict[str, float]]:
    """(delay, state) → peer → median seconds."""
    found: dict[tuple[float, str], dict[str, list[float]]] = {}
    for one in samples:
        cell = found.setdefault((one.delay_ms, one.state), {})
        cell.setdefault(one.peer, []).append(one.wall_s)
    return {
        key: {peer: statistics.median(values) for peer, values in cell.items()}
        for key, cell in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] != "cold"))
    }


def judge(found: dict[tuple[float, str], dict[str, float]]) -> list[dict[str, object]]:
    """What was to be reached: limpet's start, against the best peer and the venv."""
    verdicts: list[dict[str, object]] = []

    def tell(what: str, ours: float, other: float, target: float) -> None:
        ratio = round(ours / other, 3)
        verdicts.append(
            {"what": what, "ratio": ratio, "target": target, "reached": ratio <= target}
        )

    for (delay_ms, state), cell in found.items():
        rivals = [value for name, value in cell.items() if name not in (*OURS, "venv")]
        if state == "cold" and delay_ms >= SLOW_MS and rivals:
            for name in (one for one in ("limpet", "launcher") if one in cell):
                tell(
                    f"{name}, {delay_ms:g} ms, cold ÷ best image",
                    cell[name],
                    min(rivals),
                    COLD_TARGET,
                )
                if name in cell and "venv" in cell:
                    tell(
                        f"{name}, {delay_ms:g} ms, cold ÷ venv",
                        cell[name],
                        cell["venv"],
                        VENV_TARGET,
                    )
        if state == "warm" and rivals:
            for name in (one for one in OURS if one in cell):
                tell(f"{name}, local, warm ÷ best image", cell[name], min(rivals), WARM_TARGET)
    return verdicts


def render(samples: list[Sample], verdicts: list[dict[str, object]]) -> str:
    """Markdown."""
    found = medians(samples)
    names = list(dict.fromkeys(one.peer for one in samples))
    heads = [f"{delay:g} ms {state}" if delay else f"local {state}" for delay, state in found]
    rows = [["median s", *heads]]
    for name in names:
        row = [name]
        for key, cell in found.items():
            taken = [s.wall_s for s in samples if s.peer == name and (s.delay_ms, s.state) == key]
            row.append(
                f"{cell[name]:.2f} ({min(taken):.2f}–{max(taken):.2f}, {len(taken)})"
                if taken
                else "–"
            )
        rows.append(row)
    counts = [["cold, per start", "metadata", "reads", "MB"]]
    for name in names:
        of = [s for s in samples if s.peer == name and s.delay_ms and s.state == "cold"]
        if of:
            middle = [
                statistics.median(getattr(s, field) for s in of)
                for field in ("metadata", "reads", "read_bytes")
            ]
            counts.append([name, f"{middle[0]:.0f}", f"{middle[1]:.0f}", f"{middle[2] / 1e6:.1f}"])
    judged = [["to reach", "ratio", "at most", ""]]
    judged += [
        [str(v["what"]), str(v["ratio"]), str(v["target"]), "yes" if v["reached"] else "no"]
        for v in verdicts
    ]
    return "\n\n".join(table(part) for part in (rows, counts, judged) if len(part) > 1) + "\n"


def table(rows: list[list[str]]) -> str:
    """A Markdown table."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
    return "\n".join(lines)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=7, help="starts of each (7)")
    add("--delays", type=float, nargs="+", default=[0, 0.2, 1, 5], help="in ms; 0 is local")
    add("--recipe", choices=[*RECIPES], default="science")
    add("--minutes", type=float, default=11, help="after these no round of other delays begins")
    add("--only", nargs="+", choices=NAMES, default=NAMES, help="these contenders")
    add("--again", action="store_true", help="the longest delay also in a mount that was used")
    add("--make", action="store_true", help="make the contenders and measure nothing")
    add("--import", dest="imports", metavar="NAMES", help="instead of all packages of the recipe")
    add("--quick", action="store_true", help="2 rounds, 0 and 5 ms, fewer imports")
    add("--work", type=Path, default=HERE / "work", help="where the peers are kept (bench/work)")
    add("--out", type=Path, default=HERE / "out", help="where the results go (bench/out)")
    add("--base-tar", type=Path, help="a root file system with Python and pip to take as base")
    own = this_trees_limpet()
    add("--limpet", type=shlex.split, default=own, help="limpet's command, instead of this tree's")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.delays = 2, [0, 5]
        options.imports = options.imports or QUICK_IMPORT
    options.imports = options.imports or RECIPES[options.recipe]
    return options


def main() -> None:
    """Make what is missing, measure, tell."""
    options = parse_options()
    if os.getuid() == 0:
        sys.exit("Run this as a plain user: that is what users are, and root cannot run images.")
    options.out.mkdir(parents=True, exist_ok=True)
    if not os.access(options.out, os.W_OK):
        sys.exit(f"{options.out} cannot be written: name another folder with --out.")
    adopt_orphans()
    folder = options.work.resolve() / "starts" / options.recipe
    versions = make_peers(folder, options.recipe, options)
    if options.make:
        return
    versions["load at start"] = " ".join(f"{load:.1f}" for load in os.getloadavg())
    bench = Bench(
        shared=folder / "shared",
        code=f"import {options.imports}",
        limpet=tuple(options.limpet),
        env=environment(folder)
        | {"LIMPET_STATE_DIR": str(folder / "state"), "MPLCONFIGDIR": str(folder / "matplotlib")},
        slowfs=build_slowfs(folder),
    )
    begun_s = time.perf_counter()
    samples = measure(bench, sorted(set(options.delays)), options)
    versions["load at end"] = " ".join(f"{load:.1f}" for load in os.getloadavg())
    versions["measured for"] = f"{time.perf_counter() - begun_s:.0f} s"
    verdicts = judge(medians(samples))
    told = render(samples, verdicts)
    told = table([["what", "version"], *([k, v] for k, v in versions.items())]) + "\n\n" + told
    print(told)
    stem = options.out / f"start-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    data = {"versions": versions, "verdicts": verdicts, "samples": [asdict(s) for s in samples]}
    stem.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    stem.with_suffix(".md").write_text(told)
    print(f"Written: {stem}.json and .md")


if __name__ == "__main__":
    main()
