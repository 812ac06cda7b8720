"""A Python as a module brings it: in a folder of its own, with a package of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Limpet, SharedOnce
from tests.pieces.conftest import MakeWheel, make_wheel  # noqa: F401 - a fixture

MINOR = f"python{sys.version_info[0]}.{sys.version_info[1]}"
_LEFT_OUT = shutil.ignore_patterns(
    *("test", "tests", "idlelib", "tkinter", "dist-packages", "site-packages"),
    *("__pycache__", "config-*", "lib2to3", "pydoc_data", "ensurepip", "turtledemo"),
)
METADATA = "Metadata-Version: 2.1\nName: numbersite\nVersion: {}\n"


def asking(wheel: Path) -> tuple[str, ...]:
    """The words that ask for both packages."""
    return ("--pip", f"ours @ {wheel.as_uri()}", "--pip", "numbersite>=1")


BuildOn = Callable[..., Path]


def add_package(python: Path, version: str) -> Path:
    """`numbersite` in the site-packages of a Python, as a site's administrators put it there."""
    ask = "import site; print(site.getsitepackages()[-1])"
    said = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    packages = Path(said.stdout.strip())
    packages.mkdir(exist_ok=True)
    for old in packages.glob("numbersite-*"):
        shutil.rmtree(old)
    (packages / "numbersite.py").write_text(f"version = {version!r}\n", encoding="utf-8")
    info = packages / f"numbersite-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(version), encoding="utf-8")
    return packages


@pytest.fixture(scope="session")
def module_python(run_folder: Path, shared_once: SharedOnce) -> Path:
    """The program; nobody changes what it belongs to."""

    def make() -> str:
        folder = run_folder / "a module ä" / "python"
        library = Path(os.__file__).parent
        shutil.copytree(library, folder / "lib" / MINOR, ignore=_LEFT_OUT, symlinks=True)
        for shared in (Path(sys.base_prefix) / "lib").glob("libpython*.so*"):
            shutil.copy(shared, folder / "lib")
        (folder / "bin").mkdir()
        shutil.copy(Path(sys.executable).resolve(), folder / "bin" / MINOR)
        (folder / "bin/python3").symlink_to(MINOR)
        add_package(folder / "bin/python3", "1.2")
        return str(folder / "bin/python3")

    return Path(shared_once("module-python", make))


@pytest.fixture
def own_python(module_python: Path, tmp_path: Path) -> Path:
    """The same once more, to be changed."""
    folder = tmp_path / "own module"
    shutil.copytree(module_python.parent.parent, folder, symlinks=True, copy_function=os.link)
    program = folder / "bin" / MINOR
    program.unlink()
    shutil.copy2(module_python.resolve(), program)
    return folder / "bin/python3"


@pytest.fixture
def build_on(limpet: Limpet, make_wheel: MakeWheel) -> BuildOn:  # noqa: F811
    """`build_on(python, image, *words)`: an image with `ours`, which imports `numbersite`."""

    def build(python: Path, image: Path, *words: str | Path) -> Path:
        wheel = make_wheel({"ours.py": b"import numbersite\n"}, name="ours", version="2.0")
        done = limpet("build", *asking(wheel), "--on", python, "-o", image, *words)
        assert done.returncode == 0, done.stderr
        return image

    return build
