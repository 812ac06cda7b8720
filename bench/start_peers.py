"""What bench/start.py compares: each peer's result, made once and kept in a folder.

- `venv`: a plain virtual environment of this host's Python, byte code compiled by pip.
- `apptainer`, `apptainer-zstd`, `cotainr`: as bench/contenders.py makes them.
- `tykky`: Tykky's layout, an environment in a squashfs of its own (zstd level 3) that is bound onto
  a base which many environments share.
- `limpet`: `limpet build --profile auto`; started by `limpet run`, by a launcher of `limpet wrap
  --copy`, and in an instance that `limpet run --keep` left there.

limpet's image is built anew each time, the others are kept. All have the same packages; the images
have the base's Python, the venv has the host's.
"""

from __future__ import annotations

import argparse
import ast
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import build
from contenders import (
    CA_INSIDE,
    WHEELS_INSIDE,
    download_wheels,
    environment,
    host_ca_bundle,
    make_venv,
)
from machine import probe_versions

BUILT = ("apptainer", "apptainer-zstd", "cotainr")
INSIDE = "/opt/env"
SQUASH = ("-noappend", "-all-root", "-no-progress", "-comp", "zstd", "-Xcompression-level", "3")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """`command(place)`: the words before Python's own, for what lies in `place`.

    `kept`: it starts in what an earlier start left mounted, so a first start is not its own.
    """

    name: str
    command: Callable[[Path], tuple[str, ...]]
    kept: bool = False


def peers(limpet: tuple[str, ...]) -> tuple[Peer, ...]:
    """Everyone."""

    def sif(name: str) -> Peer:
        return Peer(
            name=name,
            command=lambda at: ("apptainer", "exec", f"{at}/{name}.sif", "python3"),
        )

    def tykky(at: Path) -> tuple[str, ...]:
        bind = f"{at}/tykky/env.sqfs:{INSIDE}:image-src=/"
        return ("apptainer", "exec", "-B", bind, f"{at}/tykky/base.sif", f"{INSIDE}/bin/python")

    return (
        Peer(name="venv", command=lambda at: (f"{at}/venv/bin/python",)),
        sif("apptainer"),
        sif("apptainer-zstd"),
        sif("cotainr"),
        Peer(name="tykky", command=tykky),
        Peer(name="limpet", command=lambda at: (*limpet, "run", f"{at}/limpet.sif", "python")),
        Peer(name="launcher", command=lambda at: (f"{at}/launcher/bin/python",)),
        Peer(
            name="kept",
            command=lambda at: (*limpet, "run", "--keep", f"{at}/limpet.sif", "python"),
            kept=True,
        ),
    )


def make_peers(folder: Path, recipe: str, options: argparse.Namespace) -> dict[str, str]:
    """Make what is not there yet; the versions of what it was made with."""
    shared = folder / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    requirements = build.requirements_of(recipe)
    if not (shared / "venv/bin/python").exists():
        partial = folder / "venv-partial"
        make_venv(partial, *requirements)
        partial.rename(shared / "venv")  # only bin/python is used, which finds itself
    versions = folder / "versions.txt"
    if not versions.exists():
        versions.write_text(repr(_make_images(folder, recipe, options)))
    _make_limpets(folder, requirements, tuple(options.limpet))
    return dict(ast.literal_eval(versions.read_text()))


def _make_limpets(folder: Path, requirements: tuple[str, ...], limpet: tuple[str, ...]) -> None:
    """As this limpet makes it, on the base that all have."""
    shared = folder / "shared"
    recipe = folder / "requirements.txt"
    recipe.write_text("".join(f"{line}\n" for line in requirements))
    build.remove_tree(shared / "launcher")
    (folder / "tmp").mkdir(exist_ok=True)
    image = str(shared / "limpet.sif")
    words = ("-q", "build", str(recipe), "-o", image, "--force", "--profile", "auto")
    base = ("--base", str(shared / "tykky/base.sif"), "--cache-dir", str(folder / "cache/limpet"))
    env = environment(folder)
    subprocess.run((*limpet, *words, *base), check=True, env=env)
    wrap = ("-q", "wrap", image, str(shared / "launcher"), "--copy", "--only", "python")
    subprocess.run((*limpet, *wrap), check=True, env=env)


def _make_images(folder: Path, recipe: str, options: argparse.Namespace) -> dict[str, str]:
    shared, work = folder / "shared", folder / "making"
    build.remove_tree(work)
    work.mkdir()
    missing = [name for name in BUILT if not (shared / f"{name}.sif").exists()]
    wanted = argparse.Namespace(
        only=missing or BUILT,
        variants=False,
        recipes=[recipe],
        situations=["cold"],
        rounds=1,
        start_rounds=0,
        base_tar=options.base_tar,
        limpet=options.limpet,
    )
    with build.prepare_bench(wanted, work) as bench:
        wheels = work / "wheels" / recipe
        requirements = build.requirements_of(recipe)
        download_wheels(bench.shop, requirements, wheels, work)
        for member in (one for one in bench.members if one.name in missing):
            sample, image = build.measure_build(bench, member, recipe, "cold", 0)
            if not sample.ok:
                raise SystemExit(f"{member.name} could not be built; see {work}/logs")
            shutil.move(image, shared / f"{member.name}.sif")
        _make_tykky(bench.shop.base_sif, requirements, wheels, shared / "tykky", work)
        versions = probe_versions(bench.shop, environment(work))
    build.remove_tree(work)
    return versions


def _make_tykky(
    base: Path, requirements: tuple[str, ...], wheels: Path, place: Path, work: Path
) -> None:
    place.mkdir(exist_ok=True)
    inside = work / "tykky-env"
    inside.mkdir()
    binds = [f"{inside}:{INSIDE}", f"{wheels}:{WHEELS_INSIDE}:ro"]
    if bundle := host_ca_bundle():
        binds.append(f"{bundle}:{CA_INSIDE}:ro")
    env = environment(work) | {"APPTAINER_BIND": ",".join(binds)}
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "REQUESTS_CA_BUNDLE"):
        env.pop(name, None)
    install = [f"{INSIDE}/bin/pip", "install", "--quiet", "--no-cache-dir"]
    install += ["--no-index", "--find-links", WHEELS_INSIDE, *requirements]
    script = f"python3 -m venv {INSIDE} && {shlex.join(install)}"
    run = ["apptainer", "--silent", "exec", "--no-home", str(base), "sh", "-c", script]
    subprocess.run(run, check=True, env=env)
    pack = ["mksquashfs", str(inside), str(place / "env.sqfs"), *SQUASH]
    subprocess.run(pack, check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))
    shutil.copyfile(base, place / "base.sif")
