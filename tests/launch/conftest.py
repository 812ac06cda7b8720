"""Small images of the machine's own programs, and a home that is thrown away."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from limpet.core.image import FACTS_OBJECT, ImageFacts
from limpet.core.lock import LockedBase
from limpet.core.recipe import Run
from limpet.formats.sif import SifWriter, architecture_of

PROGRAMS = ("sh", "bash", "env", "cat", "ls", "touch", "mkdir", "true", "sleep", "readlink", "yes")
SOURCE = Path(__file__).parents[2] / "src"
MACHINE = os.uname().machine


@pytest.fixture(scope="session")
def work() -> Iterator[Path]:
    """A folder that is not below /tmp, which containers see anyway."""
    above = Path.home() / ".limpet-test-launch"
    above.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=above))
    yield folder
    subprocess.run(["chmod", "-R", "u+rwX", folder], check=False)
    shutil.rmtree(folder)  # and not `above`: another worker may be about to make one there


@pytest.fixture(scope="session")
def root_squashfs(work: Path) -> Path:
    """A root file system of a few programs and their libraries."""
    root = work / "root"
    for name in ("usr/bin", "tmp", "var/tmp", "proc", "sys", "dev", "etc", "home", "opt"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / "usr" / name).mkdir(exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("passwd", "group"):
        (root / "etc" / name).touch()
    (root / "etc/the-image").write_text("yes\n")
    for program in PROGRAMS:
        found = shutil.which(program, path="/usr/bin:/bin")
        assert found
        shutil.copy2(found, root / "usr/bin" / program)
        needed = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", needed):
            place = root / "usr" / library.removeprefix("/usr").lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(library, place)
    return _squash(root, work / "root.sqfs")


def _squash(tree: Path, squashfs: Path) -> Path:
    options = ("-quiet", "-no-progress", "-all-root", "-comp", "gzip")
    argv = ["mksquashfs", str(tree), str(squashfs), *options]
    subprocess.run(argv, check=True, capture_output=True)
    return squashfs


@pytest.fixture(scope="session")
def layer_squashfs(work: Path) -> Path:
    """An environment layer: the file that every start goes through, and an environment script."""
    script = work / "layer/.singularity.d/env/95-limpet.sh"
    script.parent.mkdir(parents=True)
    script.write_text("export PATH=/opt/env/bin:$PATH COLOUR=image SHAPE=image PYTHONUSERBASE=\n")
    script.with_name("90-environment.sh").touch()
    # Right after this file, and only there, the runtime puts APPTAINERENV_* in.
    script.with_name("99-base.sh").touch()
    start = work / "layer/opt/env/.limpet/start"
    start.parent.mkdir(parents=True)
    start.write_text('#!/bin/sh\nexport LAYER=there\nexec "$@"\n')
    start.chmod(0o755)
    return _squash(work / "layer", work / "layer.sqfs")


FACTS = ImageFacts(
    limpet="0.1",
    name="small",
    layout="layered",
    arch=MACHINE,
    python="3.13.5",
    base=LockedBase(reference="debian:trixie", digest="sha256:" + "0" * 64, arch=MACHINE),
    run=Run(),
)


@pytest.fixture(scope="session")
def foreign_sif(work: Path, root_squashfs: Path) -> Path:
    return _write(work / "foreign $(touch x) ä.sif", [root_squashfs])


@pytest.fixture(scope="session")
def limpet_sif(work: Path, root_squashfs: Path, layer_squashfs: Path) -> Path:
    return _write(work / "limpet.sif", [root_squashfs, layer_squashfs], FACTS)


def _write(path: Path, partitions: list[Path], facts: ImageFacts | None = None) -> Path:
    with path.open("w+b") as file:
        writer = SifWriter(file, arch=architecture_of(MACHINE), ident=b"0123456789abcdef")
        if facts:
            writer.add_object(FACTS_OBJECT, msgspec.json.encode(facts), "json")
        for number, partition in enumerate(partitions):
            with writer.partition("overlay" if number else "root") as into:
                into.write(partition.read_bytes())
        writer.finish()
    return path


@dataclass
class Person:
    """A user with a home of their own, who types limpet commands."""

    home: Path

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(SOURCE),
            "LIMPET_STATE_DIR": str(self.home.parent / "state"),
            "LIMPET_CACHE_DIR": str(self.home.parent / "cache"),
        }

    def limpet(
        self,
        *words: str | Path,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-P", "-m", "limpet", *map(str, words)]
        return subprocess.run(
            argv,
            env=self.environment() | (env or {}),
            cwd=cwd or self.home,
            capture_output=True,
            text=True,
            timeout=300,
            input=stdin,
        )


@pytest.fixture
def person(work: Path) -> Person:
    home = Path(tempfile.mkdtemp(dir=work)) / "home ä"
    home.mkdir()
    return Person(home=home)
