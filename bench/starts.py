"""How long a program takes to start through each contender's image."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contenders import Contender, Shop
from measure import Command, run_measured
from summary import StartSample

IMPORT = ("python3", "-c", "import astropy")
NOTHING = ("true",)


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way into an image: the words before the program's."""

    name: str
    argv: tuple[str, ...]


def ways_into(images: Mapping[str, Path], shop: Shop, members: tuple[Contender, ...]) -> list[Way]:
    """Every image through Apptainer, and limpet's through limpet too."""
    found = []
    for member in members:
        if image := images.get(member.name):
            found.append(Way(name=member.name, argv=("apptainer", "exec", str(image))))
            if member.group == "limpet" and shop.limpet:
                run = (*shop.limpet, "run", str(image))
                found.append(Way(name=f"{member.name} run", argv=run))
    return found


def measure_starts(
    ways: list[Way], rounds: int, env: Mapping[str, str], logs: Path
) -> list[StartSample]:
    """Round-robin over the ways, each with nothing and with the import, once unmeasured before."""
    samples = []
    for number in range(rounds + 1):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            for what, program in (("true", NOTHING), ("import", IMPORT)):
                log = logs / f"start {way.name} {what}.log"
                cost = run_measured(Command(argv=(*way.argv, *program), env=env), log)
                if number:  # the first one warms the page cache
                    samples.append(
                        StartSample(way=way.name, what=what, ok=cost.ok, wall_s=cost.wall_s)
                    )
    return samples


def works(image: Path, imports: str, env: Mapping[str, str]) -> str:
    """An empty string when the image can import; what it said otherwise."""
    done = subprocess.run(
        ["apptainer", "--silent", "exec", str(image), "python3", "-c", f"import {imports}"],
        capture_output=True,
        text=True,
        env=dict(env),
    )
    return "" if done.returncode == 0 else done.stderr.strip()[-500:] or "failed silently"
