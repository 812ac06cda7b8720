"""A folder that containers do not see anyway, and small images with programs in them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from limpet.core.image import ImageFacts
from limpet.core.lock import LockedBase
from limpet.core.module_archive import Modules
from limpet.core.recipe import Run
from tests.conftest import Base, SharedOnce

SOURCE = Path(__file__).parents[2] / "src"
MACHINE = os.uname().machine

MODULE = '''
import json, multiprocessing, os, signal, subprocess, sys, time


def say():
    print(json.dumps({"argv": sys.argv, "executable": sys.executable, "prefix": sys.prefix}))


def both():
    """A console script that calls the other one, and Python by three names."""
    inside = "import sys; print(sys.prefix)"
    for words in (["limpet-say"], [sys.executable, "-c", inside], ["python", "-c", inside]):
        subprocess.run(words, check=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(len, ["four"]))


def leave():
    sys.exit(int(sys.argv[1]))


def wait():
    """Ends with 7 when it is told to end, and says by which signal."""
    def told(number, frame):
        os.write(1, b"told %s\\n" % signal.Signals(number).name.encode())
        os._exit(7)
    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)
    print("ready", flush=True)
    time.sleep(60)
'''


def write_wheel(folder: Path, scripts: dict[str, str], module: str = MODULE) -> Path:
    """A wheel by hand: one module and its console scripts."""
    info = "limpetsay-1.0.dist-info"
    points = "".join(f"{name} = limpetsay:{function}\n" for name, function in scripts.items())
    files = {
        "limpetsay.py": module,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: limpetsay\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{points}",
    }
    rows = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        rows.append(f"{name},sha256={digest.decode()},{len(text.encode())}\n")
    files[f"{info}/RECORD"] = "".join(rows) + f"{info}/RECORD,,\n"
    path = folder / "limpetsay-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return path


SCRIPTS = {
    "limpet-say": "say",
    "limpet-both": "both",
    "limpet-leave": "leave",
    "limpet-wait": "wait",
}


@pytest.fixture(scope="session")
def work(run_folder: Path) -> Iterator[Path]:
    """A folder that is not below /tmp, which containers see anyway."""
    above = Path.home() / ".limpet-test-wrap"
    above.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=above, prefix="wrap ä "))
    yield folder
    subprocess.run(["chmod", "-R", "u+rwX", folder], check=False)
    shutil.rmtree(folder)


def facts(run: Run | None = None, env: dict[str, str] | None = None) -> ImageFacts:
    return ImageFacts(
        limpet="0.1",
        name="small",
        layout="merged",
        arch=MACHINE,
        python="3.13.5",
        base=LockedBase(reference="debian:trixie", digest="sha256:" + "0" * 64, arch=MACHINE),
        run=run or Run(),
        env=env or {},
        modules=Modules(key="0123", folders=("/opt/env/lib/python3.13/site-packages", "/usr/lib")),
    )


@dataclass
class Person:
    """A user with a home of their own, outside /tmp."""

    home: Path
    cache: Path

    def environment(self, env: dict[str, str] | None = None) -> dict[str, str]:
        own = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LIMPET_CACHE_DIR": str(self.cache),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return own | (env or {})

    def run(
        self,
        *words: str | Path,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in words],
            env=self.environment(env),
            cwd=cwd or self.home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def limpet(
        self, *words: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        own = {"PYTHONPATH": str(SOURCE)} | (env or {})
        return self.run(sys.executable, "-P", "-m", "limpet", *words, env=own, cwd=cwd)

    def wrap(self, *words: str | Path) -> dict[str, object]:
        done = self.limpet("wrap", *words, "--json")
        assert done.returncode == 0, done.stderr
        told: dict[str, object] = json.loads(done.stdout)
        return told


@pytest.fixture
def person(work: Path, cache_dir: Path) -> Person:
    home = Path(tempfile.mkdtemp(dir=work)) / "home ö"
    home.mkdir()
    return Person(home=home, cache=cache_dir)


def build(folder: Path, cache: Path, base: str, *packages: str | Path, output: str) -> str:
    """An image of these packages."""
    words = [sys.executable, "-P", "-m", "limpet", "--cache-dir", str(cache), "build"]
    for package in packages:
        words += ["--pip", str(package)]
    image = folder / output
    words += ["--base", base, "-o", str(image), "--force"]
    done = subprocess.run(
        words,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return str(image)


@pytest.fixture(scope="session")
def say_image(work: Path, cache_dir: Path, debian_base: Base, shared_once: SharedOnce) -> Path:
    """An image with a wheel made by hand, which has console scripts."""
    wheel = write_wheel(work, SCRIPTS)
    packages = (f"limpetsay @ {wheel.as_uri()}", "pip")
    return Path(build(work, cache_dir, debian_base.reference, *packages, output="say ü.sif"))


@pytest.fixture(scope="session")
def kernel_image(work: Path, cache_dir: Path, debian_base: Base) -> Path:
    """An image with ipykernel."""
    return Path(build(work, cache_dir, debian_base.reference, "ipykernel", output="kernel.sif"))
