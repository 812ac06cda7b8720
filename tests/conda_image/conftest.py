"""The channel with real content over HTTP, and packages of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from limpet.core.conda import CondaPackage
from tests.conda.channel import Package, Served, serve, write_package
from tests.conda.conftest import channel as channel_folder  # noqa: F401 - a fixture
from tests.conda_image.locks import package_of
from tests.pieces.conftest import make_wheel  # noqa: F401 - a fixture


@pytest.fixture
def channel(channel_folder: Path) -> Iterator[Served]:  # noqa: F811
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
