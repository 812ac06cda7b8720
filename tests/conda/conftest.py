"""The channel that the tests share, made once per cache folder; and locking without a command."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from limpet.actions.conda_lock import CondaAnswer, lock_conda
from limpet.core.facts import Arch, BaseFacts, Libc
from limpet.core.recipe import Recipe
from limpet.tools.recipes import read_recipe
from tests.conda import channel as channels
from tests.conda.channel import SUBDIR, Package, write_channel


@pytest.fixture(scope="session")
def channel(cache_dir: Path) -> Path:
    """The large channel, with a working Python; for tests marked `real`."""
    from limpet.tools import files
    from tests import images

    made_by = hashlib.sha256(Path(channels.__file__).read_bytes()).hexdigest()[:12]
    folder = cache_dir / f"conda-channel-{made_by}"
    with files.held(cache_dir / "conda-channel.lock"):
        if not folder.exists():
            partial = cache_dir / f"conda-channel-{made_by}.partial"
            channels.make_channel(partial, images.debian_tar(cache_dir))
            partial.replace(folder)
    return folder


def small_packages() -> list[Package]:
    """A Python of nothing but its name, and packages that need it or quarrel with each other."""
    abi = ("python >=3.9",)
    return [
        Package(name="python", version="3.12.9", build="h0_cpython"),
        Package(name="python", version="3.13.5", build="h0_cpython", depends=("__glibc >=2.17",)),
        Package(name="greeter", version="1.0", noarch="python", depends=abi),
        Package(name="greeter", version="1.5", noarch="python", depends=abi, extension=".tar.bz2"),
        Package(name="greeter", version="2.0", build="py_1", noarch="python", depends=abi),
        Package(name="numeric", version="2.1.0", depends=("python >=3.13,<3.14.0a0",)),
        Package(name="setuptools", version="80.9.0", noarch="python", depends=abi),
        Package(name="pip", version="25.1", noarch="python", depends=abi),
        Package(name="fast", version="1.0", build="cpu_0"),
        Package(name="fast", version="1.0", build="cuda_0", number=1, depends=("__cuda >=12",)),
        Package(name="only-cuda", depends=("__cuda >=12",)),
        Package(name="newlibc", depends=("__glibc >=2.99",)),
        Package(name="elsewhere", subdir="osx-arm64"),
        Package(name="shared", version="1.0"),
        Package(name="shared", version="2.0"),
        Package(name="clash-old", depends=("shared <2",)),
        Package(name="clash-new", depends=("shared >=2",)),
    ]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small channel, quickly made; its packages say much and hold nothing."""
    return write_channel(tmp_path_factory.mktemp("channels") / "smäll one", *small_packages())


@pytest.fixture
def here(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe's folder; no `.condarc`, netrc or login of the host's counts."""
    for name in [name for name in os.environ if name.startswith(("CONDA", "MAMBA", "RATTLER"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    folder = tmp_path / "my prüject"
    folder.mkdir()
    return folder


@pytest.fixture
def facts() -> BaseFacts:
    # The channel's packages are for the machine that runs the tests.
    arch: Arch = "x86_64" if SUBDIR == "linux-64" else "aarch64"
    return BaseFacts(digest="sha256:1234", arch=arch, libc=Libc(family="glibc", version="2.41"))


Solve = Callable[..., CondaAnswer]


@pytest.fixture
def solve(here: Path, tmp_path: Path, facts: BaseFacts) -> Solve:
    """Lock the conda packages of an environment.yml's text, or of the named descriptions."""

    def solver(
        text: str = "",
        *names: str,
        flags: Recipe | None = None,
        facts: BaseFacts = facts,
        **options: object,
    ) -> CondaAnswer:
        if text:
            (here / "environment.yml").write_text(text, "utf-8")
        paths = [here / name for name in (*(["environment.yml"] if text else []), *names)]
        loaded = read_recipe(paths, flags=flags)
        options = {"cache": tmp_path / "cache", "folder": here, **options}
        return lock_conda(loaded, facts, **options)  # type: ignore[arg-type]

    return solver
