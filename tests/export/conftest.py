"""One project, locked and built by limpet, that all of these tests write out for others."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.build.workshop import Workshop
from tests.conftest import Push, SharedOnce

LISTING = (
    "import json, re; from importlib.metadata import distributions; "
    "print(json.dumps(sorted({(re.sub('[-_.]+', '-', d.metadata['Name']).lower(), d.version) "
    "for d in distributions()})))"
)
CA_PLACES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
CA_INSIDE = "/etc/ssl/certs/ca-certificates.crt"

Listing = list[list[str]]


@pytest.fixture(scope="session")
def base(push: Push) -> str:
    """Debian with its Python, in the loopback registry."""
    return push("debian-python", lambda tar, _: [tar])


@pytest.fixture(scope="session")
def project(
    base: str, cache_dir: Path, shared_once: SharedOnce, tmp_path_factory: pytest.TempPathFactory
) -> Workshop:
    """A recipe with a wheel beside it, one from the index, a file and a variable."""

    def make() -> str:
        workshop = Workshop(tmp_path_factory.mktemp("my prüject"), cache=cache_dir, base=base)
        workshop.add_wheel("tiny", {"tiny/__init__.py": "answer = 42\n"})
        workshop.write("two words.txt", "a line\n")
        workshop.write("requirements.in", "--find-links wheels\ntiny\ntabulate==0.9.0\n")
        workshop.write("limpet.toml", RECIPE)
        workshop.build("limpet.toml", "-o", "image.sif")
        return str(workshop.folder)

    # Each worker has a registry of its own, and a push takes from the base's what it has.
    name = f"export-project-{base.partition('://')[2].partition('/')[0].replace(':', '-')}"
    folder = Path(shared_once(name, make))
    return Workshop(folder, cache=cache_dir, base=base)


RECIPE = """\
[packages]
files = ["requirements.in"]

[files]
"two words.txt" = "/opt/data/two words.txt"

[env]
SURVEY = 'a "b" $c'

[image.labels]
"org.example.field" = "7 b"
"""


@pytest.fixture
def listing(project: Workshop) -> Listing:
    """What limpet's own image has."""
    found: Listing = json.loads(project.python(project.folder / "image.sif", LISTING))
    assert ["tabulate", "0.9.0"] in found
    assert ["tiny", "1.0"] in found
    return found


def host_ca() -> str:
    """The host's certificates: a build elsewhere has its own."""
    named = (os.environ.get(name, "") for name in CA_PLACES)
    return next((path for path in named if path and Path(path).is_file()), "")


Buildah = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def buildah(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """Debian's buildah, rootless, with a store of its own."""
    folder = tmp_path_factory.mktemp("buildah")
    for name in ("home", "run"):
        (folder / name).mkdir()

    def run(*words: str | Path, fails: bool = False) -> subprocess.CompletedProcess[str]:
        argv: list[str | Path] = ["buildah", "--storage-driver", "vfs"]
        argv += ["--root", folder / "store", "--runroot", folder / "run", *words]
        done = subprocess.run(
            [str(word) for word in argv],
            env={**os.environ, "HOME": str(folder / "home"), "BUILDAH_ISOLATION": "chroot"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert fails or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    yield run
    run("unshare", "rm", "-rf", folder / "store")  # it belongs to the user's other ids
