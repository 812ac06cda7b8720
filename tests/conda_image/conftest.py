"""The channel with real content, made once a run, and small ones of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from limpet.core.conda import CondaPackage
from tests.conda.channel import Package, Served, make_channel, serve, write_package
from tests.conda_image.locks import package_of
from tests.pieces.conftest import make_wheel  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def channel_folder(cache_dir: Path, run_folder: Path, shared_once: Callable[..., Any]) -> Path:
    """The channel of the tests on the disk."""
    from tests import images

    def make() -> str:
        folder = run_folder / "conda-images-channel"
        return str(make_channel(folder, images.debian_tar(cache_dir)))

    return Path(shared_once("conda-images-channel", make))


@pytest.fixture
def channel(channel_folder: Path) -> Iterator[Served]:
    """The same over HTTP."""
    with serve(channel_folder) as served:
        yield served


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., tuple[Path, CondaPackage]]:
    """A package of the test's own: the archive, and how a lock names it."""

    def write(package: Package) -> tuple[Path, CondaPackage]:
        path = write_package(tmp_path / "own", package)
        return path, package_of(path, package)

    return write
