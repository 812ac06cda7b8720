"""Measure limpet against other ways to make such an image; run as a plain user.

    python3 bench/build.py [--quick] [--only NAME…] [--recipes …] [--situations …] [--rounds N]

One round goes through the situations, and through all contenders in each:

- cold: the contender's folder is new. No package cache, no image cache, nothing of the base. (The
  kernel's page cache is left as it is, for all.)
- warm: the same build again. Wheels lie beside pip, which does not ask the index; uv and limpet
  ask it, with their caches. For the default peers the base's layers are cached; the tuned peers
  start from a local SIF of the base; limpet has what it keeps.
- rebuild: as warm, with one small package added that nobody has seen in this round.

After that, what `import astropy` costs through each image. Results go to stdout and, as JSON and
Markdown, to bench/out. Exit 0 whatever the outcome: this measures, it does not test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from base import Registry, make_oci_layout, make_root_tar
from contenders import (
    ZSTD,
    Contender,
    Order,
    Shop,
    contenders,
    download_wheels,
    environment,
    make_venv,
)
from machine import probe_versions
from measure import adopt_orphans, run_measured
from starts import measure_starts, ways_into, works
from summary import (
    BuildSample,
    StartSample,
    as_plain_data,
    judge,
    render_report,
    summarise_builds,
    summarise_starts,
)

HERE = Path(__file__).resolve().parent
# Recipe → what must be importable from the image, or the build does not count.
RECIPES = {
    "astropy": "astropy",
    "science": "numpy, scipy.linalg, pandas, matplotlib.pyplot, sklearn.linear_model",
}
ADDED = "humanize==4.16.0"
SITUATIONS = ("cold", "warm", "rebuild")
COTAINR = "cotainr==2025.7.1"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is to be measured, and where."""

    work: Path
    shop: Shop
    members: tuple[Contender, ...]
    recipes: tuple[str, ...]
    situations: tuple[str, ...]
    rounds: int
    start_rounds: int


def main() -> None:
    """Set up, measure, show, clean."""
    options = _parse_options()
    if os.getuid() == 0:
        sys.exit("Run this as a plain user: that is what users are, and root cannot run images.")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    adopt_orphans()
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    folder = work / f"bench-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        with prepare_bench(options, folder) as bench:
            measure_and_report(bench, options.out)
    finally:
        if options.keep:
            print(f"Kept: {folder}", file=sys.stderr)
        else:
            remove_tree(folder)


def _parse_options() -> argparse.Namespace:
    names = [contender.name for contender in contenders()]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=names, help="these contenders")
    add("--variants", action="store_true", help="contenders that are not judged, too")
    add("--recipes", nargs="+", choices=[*RECIPES], default=[*RECIPES])
    add("--situations", nargs="+", choices=SITUATIONS, default=[*SITUATIONS])
    add("--rounds", type=int, default=3, help="rounds of builds (3)")
    add("--start-rounds", type=int, default=7, help="rounds of starts (7); 0 for none")
    add("--quick", action="store_true", help="one round, astropy only")
    add("--work", type=Path, default=HERE / "work", help="where everything happens (bench/work)")
    add("--out", type=Path, default=HERE / "out", help="where the results go (bench/out)")
    add("--keep", action="store_true", help="do not clean the work folder, for a look at the logs")
    add("--base-tar", type=Path, help="a root file system with Python and pip to take as base")
    add("--limpet", type=shlex.split, help="limpet's command, instead of installing this tree")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.recipes = 1, ["astropy"]
    return options


# ---- setting up: not measured --------------------------------------------------------------------


@contextlib.contextmanager
def prepare_bench(options: argparse.Namespace, work: Path) -> Iterator[Bench]:
    """The base in a registry, and the contenders installed."""
    members = tuple(
        contender
        for contender in contenders()
        if (contender.name in options.only if options.only else True)
        and (options.only or options.variants or contender.group != "variant")
    )
    wanted = {member.name.split("-")[0] for member in members}
    say("Preparing the base, the registry and the contenders")
    (work / "tmp").mkdir()
    tar = options.base_tar
    if tar is None:
        tar = work / "base.tar"
        make_root_tar(tar, work / "tmp")
    make_oci_layout(tar, work / "layout")
    cotainr = make_venv(work / "venvs/cotainr", COTAINR) if "cotainr" in wanted else None
    limpet, uv = _install_limpet(options, work, wanted, members)
    with Registry(work / "registry") as registry:
        base = registry.push(work / "layout")
        sif = work / "base.sif"
        env = environment(work) | {"APPTAINER_MKSQUASHFS_ARGS": ZSTD}
        subprocess.run(["apptainer", "--silent", "build", str(sif), base], check=True, env=env)
        yield Bench(
            work=work,
            shop=Shop(base=base, base_sif=sif, cotainr_python=cotainr, limpet=limpet, uv=uv),
            members=members,
            recipes=tuple(options.recipes),
            situations=tuple(options.situations),
            rounds=options.rounds,
            start_rounds=options.start_rounds,
        )


def _install_limpet(
    options: argparse.Namespace, work: Path, wanted: set[str], members: tuple[Contender, ...]
) -> tuple[tuple[str, ...] | None, Path | None]:
    """limpet's command and a uv program, as far as they are needed."""
    limpet = tuple(options.limpet) if options.limpet else None
    if "limpet" in wanted and limpet is None:
        python = make_venv(work / "venvs/limpet", str(HERE.parent))
        return (str(python.with_name("limpet")),), python.with_name("uv")
    if any(member.group == "variant" for member in members):
        return limpet, make_venv(work / "venvs/uv", "uv>=0.9").with_name("uv")
    return limpet, None


def requirements_of(recipe: str) -> tuple[str, ...]:
    """The lines of a recipe of ours: names with versions, nothing else."""
    return tuple((HERE / f"recipes/{recipe}.txt").read_text().split())


# ---- measuring -----------------------------------------------------------------------------------


def measure_and_report(bench: Bench, out: Path) -> None:
    """All rounds, then the tables."""
    env = environment(bench.work)
    versions = probe_versions(bench.shop, env)
    for recipe in bench.recipes:
        wheels = bench.work / "wheels" / recipe
        download_wheels(bench.shop, requirements_of(recipe), wheels, bench.work)
    builds: list[BuildSample] = []
    images: dict[str, Path] = {}
    for number in range(bench.rounds):
        for recipe in bench.recipes:
            builds += measure_round(bench, number, recipe, images, env)
    starts: list[StartSample] = []
    if images and bench.start_rounds:
        say("Starts")
        ways = ways_into(images, bench.shop, bench.members)
        starts = measure_starts(ways, bench.start_rounds, env, bench.work / "logs")
    write_results(out, versions, builds, starts)


def measure_round(
    bench: Bench, number: int, recipe: str, images: dict[str, Path], env: Mapping[str, str]
) -> list[BuildSample]:
    """Every situation for every contender, once; keeps the images that starts are measured on."""
    samples: list[BuildSample] = []
    turn = number % len(bench.members)
    members = bench.members[turn:] + bench.members[:turn]
    for member in members:
        remove_tree(bench.work / "folders" / member.name)
    # Without a cold build there would be nothing to be warm with.
    for situation in dict.fromkeys(("cold", *bench.situations)):
        for member in members:
            sample, image = measure_build(bench, member, recipe, situation, number)
            if situation in bench.situations:
                samples.append(sample)
            imports = RECIPES[recipe] + (", humanize" if situation == "rebuild" else "")
            if number == 0 and sample.ok and (said := works(image, imports, env)):
                sys.exit(f"{member.name}: its image cannot import {imports}:\n{said}")
            if recipe == "astropy" and situation != "rebuild" and sample.ok:
                images[member.name] = bench.work / f"images/{member.name}.sif"
                images[member.name].parent.mkdir(exist_ok=True)
                shutil.copyfile(image, images[member.name])
    return samples


def measure_build(
    bench: Bench, member: Contender, recipe: str, situation: str, number: int
) -> tuple[BuildSample, Path]:
    """One build; its output goes to a log."""
    lines = requirements_of(recipe)
    order = Order(
        requirements=lines,
        added=(ADDED,) if situation == "rebuild" else (),
        folder=bench.work / "folders" / member.name,
        wheels=bench.work / "wheels" / recipe,
        warm=situation != "cold",
    )
    order.lay_out()
    log = bench.work / "logs" / f"{number} {recipe} {situation} {member.name}.log"
    cost = run_measured(member.command(bench.shop, order), log)
    ok = cost.ok and order.image.exists()
    say(f"round {number + 1}, {recipe}, {situation}, {member.name}: {cost.wall_s:.2f} s")
    if not ok:
        say("FAILED: " + log.read_text(errors="replace").strip()[-1500:])
    sample = BuildSample(
        recipe=recipe,
        situation=situation,
        contender=member.name,
        group=member.group,
        ok=ok,
        wall_s=cost.wall_s,
        cpu_s=cost.cpu_s,
        disk_bytes=cost.disk_bytes,
        image_bytes=order.image.stat().st_size if ok else 0,
    )
    return sample, order.image


# ---- results -------------------------------------------------------------------------------------


def write_results(
    out: Path,
    versions: Mapping[str, str],
    builds: list[BuildSample],
    starts: list[StartSample],
) -> None:
    """Onto stdout and, as JSON and Markdown, into a folder."""
    build_rows, start_rows = summarise_builds(builds), summarise_starts(starts)
    verdicts = judge(build_rows, start_rows)
    report = render_report(versions, build_rows, start_rows, verdicts)
    print(report)
    out.mkdir(parents=True, exist_ok=True)
    stem = f"build-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    data = as_plain_data(versions, build_rows, start_rows, verdicts, [*builds, *starts])
    (out / f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n")
    (out / f"{stem}.md").write_text(report)
    print(f"Written: {out / stem}.json and .md")


def say(text: str) -> None:
    """Progress, beside the results."""
    print(text, file=sys.stderr, flush=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder in which some folders may not be writable."""
    if not folder.exists():
        return
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(path).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
