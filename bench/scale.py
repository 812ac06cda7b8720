"""From counted operations to start-up times at many nodes.

    bench/scale.py count --venv FOLDER --image IMAGE --import NAME    what one node asks for
    bench/scale.py check --venv FOLDER --image IMAGE --import NAME    the model against runs here
    bench/scale.py predict [COUNTS.json] [--svg FILE] [--NAME VALUE]  a table, and a picture

The model has four terms: what a start takes with everything at hand, the client's waiting for its
own operations one after another, the metadata servers' queue, and the data. A start takes the first
and the longest of the others, because servers work while the clients wait.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from slowfs import Counted, build_slowfs, slow_view

NODES = (1, 10, 100, 1_000, 10_000)
OWN_S = 0.00015  # of an emulated operation, with no delay: measured here, 0.1 to 0.2 ms


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What one node's first start asks the file system for, and each further process on it.

    `ready_s` is the time with everything in the page cache.
    """

    metadata: int
    reads: int
    read_bytes: int
    more_metadata: int
    ready_s: float


@dataclass(frozen=True, kw_only=True)
class System:
    """A cluster and its file system.

    round_trip_s and metadata_rate: Dell's tests of a Lustre 2.7 storage system with mdtest ("Dell
        HPC Lustre Storage solution with Intel Omni-Path", figure 13): 2,000 stat operations a
        second from one thread, so 0.5 ms each; at 240 threads 500,000 stat and 27,000 create
        operations a second. Opening a file lies between the two.
    bandwidth_bytes_s: all clients together; client_bytes_s and link_bytes_s: one node's, from the
        file system and to other nodes. Assumptions: tens of servers, a 100 Gbit/s network.
    fan_out, block_bytes: what sbcast can do at most, and does unasked (its manual page).
    """

    round_trip_s: float = 0.0005
    metadata_rate: float = 100_000
    bandwidth_bytes_s: float = 50e9
    client_bytes_s: float = 2e9
    link_bytes_s: float = 5e9
    fan_out: int = 8
    block_bytes: float = 8 * 2**20
    ranks_per_node: int = 64


def start_s(counts: Counts, system: System, nodes: int, ranks: int) -> float:
    """Seconds until the last rank of all has started, everything on the shared file system."""
    waiting = system.round_trip_s * (counts.metadata + counts.reads)
    operations = counts.metadata + counts.more_metadata * (ranks - 1)
    queue = nodes * operations / system.metadata_rate
    data = max(
        counts.read_bytes / system.client_bytes_s,
        nodes * counts.read_bytes / system.bandwidth_bytes_s,
    )
    return counts.ready_s + max(waiting, queue, data)


def staged_s(counts: Counts, system: System, nodes: int, image_bytes: int) -> float:
    """The same with the image broadcast to each node's own disk first: sbcast's tree."""
    read_s = image_bytes / system.client_bytes_s
    depth = (
        math.ceil(math.log(nodes * (system.fan_out - 1) + 1, system.fan_out)) if nodes > 1 else 1
    )
    # Blocks follow each other down the tree; a node sends each one fan_out times.
    sends = min(system.fan_out, nodes)
    blocks = max(1.0, image_bytes / system.block_bytes)
    block_s = system.block_bytes / system.link_bytes_s
    return read_s + (blocks + depth - 1) * block_s * sends + counts.ready_s


# ---- what is counted and run here --------------------------------------------------------------


Start = Callable[[Path], list[str]]


def starts(venv: Path, image: Path, imported: str) -> dict[str, tuple[Path, Start]]:
    """Name → folder that is seen slowly, and the command in its slow view."""
    code = f"import {imported}"
    return {
        "environment": (venv, lambda place: [f"{place}/bin/python", "-c", code]),
        "image": (
            image.parent,
            lambda place: [
                *("apptainer", "--quiet", "exec", f"{place}/{image.name}"),
                *("python", "-c", code),
            ],
        ),
    }


def run_timed(argv: Sequence[str]) -> float:
    begun_s = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun_s


@contextlib.contextmanager
def view_of(
    folder: Path, delay_ms: float, server: Path | None = None, service_ms: float = 0
) -> Iterator[tuple[Path, Callable[[], Counted]]]:
    program = build_slowfs(Path.home() / ".cache/limpet-bench")
    with slow_view(
        program, folder, delay_ms=delay_ms, server=server, service_ms=service_ms
    ) as view:
        yield view.place, view.counted


def count(folder: Path, start: Start, ranks: int = 4) -> Counts:
    """One node's counts, and how long a start takes when nothing has to be asked for."""
    with view_of(folder, 0) as (place, counted):
        subprocess.run(start(place), check=True)
        first = counted()
        together = [subprocess.Popen(start(place)) for _ in range(ranks)]
        if any(one.wait() for one in together):
            raise RuntimeError("a start failed")
        more = counted().metadata - first.metadata
    ready_s = statistics.median(run_timed(start(folder)) for _ in range(5))
    return Counts(
        metadata=first.metadata,
        reads=first.reads,
        read_bytes=first.read_bytes,
        more_metadata=round(more / ranks),
        ready_s=round(ready_s, 3),
    )


def check_waiting(
    folder: Path, start: Start, counts: Counts, delays_ms: Sequence[float]
) -> Iterator[dict[str, float]]:
    """Cold starts at one node whose operations take a while, run and predicted."""
    for delay_ms in delays_ms:
        with view_of(folder, delay_ms) as (place, _):
            seen_s = run_timed(start(place))
        # What the emulated client itself takes for an operation: two changes of process, a timer.
        trip_s = delay_ms / 1000 + OWN_S
        system = System(round_trip_s=trip_s, metadata_rate=1e12, client_bytes_s=1e12)
        yield {"delay_ms": delay_ms, **compared(start_s(counts, system, 1, 1), seen_s)}


def check_queue(
    folder: Path, start: Start, counts: Counts, nodes: Sequence[int], service_ms: float
) -> Iterator[dict[str, float]]:
    """Cold starts at several nodes (a mount each) that share one slow metadata server."""
    server = folder.parent / ".slowfs-server"
    server.touch()
    for count in nodes:
        with contextlib.ExitStack() as stack:
            places = [
                stack.enter_context(view_of(folder, 0, server, service_ms))[0] for _ in range(count)
            ]
            begun_s = time.perf_counter()
            running = [subprocess.Popen(start(place)) for place in places]
            if any(one.wait() for one in running):
                raise RuntimeError("a start failed")
            seen_s = time.perf_counter() - begun_s
        # Here all nodes share this machine's cores, which no cluster's do.
        ready_s = counts.ready_s * max(1.0, count / (os.cpu_count() or 1))
        system = System(
            round_trip_s=OWN_S, metadata_rate=1 / (service_ms / 1000 + OWN_S), client_bytes_s=1e12
        )
        told_s = start_s(replace(counts, ready_s=ready_s), system, count, 1)
        yield {"nodes": count, "service_ms": service_ms, **compared(told_s, seen_s)}
    server.unlink()


def compared(told_s: float, seen_s: float) -> dict[str, float]:
    return {
        "predicted_s": round(told_s, 2),
        "seen_s": round(seen_s, 2),
        "ratio": round(told_s / seen_s, 2),
    }


# ---- what is told ------------------------------------------------------------------------------


def predict(counts: dict[str, Counts], system: System, image_bytes: int) -> dict[str, list[float]]:
    """Seconds by number of nodes, for each way to start."""
    ranks = system.ranks_per_node
    shared = replace(counts["image"], more_metadata=0)  # ranks of a node share its mount
    return {
        "environment": [start_s(counts["environment"], system, n, ranks) for n in NODES],
        "image": [start_s(shared, system, n, ranks) for n in NODES],
        "staged image": [staged_s(shared, system, n, image_bytes) for n in NODES],
    }


def draw(told: dict[str, list[float]], system: System, path: Path) -> None:
    """The table as a picture, both axes by powers of ten."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "limpet", "font.size": 10, "svg.fonttype": "none"}
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    styles = {
        "environment": ("#b3261e", "o"),
        "image": ("#0b57a4", "s"),
        "staged image": ("#1b6e3c", "^"),
    }
    for name, values in told.items():
        colour, marker = styles[name]
        axes.loglog(NODES, values, color=colour, marker=marker, label=name)
        axes.annotate(
            f"{values[-1]:,.0f} s",
            (NODES[-1], values[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    axes.set(
        xlabel=f"nodes, {system.ranks_per_node} ranks each", ylabel="seconds until all have started"
    )
    axes.set_xlim(0.8, NODES[-1] * 3)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("count", "check"):
        verb = verbs.add_parser(name)
        verb.add_argument("--venv", type=Path, required=True)
        verb.add_argument("--image", type=Path, required=True)
        verb.add_argument("--import", dest="imported", required=True)
        verb.add_argument("--delays-ms", type=float, nargs="*", default=[0.2, 1, 5])
    verb = verbs.add_parser("predict")
    verb.add_argument(
        "counts", type=Path, nargs="?", default=Path(__file__).with_name("scale.json")
    )
    verb.add_argument("--svg", type=Path)
    for field in fields(System):
        verb.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default))
    return parser


def main() -> None:
    options = _parser().parse_args()
    if options.verb == "predict":
        known = json.loads(options.counts.read_text())
        given = {f.name: v for f in fields(System) if (v := getattr(options, f.name)) is not None}
        system = System(**given)
        counts = {name: Counts(**one) for name, one in known["counts"].items()}
        told = predict(counts, system, known["image_bytes"])
        for name, values in told.items():
            print(f"{name:<14}" + "".join(f"{value:>12,.1f}" for value in values))
        if options.svg:
            draw(told, system, options.svg)
        return
    ways = starts(options.venv.resolve(), options.image.resolve(), options.imported)
    found = {name: count(*way) for name, way in ways.items()}
    told = {name: asdict(one) for name, one in found.items()}
    print(json.dumps({"counts": told, "image_bytes": options.image.stat().st_size}, indent=2))
    if options.verb == "check":
        for name, (folder, start) in ways.items():
            for line in check_waiting(folder, start, found[name], options.delays_ms):
                print(json.dumps({"start": name, **line}), flush=True)
            for line in check_queue(folder, start, found[name], (1, 2, 4), 1.0):
                print(json.dumps({"start": name, **line}), flush=True)


if __name__ == "__main__":
    main()
