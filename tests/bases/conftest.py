"""What the tests of bases share: Debian's tar, images of the usual shapes, a registry with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.tools import apptainer
from tests import images

ARCH = os.uname().machine


@pytest.fixture(scope="session")
def keep() -> Path:
    """What outlives a test run, since it comes from the network."""
    named = os.environ.get("LIMPET_TEST_CACHE", "")
    return Path(named) if named else Path.home() / ".cache" / "limpet-tests"


@pytest.fixture(scope="session")
def debian_tar(keep: Path) -> Path:
    return images.debian_tar(keep)


@pytest.fixture(scope="session")
def runtime() -> apptainer.Runtime:
    return apptainer.probe_runtime()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a name that trips up what does not quote."""
    return tmp_path_factory.mktemp("cache with ümlaut")


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory, debian_tar: Path) -> Path:
    """OCI layouts by name: the shapes that users build on."""
    folder = tmp_path_factory.mktemp("layouts")
    slim = images.python_slim(debian_tar, folder / "slim.tar")
    plain = images.without_python(debian_tar, folder / "plain.tar")
    env = (f"PATH={images.PATH}", "VENDOR_HOME=/opt/a b")
    images.make_oci_layout(folder / "debian", [debian_tar], env, index=True)
    images.make_oci_layout(folder / "plain", [plain], compression="zstd")
    images.make_oci_layout(folder / "slim", [slim], command=["python3"])
    images.make_oci_layout(folder / "vendor", [debian_tar, images.vendor_layer()], env)
    for tar in (slim, plain):
        tar.unlink()
    return folder


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory, layouts: Path) -> Iterator[str]:
    """A registry that has all of `layouts`."""
    with images.start_registry(tmp_path_factory.mktemp("registry")) as address:
        for name in ("debian", "plain", "slim", "vendor"):
            images.push_image(layouts / name, address, f"shapes/{name}")
        yield address
