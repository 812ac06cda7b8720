"""Two images with two versions of one framework, a foreign one, and wheels to add to them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.personal.wheels import make_wheel

if TYPE_CHECKING:
    from tests.conftest import Base

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="session")
def wheels(run_folder: Path) -> Path:
    """A folder of packages; `plain` fits every framework, the plugins one each."""
    folder = run_folder / "wheels of ours"
    for version in ("1.0", "1.1", "2.0"):
        make_wheel(folder, "framework", version, requires=["helper"], script="framework")
    make_wheel(folder, "helper", "1.0")
    make_wheel(folder, "helper", "1.5")
    make_wheel(folder, "plain", "1.0", requires=["helper>=1"], script="plain")
    make_wheel(folder, "plain", "2.0", requires=["helper>=1"], script="plain")
    make_wheel(folder, "huge", "1.0", size_bytes=8_000_000)
    make_wheel(folder, "pluginone", "1.0", requires=["framework<2"], script="plugin")
    make_wheel(folder, "plugintwo", "2.0", requires=["framework>=2", "plain"], script="plugin")
    return folder


@dataclass
class User:
    """Somebody with a home, a folder to work in, and limpet."""

    home: Path
    folder: Path
    wheels: Path
    cache: Path

    @property
    def state(self) -> Path:
        return self.home / ".local/state/limpet"

    def env(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.home),
            "PYTHONPATH": str(SOURCE),
            "LIMPET_CACHE_DIR": str(self.cache),
            "PIP_NO_INDEX": "1",
            # pip splits the variable at spaces
            "PIP_FIND_LINKS": self.wheels.as_uri(),
            **more,
        }

    def argv(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-P", "-m", "limpet", *map(str, words)]

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """limpet, to be spoken with while it runs."""
        return subprocess.Popen(
            self.argv(*words),
            env=self.env(),
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def limpet(
        self, *words: str | Path, stdin: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words),
            env=self.env(**(env or {})),
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def said(self, *words: str | Path, stdin: str = "") -> str:
        done = self.limpet(*words, stdin=stdin)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def build(self, recipe: Path, image: Path, *more: str) -> str:
        base = ("--base", "debian:trixie", "--find-links", str(self.wheels))
        return self.said("-q", "build", recipe, "-o", image, "--force", *base, *more)


@pytest.fixture
def user(tmp_path: Path, wheels: Path, cache_dir: Path) -> Iterator[User]:
    """With packages in the real ~/.local, which nobody may see or change."""
    home = tmp_path / "home ä"
    folder = home / "project"
    folder.mkdir(parents=True)
    made = User(home=home, folder=folder, wheels=wheels, cache=cache_dir)
    poison = home / ".local/lib/python3.13/site-packages"
    make_poison(poison)
    before = sorted(poison.rglob("*"))
    yield made
    home.chmod(0o755)
    assert sorted(poison.rglob("*")) == before


def make_poison(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("framework", "plain", "sitecustomize", "usercustomize"):
        (folder / f"{name}.py").write_text("raise SystemExit('the real ~/.local was read')\n")


@pytest.fixture(scope="session")
def images(
    run_folder: Path,
    wheels: Path,
    debian_base: Base,
    cache_dir: Path,
    shared_once: Callable[[str, Callable[[], Any]], Any],
) -> dict[str, Path]:
    """`one` has framework 1.0, `two` has framework 2.0; `foreign` has a Python and nothing else."""
    folder = run_folder / "images"

    def make() -> dict[str, str]:
        folder.mkdir()
        home = folder / "home"
        home.mkdir()
        user = User(home=home, folder=folder, wheels=wheels, cache=cache_dir)
        for name, version in (("one", "1.0"), ("two", "2.0")):
            recipe = folder / f"{name}.in"
            recipe.write_text(f"framework=={version}\nhelper==1.0\n")
            user.build(recipe, folder / f"{name}.sif")
        foreign = folder / "foreign.sif"
        foreign.symlink_to(debian_base.sif)
        return {name: str(folder / f"{name}.sif") for name in ("one", "two", "foreign")}

    return {name: Path(path) for name, path in shared_once("personal", make).items()}
