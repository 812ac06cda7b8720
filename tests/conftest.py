"""What every test may ask for, and what no test may do.

Tests marked `real` work with the real Apptainer, registry, uv and package index, as a plain user.
All others start no process at all. Everything slow is made once and shared: downloads by all runs
(`cache_dir`), registries and bases by all workers of one run (`shared_once`).
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

from limpet.core.facts import BaseFacts, Interpreter
from limpet.core.lock import LockedBase
from limpet.tools import apptainer, process
from limpet.tools.apptainer import Runtime

if TYPE_CHECKING:
    from tests.cluster import Cluster

SOURCE = Path(__file__).parents[1] / "src"

# How long an example takes, or is looked for, says something of the machine. Continuous integration
# judges a change, so it has the same examples each time; everybody else looks for new ones.
settings.register_profile(
    "limpet",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("limpet")

# Settings that would change what limpet does. How this machine reaches the package index stays.
FORGOTTEN = ("LIMPET_", "APPTAINER_", "APPTAINERENV_", "SINGULARITY_", "SINGULARITYENV_", "UV_")
KEPT = ("LIMPET_TEST_", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS")

# Fixtures that start programs.
STARTERS = {
    "runtime",
    "registry",
    "debian_base",
    "python_slim",
    "plain_os",
    "vendor_base",
    "limpet",
    "cluster",
}


def pytest_configure() -> None:
    for name in list(os.environ):
        if name.startswith(FORGOTTEN) and not name.startswith(KEPT):
            del os.environ[name]
    # With it print() writes a line in parts, and ranks that share an output write between them.
    os.environ.pop("PYTHONUNBUFFERED", None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    real = item.get_closest_marker("real")
    asked = STARTERS & set(getattr(item, "fixturenames", ()))
    if asked and not real:
        pytest.fail(f"{', '.join(sorted(asked))} start programs: mark it `real`.", pytrace=False)
    if real and os.geteuid() == 0:
        pytest.fail(
            "Real tests run as a plain user, as limpet does: `make test` sees to it "
            "(or: scripts/as-plain-user make quick; -m 'not real' leaves them out).",
            pytrace=False,
        )


@pytest.fixture(autouse=True)
def no_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside tests marked `real`, limpet starts nothing."""
    if request.node.get_closest_marker("real"):
        return

    def refuse(argv: object, *_: object, **__: object) -> None:
        raise AssertionError(f"a test that is not marked `real` tried to start {argv}")

    for name in ("run", "start", "replace_by"):
        monkeypatch.setattr(process, name, refuse)


# ---- folders -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """limpet's cache for the tests, kept between runs: downloads, bases, pieces."""
    named = os.environ.get("LIMPET_TEST_CACHE", "")
    home = Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache")
    folder = Path(named) if named else home / "limpet-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A throw-away home folder: HOME and the XDG folders below it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("CACHE_HOME", "CONFIG_HOME", "DATA_HOME", "STATE_HOME", "RUNTIME_DIR"):
        monkeypatch.delenv(f"XDG_{name}", raising=False)
    return folder


class SharedOnce(Protocol):
    def __call__(self, name: str, make: Callable[[], Any]) -> Any: ...


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def shared_once(run_folder: Path) -> SharedOnce:
    """`shared_once(name, make)`: the JSON value that the first worker's `make()` gave."""

    def get(name: str, make: Callable[[], Any]) -> Any:
        kept = run_folder / f"{name}.json"
        with (run_folder / f"{name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                partial = kept.with_suffix(".partial")
                partial.write_text(json.dumps(make()), encoding="utf-8")
                partial.replace(kept)
        return json.loads(kept.read_text(encoding="utf-8"))

    return get


# ---- bases and where they come from --------------------------------------------------------------


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """The container runtime of this machine."""
    return apptainer.probe_runtime()


@pytest.fixture(scope="session")
def registry(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real registry on loopback.

    Each worker has its own; all serve the same folder, so an image is pushed once for a run.
    """
    from tests import images

    shared = run_folder / "registry-data"
    shared.mkdir(exist_ok=True)
    folder = tmp_path_factory.mktemp("registry")
    (folder / "data").symlink_to(shared)
    with images.start_registry(folder) as address:
        yield address


MakeLayers = Callable[[Path, Path], list["Path | bytes"]]
Push = Callable[[str, MakeLayers], str]


@pytest.fixture(scope="session")
def push(
    registry: str,
    shared_once: SharedOnce,
    cache_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Push:
    """`push(name, layers)`: the reference of an image, pushed by the first worker that asks.

    `layers(debian, scratch)` gives its layers; `debian` is a tar of Debian with its Python.
    """
    from tests import images

    def get(name: str, layers: MakeLayers) -> str:
        def make() -> str:
            scratch = tmp_path_factory.mktemp(name)
            made = layers(images.debian_tar(cache_dir), scratch)
            images.make_oci_layout(scratch / "layout", made)
            images.push_image(scratch / "layout", registry, f"shared/{name}")
            shutil.rmtree(scratch)
            return f"shared/{name}:latest"

        return f"docker://{registry}/{shared_once(f'image-{name}', make)}"

    return get


@pytest.fixture(scope="session")
def python_slim(push: Push) -> str:
    """An image shaped like `python:slim`: Python in /usr/local."""
    from tests import images

    return push("slim", lambda tar, scratch: [images.python_slim(tar, scratch / "slim.tar")])


@pytest.fixture(scope="session")
def plain_os(push: Push) -> str:
    """An operating system without Python."""
    from tests import images

    return push("plain", lambda tar, scratch: [images.without_python(tar, scratch / "plain.tar")])


@pytest.fixture(scope="session")
def vendor_base(push: Push) -> str:
    """A vendor image: Debian's Python with a torch 2.3.0a0+vendor that no index has."""
    from tests import images

    return push("vendor", lambda tar, scratch: [tar, images.vendor_layer()])


@dataclass(frozen=True)
class Base:
    """A base that is there: as written, as locked, as a file, and what is known of it."""

    reference: str
    locked: LockedBase
    sif: Path
    facts: BaseFacts
    interpreter: Interpreter


@pytest.fixture(scope="session")
def debian_base(cache_dir: Path, runtime: Runtime) -> Base:
    """`debian:trixie`, made by limpet itself and kept between runs."""
    from limpet.actions import bases

    reference = "debian:trixie"
    locked = bases.resolve_base(reference, cache=cache_dir, arch=platform.machine())
    sif = bases.fetch_base(locked, cache=cache_dir)
    facts = bases.probe_base(locked, sif, cache=cache_dir, runtime=runtime)
    interpreter = bases.choose_interpreter(facts, "")
    return Base(reference=reference, locked=locked, sif=sif, facts=facts, interpreter=interpreter)


@pytest.fixture(scope="session")
def profiled_image(
    run_folder: Path, cache_dir: Path, debian_base: Base, shared_once: SharedOnce
) -> Path:
    """An image that says what is to be read ahead, in a folder of its own."""
    image = run_folder / "profiled" / "im age.sif"

    def make() -> None:
        image.parent.mkdir(exist_ok=True)
        words = ("--base", debian_base.reference, "--profile", "python -c 'import json'")
        subprocess.run(
            [sys.executable, "-P", "-m", "limpet", "-q", "build", *words, "-o", image],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "LIMPET_CACHE_DIR": str(cache_dir)},
            cwd=image.parent,
            check=True,
        )

    shared_once("profiled", make)
    return image


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm of four nodes, all of it this user's own.

    Tests that use it are marked `xdist_group("slurm")`, so that one worker starts it, once, and no
    test sees what another one takes from the nodes.
    """
    from tests import cluster as slurm

    if missing := slurm.missing_programs():
        pytest.skip(f"needs {', '.join(missing)}: slurm-wlm, munge, util-linux, gcc")
    with slurm.start_cluster() as running:
        yield running


# ---- limpet as its users start it ---------------------------------------------------------------


class Limpet(Protocol):
    def __call__(
        self,
        *words: str | Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str = "",
        timeout_s: float = 600,
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def limpet(cache_dir: Path, home: Path, tmp_path: Path) -> Limpet:
    """Runs the command line in a process of its own, as users do, with a throw-away home.

    It shares the tests' cache; `env` adds to (or overrides) the environment. The exit code is the
    test's to judge.
    """

    def run(
        *words: str | Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str = "",
        timeout_s: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        variables = {
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "LIMPET_CACHE_DIR": str(cache_dir),
            **(env or {}),
        }
        return subprocess.run(
            [sys.executable, "-P", "-m", "limpet", *map(str, words)],
            env=variables,
            cwd=cwd or tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run
