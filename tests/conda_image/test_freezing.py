"""From what is there to a lock, and from the lock alone to an image again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from limpet.core.pylock import parse_lock
from tests.conda.channel import Served
from tests.conftest import Limpet

pytestmark = pytest.mark.real


def install(prefix: Path, channel: Path, *specs: str) -> None:
    """A conda environment on the disk, as the engine installs it."""
    from rattler import BuildString, GenericVirtualPackage, PackageName, Version, install, solve

    async def put() -> None:
        libc = GenericVirtualPackage(PackageName("__glibc"), Version("2.41"), BuildString("0"))
        records = await solve([channel.as_uri()], list(specs), virtual_packages=[libc])
        await install(records, prefix, cache_dir=prefix.with_name("packages"))

    asyncio.run(put())


def test_an_image_is_frozen_and_built_from_its_lock(
    limpet: Limpet, channel: Served, tmp_path: Path, make_wheel: Callable[..., Path]
) -> None:
    wheel = make_wheel({"mine/__init__.py": b"VALUE = 'mine'\n"}, name="mine")
    image, lock = tmp_path / "x.sif", tmp_path / "frozen.toml"
    words = ("build", "--conda", "greeter=1", "--channel", channel.url, "--pip", wheel)
    done = limpet(*words, "--base", "debian:trixie", "-o", image)
    assert done.returncode == 0, done.stderr
    done = limpet("lock", "--freeze", image, "-o", lock)
    assert done.returncode == 0, done.stderr
    told = lock.read_bytes()
    assert {one.name for one in parse_lock(told.decode(), "lock").packages} == {"mine"}
    # Named alone, a lock is what is meant: never solved anew, and never written over.
    for number, one in enumerate((("--lock", lock, "--frozen"), ("--lock", lock), (lock,))):
        output = tmp_path / f"again{number}.sif"
        done = limpet("build", *one, "-o", output)
        assert done.returncode == 0, done.stderr
        assert lock.read_bytes() == told
        text = "import mine, greeter; print(mine.VALUE, greeter.__version__)"
        assert limpet("run", output, "python", "-c", text).stdout == "mine 1.0\n"
    done = limpet("build", "--lock", lock, "--upgrade", "-o", tmp_path / "no.sif")
    assert done.returncode == 2 and "no recipe" in done.stderr
    assert lock.read_bytes() == told


@pytest.mark.parametrize("specs", [("greeter=1", "prefixed"), ("prefixed",)])
def test_a_prefix_is_frozen_and_built_without_it(
    limpet: Limpet,
    plain_os: str,
    channel_folder: Path,
    tmp_path: Path,
    specs: tuple[str, ...],
) -> None:
    """On a base without Python; with and without one in the environment."""
    install(tmp_path / "old", channel_folder, *specs)
    lock, image = tmp_path / "pylock.old.toml", tmp_path / "old.sif"
    done = limpet("lock", "--freeze", tmp_path / "old", "--base", plain_os, "-o", lock)
    assert done.returncode == 0, done.stderr
    told = lock.read_bytes()
    done = limpet("build", "--lock", lock, "--frozen", "-o", image)
    assert done.returncode == 0, done.stderr
    assert lock.read_bytes() == told
    ran = limpet("run", image, "prefixed")
    assert ran.stdout.startswith("/opt/env ") and ran.stdout.endswith("the data\n"), ran.stderr
    if "greeter=1" in specs:
        assert limpet("run", image, "greet").stdout == "greetings from 1.0\n"
