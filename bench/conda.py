"""A conda environment into one image: limpet against py-rattler's own install and apptainer build.

    bench/conda.py BASE.sif FOLDER [--channel URL] [SPEC…]

Without --channel it is the one of the tests, on loopback: a Python and a few packages of its size
and kinds. Each is run with empty caches and once more with what the first run left there; the best
of --rounds counts. The prefix is /opt/env for both.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import Command, Cost, adopt_orphans, run_measured

ROOT = Path(__file__).resolve().parent.parent
SPECS = ("python=3.13", "greeter", "numeric", "prefixed", "activated")
DEFINITION = """Bootstrap: localimage
From: {base}

%files
    {prefix} /opt/env

%environment
    export PATH=/opt/env/bin:$PATH
"""


async def install(channel: str, folder: Path, specs: list[str]) -> None:
    """What a script of a few lines does with py-rattler: solve, install."""
    import rattler

    client = rattler.Client.default_client()
    gateway = rattler.Gateway(cache_dir=folder / "cache/repodata", client=client)
    virtual = [
        rattler.GenericVirtualPackage(
            rattler.PackageName(name), rattler.Version(version), rattler.BuildString("0")
        )
        for name, version in (("__glibc", "2.41"), ("__linux", "6.1"), ("__unix", "0"))
    ]
    records = await rattler.solve(
        [channel],
        specs,
        gateway=gateway,
        platforms=["linux-64" if os.uname().machine == "x86_64" else "linux-aarch64", "noarch"],
        virtual_packages=virtual,
    )
    await rattler.install(
        records,
        folder / "prefix",
        cache_dir=folder / "cache/packages",
        alternative_target_prefix="/opt/env",
        show_progress=False,
        client=client,
    )


@contextmanager
def serving(channel: str, folder: Path) -> Iterator[str]:
    """The channel that was named, or the tests' own on loopback."""
    if channel:
        yield channel
        return
    from tests import images
    from tests.conda.channel import make_channel, serve

    place = folder / "channel"
    if not place.exists():
        make_channel(place, images.debian_tar(folder))
    with serve(place) as served:
        yield served.url


def plan(base: Path, folder: Path, channel: str, specs: list[str]) -> dict[str, Command]:
    """Each step by its name; both whole builds start where the other does."""
    env = dict(os.environ) | {"PYTHONPATH": f"{ROOT}/src{os.pathsep}{ROOT}"}
    env |= {"LIMPET_CACHE_DIR": f"{folder}/limpet/cache", "APPTAINER_TMPDIR": f"{folder}/plain/tmp"}
    env |= {"APPTAINER_CACHEDIR": f"{folder}/plain/cache/apptainer"}
    asked = [word for spec in specs for word in ("--conda", spec)]
    limpet = (sys.executable, "-P", "-m", "limpet", "-q")
    common = ("--base", str(base), "--channel", channel, *asked, "--force")
    out, plain = folder / "limpet/out", folder / "plain"
    own = (sys.executable, __file__, "--install", channel, str(base), str(plain), *specs)
    build = ("apptainer", "build", "--force", f"{plain}/out/x.sif", f"{plain}/x.def")

    def one(argv: tuple[str, ...], watched: Path) -> Command:
        return Command(argv=argv, env=env, watched=watched)

    return {
        "limpet lock": one((*limpet, "lock", *common, "-o", f"{out}/pylock.toml"), out.parent),
        "limpet build": one((*limpet, "build", *common, "-o", f"{out}/x.sif"), out.parent),
        "rattler install": one(own, plain),
        "apptainer build": one(build, plain),
    }


def reset(base: Path, folder: Path, *, cold: bool) -> None:
    """What a run starts with: nothing, or only caches."""
    for name in ("limpet", "plain"):
        for part in ("out", "prefix", "tmp", *(["cache"] if cold else [])):
            shutil.rmtree(folder / name / part, ignore_errors=True)
        for part in ("out", "tmp", "cache"):
            (folder / name / part).mkdir(parents=True, exist_ok=True)
    definition = DEFINITION.format(base=base, prefix=folder / "plain/prefix")
    (folder / "plain/x.def").write_text(definition)


def measure(base: Path, folder: Path, channel: str, specs: list[str], rounds: int) -> None:
    """Run all steps and print a line for each."""
    commands = plan(base, folder, channel, specs)
    for state in ("cold", "warm"):
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        for _ in range(rounds):
            reset(base, folder, cold=state == "cold")
            for name, command in commands.items():
                cost = run_measured(command, folder / "logs" / f"{state} {name}.log")
                if not cost.ok:
                    sys.exit(f"{name} failed: see {folder}/logs")
                costs[name].append(cost)
        for name, some in costs.items():
            best = min(some, key=lambda cost: cost.wall_s)
            megabytes = best.disk_bytes / 1e6
            line = f"{best.wall_s:7.2f} s wall {best.cpu_s:7.2f} s CPU {megabytes:7.0f} MB disk"
            print(f"{state} {name:<16}{line}", flush=True)
    for name in ("limpet", "plain"):
        print(f"{name:<7}{(folder / name / 'out/x.sif').stat().st_size / 1e6:8.1f} MB image")


def main() -> None:
    """Parse, and measure; with --install, be the other contender's script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("specs", nargs="*", default=list(SPECS))
    parser.add_argument("--channel", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--install", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    if asked.install:
        asyncio.run(install(asked.install, folder, asked.specs))
        return
    sys.path.insert(0, str(ROOT))
    folder.mkdir(parents=True, exist_ok=True)
    adopt_orphans()
    with serving(asked.channel, folder) as channel:
        measure(asked.base.absolute(), folder, channel, asked.specs, asked.rounds)


if __name__ == "__main__":
    main()
