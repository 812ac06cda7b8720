"""What the byte code is worth that limpet compiles for a base which lacks it.

    python3 bench/base_code.py [--rounds N] [--folder FOLDER] [--base-tar TAR]

The bases are SIFs that apptainer makes of Debian trixie with Python: one as it is, its byte code
held against its source at each import (`checked`), and one without any, as the official `python`
images are (`none`). On each a small image is built without the standard library's byte code, which
only this program can do, with it as an earlier build has left it, and with it compiled anew. Then
the runtime alone imports modules of the standard library from the image with it and from the one
without, all in memory. Each in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from base import make_oci_layout, make_root_tar
from build import remove_tree
from contenders import ZSTD, this_trees_python
from launch import compare
from limpet.actions import build
from limpet.actions.base_code import NAME
from limpet.core.request import BuildRequest
from order import BARE, PYTHON

IMPORTS = "import asyncio, unittest, sqlite3, http.server, logging.config, xml.dom.minidom"
WITHOUT, KEPT, COMPILED = "without", "kept", "compiled"


def main() -> None:
    """Make the bases, measure, show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=9)
    add("--folder", type=Path, default=Path.home() / ".cache/limpet-bench/base-code")
    add("--base-tar", type=Path, help="a root file system with Python to take as base")
    add("--build", choices=(WITHOUT, KEPT, COMPILED), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build_image(options.folder, options.build)
        return
    folder = options.folder.resolve()
    for kind in ("none", "checked"):
        make_base(folder, kind, options.base_tar)
        measure(folder / kind, kind, options.rounds)


def make_base(folder: Path, kind: str, tar: Path | None) -> None:
    """The SIF, unless it is there."""
    base, passing = folder / kind / "base.sif", folder / "passing"
    if base.exists():
        return
    remove_tree(passing)
    (folder / kind).mkdir(parents=True, exist_ok=True)
    passing.mkdir()
    if tar is None:
        tar = folder / "base.tar"
        if not tar.exists():
            make_root_tar(tar, passing)
    if kind == "none":
        tar = copy_without_code(tar, passing / "base.tar")
    make_oci_layout(tar, passing / "layout")
    build_sif = ["apptainer", "--silent", "build", str(base), f"oci:{passing}/layout"]
    env = {**os.environ, "APPTAINER_MKSQUASHFS_ARGS": ZSTD}
    subprocess.run(build_sif, check=True, env=env)
    remove_tree(passing)


def copy_without_code(tar: Path, copy: Path) -> Path:
    """A root file system without Python's byte code."""
    with tarfile.open(tar) as source, tarfile.open(copy, "w") as out:
        for member in source:
            if not member.name.endswith(".pyc"):
                out.addfile(member, source.extractfile(member) if member.isreg() else None)
    return copy


def measure(folder: Path, kind: str, rounds: int) -> None:
    """Builds on one base, and starts."""
    own = [*this_trees_python(), __file__, "--folder", str(folder), "--build"]
    builds = {f"{kind}, build {way}": [*own, way] for way in (KEPT, WITHOUT, COMPILED)}
    starts = {
        f"{kind}, start {way}": [*BARE, str(folder / f"{way}.sif"), PYTHON, "-c", IMPORTS]
        for way in (KEPT, WITHOUT)
    }
    print(compare(builds, rounds))
    print(compare(starts, rounds))
    modules = sum(json.loads(note.read_text())["files"] for note in find_notes(folder))
    print(f"{kind}: {modules} modules\n", flush=True)


def build_image(folder: Path, way: str) -> None:
    """One image; its files stay as they lie, so that the byte code is all that is different."""
    if way == WITHOUT:
        build.base_code = lambda *_: None
    for note in find_notes(folder) if way == COMPILED else ():
        note.with_suffix(".sqfs").unlink()
        note.unlink()
    request = BuildRequest(
        base=str(folder / "base.sif"),
        pip=("packaging",),
        output=str(folder / f"{way}.sif"),
        no_profile=True,
        force=True,
        cache_dir=str(folder / "cache"),
    )
    build.build(request)


def find_notes(folder: Path) -> Iterator[Path]:
    """Of the pieces with a base's byte code."""
    for note in folder.glob("cache/pieces/*/*.json"):
        if json.loads(note.read_text())["name"] == NAME:
            yield note


if __name__ == "__main__":
    main()
