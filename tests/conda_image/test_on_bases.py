"""Conda packages on bases of every shape, from channels that are hard to reach."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from limpet.actions.conda_fetch import Channels
from limpet.core.conda_channels import Condarc
from limpet.tools.apptainer import Runtime
from tests import images
from tests.conda.channel import Served, serve
from tests.conda_image.locks import read_channel
from tests.conda_image.test_building import Builder
from tests.conftest import Base, Limpet

pytestmark = pytest.mark.real
WHO = "import sys, greeter; print(sys.executable, sys.prefix)"


def run(runtime: Runtime, image: Path, *words: str) -> str:
    argv: list[str | Path] = [
        runtime.path,
        "--silent",
        "exec",
        "--no-home",
        "--cleanenv",
        image,
        *words,
    ]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(params=["plain", "miniconda"])
def base(request: pytest.FixtureRequest, cache_dir: Path, tmp_path: Path) -> str:
    """A base without Python, and one with a conda of its own that is first in its PATH."""
    images.without_python(images.debian_tar(cache_dir), tmp_path / "plain.tar")
    layers: list[Path | bytes] = [tmp_path / "plain.tar"]
    variables = [f"PATH={images.PATH}"]
    if request.param == "miniconda":
        wrong = "#!/bin/sh\necho the wrong one\nexit 9\n"
        names = ("python", "python3", "conda", "greet")
        own: dict[str, str | bytes | None] = {f"opt/conda/bin/{name}": wrong for name in names}
        own |= {
            "opt/conda/conda-meta/history": "",
            "opt/conda/etc/conda/activate.d/wrong.sh": "export WRONG=1\n",
        }
        layers.append(images.make_layer(own))
        variables = [
            f"PATH=/opt/conda/bin:{images.PATH}",
            "CONDA_PREFIX=/opt/conda",
            "CONDA_SHLVL=3",
        ]
    images.make_oci_layout(tmp_path / "base", layers, variables)
    return f"oci:{tmp_path / 'base'}"


def test_any_base_will_do(
    limpet: Limpet, runtime: Runtime, channel: Served, tmp_path: Path, base: str
) -> None:
    image = tmp_path / "x.sif"
    words = ("--conda", "greeter", "--conda", "activated", "--channel", channel.url)
    done = limpet("build", *words, "--base", base, "-o", image)
    assert done.returncode == 0, done.stderr
    assert run(runtime, image, "python", "-c", WHO) == "/opt/env/bin/python /opt/env\n"
    assert run(runtime, image, "greet") == "greetings from 2.0\n"
    variables = run(runtime, image, "env")
    assert "CONDA_PREFIX=/opt/env\n" in variables and "CONDA_SHLVL=1\n" in variables
    assert "ACTIVATED_HOME=/opt/env/share/activated\n" in variables
    assert "WRONG" not in variables


# ---- channels ------------------------------------------------------------------------------------


@contextmanager
def cutting(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A server that breaks off in the middle of each file, once, and can go on from there."""
    ranges: list[str] = []
    begun: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            ranges.append(wanted)
            data = (folder / self.path.lstrip("/")).read_bytes()
            start = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{len(data)}"')
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            cut = self.path not in begun
            begun.add(self.path)
            self.wfile.write(data[start : len(data) // 2] if cut else data[start:])

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", ranges
        server.shutdown()
        thread.join()


def test_a_channel_that_breaks_off_is_gone_on_with(
    debian_base: Base, runtime: Runtime, channel_folder: Path, tmp_path: Path
) -> None:
    with cutting(channel_folder) as (url, ranges):
        package = read_channel(channel_folder, url)["openssl"]
        image = Builder(debian_base, runtime, tmp_path).build([package])
    assert ranges == ["", f"bytes={(package.size_bytes or 0) // 2}-"]
    assert run(runtime, image, "ls", "/opt/env/lib/libssl.so.3")


def test_a_token_fetches_and_is_nowhere_kept(
    limpet: Limpet, channel_folder: Path, tmp_path: Path
) -> None:
    token = "sesame-0123456789"
    image, cache = tmp_path / "x.sif", tmp_path / "cache"
    with serve(channel_folder.parent, token=token) as served:
        url = f"{served.url}/t/{token}/{channel_folder.name}"
        words = ("build", "--conda", "greeter", "--channel", url, "-o", image)
        done = limpet("--cache-dir", cache, *words, "--base", "debian:trixie")
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout + done.stderr
    assert token.encode() not in image.read_bytes()


def test_mirrors_stand_in_for_a_channel() -> None:
    way = Channels(
        logins=("https://x.org/t/abc/own",),
        condarc=Condarc(mirrors={"https://c.org/forge": ("https://one/forge", "https://two/f/")}),
    )
    assert way.places("https://c.org/forge/noarch/a.conda") == (
        "https://one/forge/noarch/a.conda",
        "https://two/f/noarch/a.conda",
    )
    assert way.places("https://x.org/own/noarch/a.conda") == (
        "https://x.org/t/abc/own/noarch/a.conda",
    )
    assert way.places("https://c.org/forge2/a.conda") == ("https://c.org/forge2/a.conda",)


BACKEND = """
import sys
import zipfile

INFO = "local-1.0.dist-info"
METADATA = "Metadata-Version: 2.1\\nName: local\\nVersion: 1.0\\n"
WHEEL = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"


def build_wheel(folder, settings=None, metadata=None):
    name = "local-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("local.py", f"BUILT_BY = {sys.base_prefix!r}")
        wheel.writestr(f"{INFO}/METADATA", METADATA)
        wheel.writestr(f"{INFO}/WHEEL", WHEEL)
        wheel.writestr(f"{INFO}/RECORD", "")
    return name
"""


def test_sources_are_built_by_conda_python(
    limpet: Limpet, runtime: Runtime, channel: Served, tmp_path: Path
) -> None:
    project = tmp_path / "local"
    project.mkdir()
    (project / "backend.py").write_text(BACKEND)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "local"\nversion = "1.0"\n'
    )
    image = tmp_path / "x.sif"
    words = ("--conda", "greeter", "--channel", channel.url, "--pip", str(project))
    done = limpet("build", *words, "--base", "debian:trixie", "-o", image)
    assert done.returncode == 0, done.stderr
    text = "import local; print(local.BUILT_BY, local.__cached__)"
    cached = "/opt/env/lib/python3.13/site-packages/__pycache__/local.cpython-313.pyc"
    assert run(runtime, image, "python", "-c", text) == f"/opt/env {cached}\n"
