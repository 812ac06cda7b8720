"""Folders that are worth packing: a conda environment, a Python at a place of its own, a tool."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import uv

from tests.conda.channel import SUBDIR
from tests.conda.conftest import channel  # noqa: F401 - a fixture
from tests.conftest import SharedOnce
from tests.pieces.conftest import make_wheel  # noqa: F401 - a fixture

PACKAGES = ("python", "greeter", "activated", "prefixed", "numeric")


def install_conda(
    channel: Path,  # noqa: F811
    prefix: Path,
    cache: Path,
    names: Sequence[str] = PACKAGES,
) -> None:
    """A conda environment, as py-rattler installs it."""
    from rattler import (
        Channel,
        GenericVirtualPackage,
        PackageName,
        Subdir,
        Version,
        install,
        solve,
    )
    from rattler.package import BuildString

    async def make() -> None:
        libc = GenericVirtualPackage(PackageName("__glibc"), Version("2.41"), BuildString("0"))
        records = await solve(
            [Channel(channel.as_uri())],
            list(names),
            platforms=[Subdir(SUBDIR), Subdir("noarch")],
            virtual_packages=[libc],
        )
        await install(records, target_prefix=prefix, cache_dir=cache)

    asyncio.run(make())


@pytest.fixture(scope="session")
def conda_original(channel: Path, run_folder: Path, shared_once: SharedOnce) -> Path:  # noqa: F811
    """A conda environment, to be packed and not to be changed."""

    def make() -> str:
        prefix = run_folder / "a cönda"
        install_conda(channel, prefix, run_folder / "conda-packages")
        shutil.rmtree(run_folder / "conda-packages")
        return str(prefix)

    return Path(shared_once("packed-conda", make))


@pytest.fixture(scope="session")
def own_python(run_folder: Path, shared_once: SharedOnce) -> Path:
    """The tests' own Python once more, at a place that no image has."""

    def make() -> str:
        folder = run_folder / "pythons" / "mine"
        minor = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        left_out = shutil.ignore_patterns(
            *("test", "tests", "idlelib", "tkinter", "dist-packages", "site-packages"),
            *("__pycache__", "config-*", "lib2to3", "pydoc_data", "ensurepip", "turtledemo"),
        )
        library = Path(os.__file__).parent
        shutil.copytree(library, folder / "lib" / minor, ignore=left_out, symlinks=True)
        (folder / "bin").mkdir()
        program = Path(sys.executable).resolve()
        shutil.copy(program, folder / "bin" / minor)
        for name in ("python", "python3"):
            (folder / "bin" / name).symlink_to(minor)
        return str(folder)

    return Path(shared_once("packed-python", make))


def make_venv(python: Path, folder: Path, *wheels: Path) -> None:
    """A virtual environment with these wheels in it, and their byte code as pip leaves it."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    install = [uv.find_uv_bin(), "pip", "install", "--quiet", "--offline", "--no-cache"]
    subprocess.run([*install, "--python", folder / "bin/python", *wheels], check=True)


def make_tool(folder: Path) -> Path:
    """A folder as Spack makes it: programs, hard links, links, holes, no Python."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    (folder / ".spack").mkdir()
    (folder / ".spack/spec.json").write_text(
        json.dumps({"spec": {"nodes": [{"name": "greeting", "version": "1.3"}]}}), encoding="utf-8"
    )
    (programs / "tool").write_text('#!/bin/sh\ncat "${0%/*}/../share/text"\n', encoding="utf-8")
    (programs / "tool").chmod(0o750)
    os.link(programs / "tool", programs / "same")
    (folder / "share").mkdir()
    (folder / "share/text").write_text("said by the tool\n", encoding="utf-8")
    (folder / "share/text").chmod(0o600)
    (folder / "share/link").symlink_to("text")
    with (folder / "share/holes").open("wb") as file:
        file.truncate(3_000_000)
        file.seek(2_000_000)
        file.write(b"in the middle")
    (folder / "share/large").write_bytes(os.urandom(1_500_000))
    return folder
