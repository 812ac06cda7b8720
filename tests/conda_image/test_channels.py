"""The way to a channel: .condarc, channels that go away half way, and two builds at once."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conda.channel import Package, write_channel
from tests.conftest import Limpet

pytestmark = pytest.mark.real
BASE = ("--base", "debian:trixie")


@contextmanager
def answering(
    folder: Path, judge: Callable[[str], bool], context: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[str]]]:
    """A server, and a proxy as well, of a folder; what `judge` says no to is dropped."""
    asked: list[str] = []

    class Answer(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.path = urlsplit(self.path).path
            if judge(self.path):
                super().do_GET()
            else:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    handler = partial(Answer, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A folder of one channel, `ch`, whose packages no cache has."""
    write_channel(
        tmp_path / "served" / "ch",
        *(
            Package(name=name, files={f"share/{name}": f"{uuid.uuid4()}\n"})
            for name in ("first", "second", "third")
        ),
    )
    return tmp_path / "served"


def test_proxies_serve_solver_and_downloads(
    limpet: Limpet, served: Path, home: Path, tmp_path: Path
) -> None:
    image = tmp_path / "x.sif"
    with answering(served, lambda path: True) as (port, asked):
        (home / ".condarc").write_text(
            f"proxy_servers:\n  http: http://127.0.0.1:{port}\n"
            "channel_alias: http://conda.invalid\nchannels: [ch]\n"
        )
        done = limpet("build", "--conda", "first", *BASE, "-o", image)
    assert done.returncode == 0, done.stderr
    assert any(path.startswith("http://conda.invalid/ch/linux") for path in asked)
    assert any(path.endswith("first-1.0-0.conda") for path in asked)


def test_ssl_verify_serves_solver_and_downloads(
    limpet: Limpet, served: Path, home: Path, tmp_path: Path
) -> None:
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key -out cert"
    words += " -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    subprocess.run(["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with answering(served, lambda path: True, context) as (port, _):
        channels = f"custom_channels:\n  ch: https://localhost:{port}\n"
        for name, verify in (("first", f"{tmp_path}/cert"), ("second", "false")):
            (home / ".condarc").write_text(f"{channels}ssl_verify: {verify}\n")
            image = tmp_path / f"{name}.sif"
            words_ = ("build", "--conda", name, "--channel", "ch", *BASE, "-o", image)
            done = limpet(*words_)
            assert done.returncode == 0, done.stderr
        (home / ".condarc").write_text(channels)
        done = limpet("build", "--conda", "third", "--channel", "ch", *BASE, "-o", tmp_path / "no")
        assert done.returncode == 6 and "Traceback" not in done.stderr


def test_a_channel_that_goes_away_half_way(limpet: Limpet, served: Path, tmp_path: Path) -> None:
    """What had come is kept: the next build fetches the rest and nothing twice."""
    recipe, image = tmp_path / "environment.yml", tmp_path / "x.sif"
    gone = [True]
    with answering(served, lambda path: not (gone[0] and "third" in path)) as (port, asked):
        recipe.write_text(
            f"channels: ['http://127.0.0.1:{port}/ch']\ndependencies: [first, second, third]\n"
        )
        done = limpet("build", recipe, *BASE, "-o", image)
        assert done.returncode == 6, done.stderr
        assert "third-1.0-0.conda" in done.stderr and "Traceback" not in done.stderr
        assert sorted(one.name for one in tmp_path.iterdir()) == [
            *("environment.yml", "home", "served")
        ]
        had = {path for path in asked if path.endswith(".conda") and "third" not in path}
        gone[0] = False
        asked.clear()
        done = limpet("build", recipe, *BASE, "-o", image)
        assert done.returncode == 0, done.stderr
    again = [path for path in asked if path.endswith(".conda")]
    assert len(again) == len(set(again)) and not had & set(again)
    assert limpet("run", image, "cat", "/opt/env/share/third").returncode == 0


def test_two_builds_in_two_processes_share_one_cache(
    limpet: Limpet, served: Path, tmp_path: Path
) -> None:
    channel = ("--channel", served / "ch")
    specs = ("--conda", "first", "--conda", "second", "--conda", "third")

    def make(number: int) -> tuple[int, str]:
        image = tmp_path / f"{number}.sif"
        done = limpet("build", *specs, *channel, *BASE, "-o", image)
        return done.returncode, done.stderr

    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(make, range(3)))
    assert [code for code, _ in results] == [0, 0, 0], results
    images = [(tmp_path / f"{number}.sif") for number in range(3)]
    for image in images:
        ran = limpet("run", image, "cat", "/opt/env/share/first", "/opt/env/share/third")
        assert ran.returncode == 0 and len(ran.stdout.split()) == 2, ran.stderr


def test_a_prefix_that_does_not_fit_into_a_binary(
    limpet: Limpet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package from before 2017, with room for a shorter path than /opt/env."""
    channel = tmp_path / "old"
    monkeypatch.setattr("tests.conda.channel.PLACEHOLDER", "/opt/e")
    write_channel(channel, Package(name="tight", files={"bin/tight": b"\x7fELF\0/opt/e/lib\0"}))
    recipe = tmp_path / "environment.yml"
    recipe.write_text(f"channels: ['{channel}']\ndependencies: [tight]\n")
    before = sorted(tmp_path.rglob("*"))
    done = limpet("build", recipe, *BASE, "-o", tmp_path / "x.sif")
    assert done.returncode == 7, done.stderr
    assert "bin/tight of tight-1.0-0.conda cannot be installed at /opt/env" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
