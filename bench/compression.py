"""What levels of zstd make of an image, and of that part of it which a profile's run reads.

    python3 bench/compression.py [--rounds N] [--levels 3,6,9,…] [--folder FOLDER]

The image and the profile are those of bench/order.py. First the image is composed with what the
profile's run read compressed at each level: what a start reads, in MB (10^6 bytes, without the
image's tables), what of it are blocks of libraries, of small files that are packed together, and
of other files, and how long composing takes. `again` is with the blocks of the first time at hand;
`none` composes in the same order and compresses nothing harder. Then the whole image is written
anew in one pass. All in turn, in one process; CPU seconds are those of all its threads, times are
medians.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import BinaryIO

from limpet.actions.assemble import image_entries, open_root
from limpet.core.profile import Order, parse_order
from limpet.formats.squashfs import Hot, Kept, Source, Squashfs, compose, write_squashfs
from limpet.formats.squashfs.contents import packed_bytes
from limpet.formats.squashfs.hot import HotFile
from limpet.formats.squashfs.layout import DATA_RAW, NO_FRAGMENT
from limpet.formats.squashfs.model import SquashfsStats
from limpet.tools.pieces import SHARED
from order import build_images, common_options
from summary import render_markdown

WHOLE = ((3, 128), (9, 1024), (15, 128))  # level, KiB of a block
KINDS = ("libraries", "small files", "others")


@dataclass(frozen=True, kw_only=True)
class Took:
    """What something took."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The image in its usual order, and the profile's."""

    image: Squashfs
    order: Order
    folder: Path

    def compose(self, out: BinaryIO, hot: Hot | None = None) -> SquashfsStats:
        """As a build does it, but for the module archive."""
        return compose(out, [Source(self.image)], order=self.order.files, hot=hot)

    def timed(self, write: Callable[[BinaryIO], SquashfsStats]) -> tuple[Took, SquashfsStats]:
        """What it takes to write one image, which is dropped."""
        with tempfile.TemporaryFile(dir=self.folder) as out:
            begun_s, used_s = time.perf_counter(), time.process_time()
            stats = write(out)
            wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - used_s
        return Took(wall_s=wall_s, cpu_s=cpu_s), stats


def main() -> None:
    """Measure and show."""
    parser = common_options(__doc__, rounds=3)
    parser.add_argument("--levels", default="3,6,9,12,15,19", help="with commas between")
    parser.add_argument("--only", choices=("profile", "whole"), help="one of the two tables")
    options = parser.parse_args()
    levels = [int(level) for level in options.levels.split(",")]
    images = build_images(options)
    order = read_order(options.folder / "pylock.order")
    with (images / "usual.sif").open("rb") as file:
        bench = Bench(image=open_root(file), order=order, folder=options.folder)
        if options.only != "whole":
            print(render_markdown(measure_profile(bench, levels, options.rounds)), flush=True)
        if options.only != "profile":
            print(render_markdown(measure_whole(bench, options.rounds)))


def read_order(path: Path) -> Order:
    """An order that was kept, whatever it was made for."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    key = text.split("\n")[1].removeprefix("# for ")
    order = parse_order(text, key)
    assert order, f"{path} is of another limpet: remove it, and profiled.sif"
    return order


# ---- what a profile's run read -----------------------------------------------------------------


@dataclass(kw_only=True)
class Level:
    """What was found of one level: times, and bytes that a start reads, by kind."""

    first: list[Took] = field(default_factory=list)
    again: list[Took] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes.values())


def measure_profile(bench: Bench, levels: list[int], rounds: int) -> list[list[str]]:
    """A line for each level."""
    plain: list[Took] = []
    found = {level: Level() for level in levels}
    bench.timed(bench.compose)  # which reads the tables
    for _ in range(rounds):
        plain.append(bench.timed(bench.compose)[0])
        for level, one in found.items():
            measure_level(bench, level, one)
    table = [["zstd level", "MB", f"× level {levels[0]}", *KINDS, "CPU s", "s", "again, s"]]
    table.append(["none", *[""] * (2 + len(KINDS)), *middle(plain), ""])
    usual_bytes = found[levels[0]].size_bytes
    for level, one in found.items():
        sizes = [one.size_bytes, *(one.sizes[kind] for kind in KINDS)]
        total, *parts = (f"{size_bytes / 1e6:.1f}" for size_bytes in sizes)
        ratio = f"{one.size_bytes / usual_bytes:.2f}"
        times = [*middle(one.first), middle(one.again)[1]]
        table.append([str(level), total, ratio, *parts, *times])
    return table


def measure_level(bench: Bench, level: int, found: Level) -> None:
    """Compose with nothing kept, and with what that has kept."""
    hot = Hot(read=bench.order.read, level=level, kept=Kept())
    found.first.append(bench.timed(partial(bench.compose, hot=hot))[0])
    hot = Hot(read=bench.order.read, level=level, kept=Kept(known=hot.kept.used))
    found.again.append(bench.timed(partial(bench.compose, hot=hot))[0])
    found.sizes = found.sizes or sizes_by_kind(bench, hot)


def middle(some: list[Took]) -> list[str]:
    """The medians: CPU seconds, seconds."""
    return [f"{median(one.cpu_s for one in some):.1f}", f"{median(one.wall_s for one in some):.1f}"]


def sizes_by_kind(bench: Bench, hot: Hot) -> dict[str, int]:
    """Bytes that a start reads of an image that is composed so."""
    with tempfile.TemporaryFile(dir=bench.folder) as out:
        bench.compose(out, hot)
        return read_bytes(Squashfs(out), bench.order)


def read_bytes(image: Squashfs, order: Order) -> dict[str, int]:
    """Of the files of an order, the blocks that were read, each once."""
    found = dict.fromkeys(KINDS, 0)
    fragments, seen = set(), set()
    for path in order.files:
        node = image.find(path, follow=True)
        if not (node and node.is_file):
            continue
        if node.fragment != NO_FRAGMENT:
            fragments.add(image.fragment_at(node.fragment))
        if node.blocks and node.start not in seen:
            seen.add(node.start)
            extent = image, node.start, node.start + packed_bytes(node.blocks)
            blocks = HotFile(node, order.read.get(path), extent).places()
            kind = "libraries" if SHARED.search(path) else "others"
            found[kind] += sum(size & ~DATA_RAW for _, size, was_read in blocks if was_read)
    found["small files"] = sum(size & ~DATA_RAW for _, size in fragments)
    return found


# ---- the whole image -----------------------------------------------------------------------------


def measure_whole(bench: Bench, rounds: int) -> list[list[str]]:
    """A line for each way of writing it."""
    sizes: dict[tuple[int, int], int] = {}
    took: dict[tuple[int, int], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for way in WHOLE:
            one, stats = bench.timed(partial(rewrite, bench.image, way))
            took[way].append(one.cpu_s)
            sizes[way] = stats.size_bytes
    usual = WHOLE[0]
    table = [["zstd level, block", "MB", "× usual", "CPU s", "× usual"]]
    for way in WHOLE:
        cpu_s, ratio = median(took[way]), median(took[way]) / median(took[usual])
        size = [f"{sizes[way] / 1e6:.1f}", f"{sizes[way] / sizes[usual]:.2f}"]
        table.append([f"{way[0]}, {way[1]} KiB", *size, f"{cpu_s:.1f}", f"{ratio:.1f}"])
    return table


def rewrite(image: Squashfs, way: tuple[int, int], out: BinaryIO) -> SquashfsStats:
    """All files of an image into a new one."""
    level, block_kib = way
    entries = (entry for entry, _ in image_entries(image, {}))
    return write_squashfs(out, entries, level=level, block_size=block_kib << 10)


if __name__ == "__main__":
    main()
