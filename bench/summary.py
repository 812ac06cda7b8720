"""From samples to medians, ratios, targets, and how they are shown. Nothing is run here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal

BUILD_HEADER = (
    *("recipe", "situation", "contender", "runs", "wall s", "least–most", "× limpet"),
    *("CPU s", "disk MB", "image MB"),
)
GROUPS = {"default": "default peers", "tuned": "tuned peers"}
# (situation, group of peers, limpet is at least this many times faster)
SPEED_TARGETS = (
    ("cold", "tuned", 2),
    ("cold", "default", 5),
    ("warm", "tuned", 4),
    ("warm", "default", 10),
    ("rebuild", "tuned", 10),
    ("rebuild", "default", 10),
)


@dataclass(frozen=True, kw_only=True)
class BuildSample:
    """One measured build."""

    recipe: str
    situation: str
    contender: str
    group: str
    ok: bool
    wall_s: float
    cpu_s: float
    disk_bytes: int
    image_bytes: int


@dataclass(frozen=True, kw_only=True)
class StartSample:
    """One measured start."""

    way: str
    what: str
    ok: bool
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class BuildRow:
    """The medians of one contender in one situation."""

    recipe: str
    situation: str
    contender: str
    group: str
    runs: int
    failed: int
    wall_s: float
    wall_least_s: float
    wall_most_s: float
    cpu_s: float
    disk_mb: float
    image_mb: float


@dataclass(frozen=True, kw_only=True)
class StartRow:
    """The medians of one way into an image."""

    way: str
    runs: int
    true_s: float
    import_s: float
    import_least_s: float
    import_most_s: float

    @property
    def ratio(self) -> float:
        """The import as a multiple of starting nothing."""
        return self.import_s / self.true_s


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A target, what was reached, and whether that is enough."""

    target: str
    reached: str
    outcome: Literal["met", "MISSED", "within the noise", "not measured"]


def summarise_builds(samples: Sequence[BuildSample]) -> list[BuildRow]:
    """One row for each recipe, situation and contender, in the order in which they came."""
    keys = dict.fromkeys((s.recipe, s.situation, s.contender, s.group) for s in samples)
    rows = []
    for key in keys:
        mine = [s for s in samples if (s.recipe, s.situation, s.contender, s.group) == key]
        good = [s for s in mine if s.ok]
        walls = [s.wall_s for s in good] or [float("nan")]
        rows.append(
            BuildRow(
                recipe=key[0],
                situation=key[1],
                contender=key[2],
                group=key[3],
                runs=len(good),
                failed=len(mine) - len(good),
                wall_s=median(walls),
                wall_least_s=min(walls),
                wall_most_s=max(walls),
                cpu_s=median([s.cpu_s for s in good] or [float("nan")]),
                disk_mb=median([s.disk_bytes / 1e6 for s in good] or [float("nan")]),
                image_mb=median([s.image_bytes / 1e6 for s in good] or [float("nan")]),
            )
        )
    return rows


def summarise_starts(samples: Sequence[StartSample]) -> list[StartRow]:
    """One row for each way that worked."""
    rows = []
    for way in dict.fromkeys(s.way for s in samples):
        mine = [s for s in samples if s.way == way and s.ok]
        empty = [s.wall_s for s in mine if s.what == "true"]
        imports = [s.wall_s for s in mine if s.what == "import"]
        if empty and imports:
            rows.append(
                StartRow(
                    way=way,
                    runs=len(imports),
                    true_s=median(empty),
                    import_s=median(imports),
                    import_least_s=min(imports),
                    import_most_s=max(imports),
                )
            )
    return rows


def judge(builds: Sequence[BuildRow], starts: Sequence[StartRow]) -> list[Verdict]:
    """Every target against the rows."""
    verdicts = []
    for recipe in dict.fromkeys(row.recipe for row in builds):
        mine = [row for row in builds if row.recipe == recipe and row.runs]
        for situation, group, least in SPEED_TARGETS:
            if any(row.situation == situation for row in mine):
                verdicts.append(_judge_speed(mine, recipe, situation, group, least))
        verdicts.append(_judge_size(mine, recipe))
    if starts:
        verdicts.append(_judge_start(starts))
    return verdicts


def _judge_speed(
    rows: Sequence[BuildRow], recipe: str, situation: str, group: str, least: float
) -> Verdict:
    target = f"{recipe}, {situation}: at least {least}x faster than the {GROUPS[group]}"
    here = [row for row in rows if row.situation == situation]
    own = [row for row in here if row.group == "limpet"]
    peers = sorted((row for row in here if row.group == group), key=lambda row: row.wall_s)
    if not own or not peers:
        return Verdict(target=target, reached="", outcome="not measured")
    ratio = peers[0].wall_s / own[0].wall_s
    reached = f"{ratio:.1f}x (the fastest is {peers[0].contender})"
    return Verdict(target=target, reached=reached, outcome=_outcome(ratio >= least))


def _judge_size(rows: Sequence[BuildRow], recipe: str) -> Verdict:
    target = f"{recipe}: image no larger than the tuned peers'"
    first = [row for row in rows if row.situation == rows[0].situation]
    own = [row.image_mb for row in first if row.group == "limpet"]
    peers = [row.image_mb for row in first if row.group == "tuned"]
    if not own or not peers:
        return Verdict(target=target, reached="", outcome="not measured")
    reached = f"{own[0]:.1f} MB against {min(peers):.1f} MB"
    return Verdict(target=target, reached=reached, outcome=_outcome(own[0] <= min(peers)))


def _outcome(met: bool) -> Literal["met", "MISSED"]:
    return "met" if met else "MISSED"


def _judge_start(starts: Sequence[StartRow]) -> Verdict:
    target = "start of `import astropy` no slower than through the fastest peer's image"
    own = next((row for row in starts if row.way == "limpet"), None)
    peers = sorted(
        (row for row in starts if not row.way.startswith("limpet")), key=lambda row: row.import_s
    )
    if not own or not peers:
        return Verdict(target=target, reached="", outcome="not measured")
    best = peers[0]
    reached = f"{_with_spread(own)} against {_with_spread(best)} of {best.way}"
    if best.import_s < own.import_s <= best.import_most_s:
        return Verdict(target=target, reached=reached, outcome="within the noise")
    met = own.import_s <= best.import_s
    return Verdict(target=target, reached=reached, outcome=_outcome(met))


def _with_spread(row: StartRow) -> str:
    return f"{row.import_s:.2f} s ({row.import_least_s:.2f}–{row.import_most_s:.2f})"


# ---- showing -------------------------------------------------------------------------------------


def build_table(rows: Sequence[BuildRow]) -> list[list[str]]:
    """Header and lines; the ratio is how many times limpet's time."""
    table = [[*BUILD_HEADER]]
    for row in rows:
        own = [
            other.wall_s
            for other in rows
            if other.group == "limpet"
            and (other.recipe, other.situation) == (row.recipe, row.situation)
        ]
        runs = f"{row.runs}" + (f" ({row.failed} failed)" if row.failed else "")
        walls = [f"{row.wall_s:.2f}", f"{row.wall_least_s:.2f}–{row.wall_most_s:.2f}"]
        ratio = f"{row.wall_s / own[0]:.1f}" if own else ""
        rest = [f"{row.cpu_s:.1f}", f"{row.disk_mb:.0f}", f"{row.image_mb:.1f}"]
        table.append([row.recipe, row.situation, row.contender, runs, *walls, ratio, *rest])
    return table


def start_table(rows: Sequence[StartRow]) -> list[list[str]]:
    """Header and lines."""
    table = [["through", "runs", "true s", "import astropy s", "least–most", "import / true"]]
    for row in rows:
        spread = f"{row.import_least_s:.2f}–{row.import_most_s:.2f}"
        medians = [f"{row.true_s:.3f}", f"{row.import_s:.3f}"]
        table.append([row.way, str(row.runs), *medians, spread, f"{row.ratio:.2f}"])
    return table


def verdict_table(verdicts: Sequence[Verdict]) -> list[list[str]]:
    """Header and lines."""
    lines = [[verdict.target, verdict.reached, verdict.outcome] for verdict in verdicts]
    return [["target", "reached", "outcome"], *lines]


def render_markdown(table: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, lined up so that it reads as plain text too."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |\n"

    rule = line(["-" * width for width in widths])
    return line(table[0]) + rule + "".join(line(cells) for cells in table[1:])


def render_report(
    versions: Mapping[str, str],
    builds: Sequence[BuildRow],
    starts: Sequence[StartRow],
    verdicts: Sequence[Verdict],
) -> str:
    """All of it, as Markdown."""
    parts = [render_markdown([["what", "version"], *map(list, versions.items())])]
    if builds:
        parts.append(render_markdown(build_table(builds)))
    if starts:
        parts.append(render_markdown(start_table(starts)))
    if verdicts:
        parts.append(render_markdown(verdict_table(verdicts)))
    return "\n".join(parts)


def as_plain_data(
    versions: Mapping[str, str],
    builds: Sequence[BuildRow],
    starts: Sequence[StartRow],
    verdicts: Sequence[Verdict],
    samples: Sequence[BuildSample | StartSample],
) -> dict[str, object]:
    """For JSON."""
    return {
        "versions": dict(versions),
        "builds": [asdict(row) for row in builds],
        "starts": [asdict(row) | {"ratio": row.ratio} for row in starts],
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "samples": [asdict(sample) for sample in samples],
    }
