"""A base made by hand, and a small package index on loopback."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.core.facts import BaseFacts, Distribution, Interpreter, Libc
from limpet.core.lock import LockedBase

from .loopback_index import Index


@pytest.fixture
def index() -> Iterator[Index]:
    served = Index()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = served.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(code)
            if code == 401:
                self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.send_response(405)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def interpreter() -> Interpreter:
    return Interpreter(path="/usr/bin/python3", version="3.13.5", prefix="/usr", magic="f30d0d0a")


@pytest.fixture
def vendor() -> Interpreter:
    """A vendor image's Python: a large package with a local version, and things that it needs."""
    return Interpreter(
        path="/opt/vendor/bin/python",
        version="3.13.5",
        prefix="/opt/vendor",
        magic="f30d0d0a",
        distributions=(
            Distribution(
                name="Torch",
                version="2.3.0a0+vendor",
                requires=(
                    "lp-filelock",
                    "never-there>=3",
                    "lp-numbers>=9",
                    'lp-plots; extra == "plots"',
                ),
            ),
            Distribution(name="lp_filelock", version="3.13.1"),
            Distribution(name="lp-numbers", version="1.24.4"),
            Distribution(name="pip", version="24.0"),
        ),
    )


@pytest.fixture
def facts() -> BaseFacts:
    return BaseFacts(digest="sha256:1234", arch="x86_64", libc=Libc(family="glibc", version="2.41"))


@pytest.fixture
def base() -> LockedBase:
    return LockedBase(reference="debian:trixie", digest="sha256:1234", arch="x86_64")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache é with space"
