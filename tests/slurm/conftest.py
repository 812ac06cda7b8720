"""An image with an MPI of its own, launchers for it, and limpet on a cluster's nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import Cluster

if TYPE_CHECKING:
    from tests.conftest import Base

SOURCE = Path(__file__).parents[2] / "src"
EXAMPLES = Path(__file__).parents[2] / "examples/slurm"
LIMPET = (sys.executable, "-P", "-m", "limpet")
BASE = ("--base", "debian:trixie")

# Each line in one write, also with PYTHONUNBUFFERED: no other rank's comes in between.
SUM = """\
import os
from mpi4py import MPI
all = MPI.COMM_WORLD
total = all.allreduce(all.rank + 1)
os.write(1, f"rank {all.rank} of {all.size} sum {total}\\n".encode())
"""


@dataclass(frozen=True)
class Images:
    """`mpi` has what the examples need, mpi4py and MPICH among it; `other` is another image;
    `launchers` start what is in `mpi`, `apart` as well, for tasks that do not use MPI."""

    mpi: Path
    other: Path
    launchers: Path
    apart: Path


@pytest.fixture(scope="session")
def images(
    run_folder: Path,
    debian_base: Base,
    cache_dir: Path,
    shared_once: Callable[[str, Callable[[], Any]], Any],
) -> Images:
    folder = run_folder / "slurm images ä"

    def make() -> str:
        folder.mkdir()
        env = {**os.environ, "PYTHONPATH": str(SOURCE), "LIMPET_CACHE_DIR": str(cache_dir)}

        def limpet(*words: str) -> None:
            subprocess.run([*LIMPET, "-q", *words], env=env, cwd=folder, check=True)

        (folder / "mpi.in").write_text((EXAMPLES / "requirements.txt").read_text())
        limpet("build", "mpi.in", "-o", "mpi.sif", *BASE)
        limpet("wrap", "mpi.sif", "env")
        limpet("wrap", "mpi.sif", "apart", "--mpi", "none")
        (folder / "other.sif").symlink_to(debian_base.sif)
        return str(folder)

    made = Path(shared_once("slurm", make))
    return Images(
        mpi=made / "mpi.sif",
        other=made / "other.sif",
        launchers=made / "env",
        apart=made / "apart",
    )


@dataclass
class User:
    """Somebody on the cluster, with a home and a folder with an MPI program, `sum.py`."""

    cluster: Cluster
    home: Path
    cache: Path

    def run(
        self, *words: str | Path, env: dict[str, str] | None = None, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        return self.cluster.run(
            *words, env={**self.env, **(env or {})}, cwd=self.home, timeout_s=timeout_s
        )

    @property
    def env(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PYTHONPATH": str(SOURCE),
            "LIMPET_CACHE_DIR": str(self.cache),
            # As where a site's MpiDefault is this: tasks of an image with MPI need one.
            "SLURM_MPI_TYPE": "pmi2",
        }

    def said(self, *words: str | Path) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def limpet(self, *words: str | Path, env: dict[str, str] | None = None) -> Any:
        return self.run(*LIMPET, *words, env=env)

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*map(str, words)],
            env={**os.environ, **self.env, **self.cluster.env},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def job(self, text: str, *options: str) -> tuple[str, str]:
        """A batch job with this script: the state in which it ended, and what it said."""
        script = self.home / "job.sh"
        script.write_text(f'#!/bin/bash\nlimpet() {{ {" ".join(LIMPET)} "$@"; }}\n{text}')
        out = self.home / "out.txt"
        job = self.said("sbatch", "--parsable", "-o", out, *options, script).strip()
        return self.cluster.wait_for_job(job), out.read_text()


@pytest.fixture
def user(cluster: Cluster, tmp_path: Path, cache_dir: Path) -> User:
    home = tmp_path / "home ä"
    home.mkdir()
    (home / "sum.py").write_text(SUM)
    return User(cluster=cluster, home=home, cache=cache_dir)
