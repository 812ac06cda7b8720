"""What the order of files costs a build: limpet's default and a profile against the usual order.

    python3 bench/order_cost.py [--rounds N] [--folder FOLDER] [--base REF] [--limpet COMMAND]

Builds the five scientific packages of bench/build.py in the usual order (`--no-profile`), in
limpet's default one, and with `--profile auto`, in turn, each in three situations:

- first: downloads and the base are at hand, and the lock is; pieces and orders are made anew.
- again: the same build once more, with all that the first one has kept.
- rebuild: with one small package more, which is locked anew.

A round before the first one fetches what is needed. CPU seconds are those of all processes.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from build import ADDED, remove_tree, requirements_of, say
from contenders import Order, Shop, build_by_limpet
from measure import Cost, adopt_orphans, run_measured
from order import common_options
from summary import render_markdown

WAYS = {"usual": ("--no-profile",), "default": (), "profile": ("--profile", "auto")}
SITUATIONS = ("first", "again", "rebuild")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where it is built, and with what; downloads and pieces are kept in one place for all ways."""

    folder: Path
    shop: Shop

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def order(self, way: str, situation: str) -> Order:
        """A folder of its own for each way; for a rebuild one without a lock."""
        rebuild = situation == "rebuild"
        return Order(
            requirements=requirements_of("science"),
            added=(ADDED,) if rebuild else (),
            folder=self.folder / way / ("rebuild" if rebuild else "first"),
            wheels=self.folder,
            warm=True,
        )

    def build(self, way: str, situation: str) -> tuple[Cost, int]:
        """What a build took, and the bytes of its image."""
        order = self.order(way, situation)
        self.clear(order, situation)
        order.lay_out()
        command = build_by_limpet(self.shop, order)
        caches = {"LIMPET_CACHE_DIR": str(self.cache), "UV_CACHE_DIR": str(self.cache / "uv")}
        command = replace(
            command, argv=(*command.argv, *WAYS[way]), env={**command.env, **caches}, watched=None
        )
        log = self.folder / "logs" / f"{way} {situation}.log"
        cost = run_measured(command, log)
        if not cost.ok:
            sys.exit(f"The build failed:\n{log.read_text()[-1500:]}")
        return cost, order.image.stat().st_size

    def clear(self, order: Order, situation: str) -> None:
        """Remove what is not to be at hand."""
        if situation == "first":
            remove_tree(self.cache / "pieces")
            remove_tree(self.cache / "orders")
            (order.folder / "out/pylock.order").unlink(missing_ok=True)
        if situation == "rebuild":
            remove_tree(order.folder / "out")


def main() -> None:
    """Measure and show."""
    parser = common_options(__doc__ or "", rounds=4)
    parser.set_defaults(folder=Path.home() / ".cache/limpet-bench/order-cost")
    options = parser.parse_args()
    adopt_orphans()
    shop = Shop(
        base=options.base,
        base_sif=Path(),
        cotainr_python=None,
        limpet=tuple(options.limpet),
        uv=None,
    )
    bench = Bench(folder=options.folder.resolve(), shop=shop)
    found: dict[tuple[str, str], list[tuple[Cost, int]]] = defaultdict(list)
    for number in range(options.rounds + 1):
        for way in WAYS:
            for situation in SITUATIONS:
                one = bench.build(way, situation)
                if number:
                    found[situation, way].append(one)
        say(f"round {number} of {options.rounds}: done")
    print(render_markdown(rows(found)))


def rows(found: dict[tuple[str, str], list[tuple[Cost, int]]]) -> list[list[str]]:
    """A line for each situation and order; the ratios are to the usual order."""
    usual = next(iter(WAYS))
    table = [["situation", "order", "s", f"× {usual}", "CPU s", "image MB", f"× {usual}"]]
    for situation in SITUATIONS:
        usual_s, _, usual_mb = middle(found[situation, usual])
        for way in WAYS:
            wall_s, cpu_s, size_mb = middle(found[situation, way])
            times = [f"{wall_s:.2f}", f"{wall_s / usual_s:.2f}", f"{cpu_s:.1f}"]
            table.append([situation, way, *times, f"{size_mb:.1f}", f"{size_mb / usual_mb:.3f}"])
    return table


def middle(samples: list[tuple[Cost, int]]) -> tuple[float, float, float]:
    """The medians of seconds, CPU seconds and megabytes."""
    return (
        median(cost.wall_s for cost, _ in samples),
        median(cost.cpu_s for cost, _ in samples),
        median(size_bytes for _, size_bytes in samples) / 1e6,
    )


if __name__ == "__main__":
    main()
