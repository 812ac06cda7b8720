"""Images whose makers set where packages write, as vendors do: their word counts where it can."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from limpet.actions.image_known import with_known
from limpet.tools import image_needs
from limpet.tools.images import read_image
from tests.launch.conftest import Person, _squash, _write

pytestmark = pytest.mark.real

# As the runtime writes what `docker://` says, and as a definition file's %environment does.
OF_CONTAINER = """\
#!/bin/sh
export TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-"/tmp/theirs/triton"}"
export NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-"/opt/theirs/numba"}"
export NLTK_DATA="${NLTK_DATA:-"/opt/nltk_data"}"
export PYTENSOR_FLAGS="${PYTENSOR_FLAGS:-"device=cpu"}"
"""
OF_DEFINITION = """\
export CUPY_CACHE_DIR=$HOME/theirs/cupy
export KERAS_HOME=/opt/keras
"""
INSIDE = "/.limpet/home"
SAID = {
    "TRITON_CACHE_DIR": "/tmp/theirs/triton",
    "NUMBA_CACHE_DIR": f"{INSIDE}/.cache/node-local/numba",
    "NLTK_DATA": "/opt/nltk_data",
    "PYTENSOR_FLAGS": f"device=cpu,base_compiledir={INSIDE}/.cache/node-local/pytensor",
    "KERAS_HOME": "/opt/keras",
    "CUDA_CACHE_PATH": f"{INSIDE}/.cache/node-local/nv",
    "IPYTHONDIR": f"{INSIDE}/.ipython",
}


@pytest.fixture(scope="module")
def vendor_sif(work: Path, root_squashfs: Path) -> Path:
    root = work / "vendor"
    shutil.copytree(work / "root", root, symlinks=True)
    scripts = root / ".singularity.d/env"
    scripts.mkdir(parents=True)
    (scripts / "10-docker2singularity.sh").write_text(OF_CONTAINER)
    (scripts / "90-environment.sh").write_text(OF_DEFINITION)
    (scripts / "99-base.sh").touch()
    return _write(work / "vendor.sif", [_squash(root, work / "vendor.sqfs")])


def said(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


@pytest.mark.parametrize("way", ["run", "launcher"])
def test_their_places_count_where_they_can_be_written(
    person: Person, vendor_sif: Path, way: str
) -> None:
    if way == "run":
        seen = said(person.limpet("run", vendor_sif, "env"))
        said_otherwise = person.limpet("run", "--env", "TRITON_CACHE_DIR=/x", vendor_sif, "env")
        assert said(said_otherwise)["TRITON_CACHE_DIR"] == "/x"
    else:
        folder = person.home.parent / "launchers"
        made = person.limpet("wrap", vendor_sif, folder, "--folder", "/usr/bin", "--only", "env")
        assert made.returncode == 0, made.stderr
        argv = [str(folder / "bin/env")]
        env = person.environment()
        seen = said(subprocess.run(argv, env=env, cwd=person.home, capture_output=True, text=True))
    assert {name: seen[name] for name in SAID} == SAID
    assert seen["CUPY_CACHE_DIR"] == f"{person.home}/theirs/cupy"


def test_what_counts_can_be_written(person: Person, vendor_sif: Path) -> None:
    places = '"$TRITON_CACHE_DIR" "$NUMBA_CACHE_DIR" "$CUPY_CACHE_DIR" "$CUDA_CACHE_PATH"'
    script = f'for place in {places}; do mkdir -p "$place" && touch "$place/x" || exit 1; done'
    done = person.limpet("run", vendor_sif, "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    shutil.rmtree("/tmp/theirs")


def test_the_image_is_read_once_and_again_when_it_is_another(
    person: Person, vendor_sif: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image.sif"
    shutil.copy(vendor_sif, image)
    cache = tmp_path / "cache"
    seen = with_known(read_image(str(image)), cache)
    assert seen.env["NUMBA_CACHE_DIR"] == "/opt/theirs/numba"
    with monkeypatch.context() as patched:
        patched.setattr(image_needs, "read_known", lambda *_: pytest.fail("read again"))
        assert with_known(read_image(str(image)), cache) == seen
    bare = tmp_path / "bare.sqfs"
    (tmp_path / "bare/bin").mkdir(parents=True)
    _write(image, [_squash(tmp_path / "bare", bare)])
    assert with_known(read_image(str(image)), cache).env == {}


def test_a_later_start_brings_no_squashfs_reader(person: Person, vendor_sif: Path) -> None:
    """What is known is kept, so that a start's plan costs what it did before."""
    program = (
        "import sys; from limpet.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('limpet.formats.squashfs' in sys.modules, file=sys.stderr)"
    )
    told = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, "run", "--dry-run", str(vendor_sif), "true"],
            env=person.environment(),
            cwd=person.home,
            capture_output=True,
            text=True,
        )
        told.append(done.stderr.splitlines()[-1])
    assert told == ["True", "False"]
