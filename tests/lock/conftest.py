"""A base made by hand, and a small package index on loopback."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from limpet.core.facts import BaseFacts, Distribution, Interpreter, Libc
from limpet.core.lock import LockedBase


def make_wheel(name: str, version: str, *requires: str, tag: str = "py3-none-any") -> bytes:
    """A wheel with one module, byte for byte the same each time."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {line}\n" for line in requires)
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return memory.getvalue()


@dataclass
class Index:
    """What the index serves: file name → bytes; `user`, if set, must be given with `password`."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    user: str = ""
    password: str = ""
    with_hashes: bool = True
    asked: list[str] = field(default_factory=list)

    def add(self, name: str, version: str, *requires: str, tag: str = "py3-none-any") -> str:
        """Serve a wheel; its sha256."""
        wheel = make_wheel(name, version, *requires, tag=tag)
        self.files[f"{name}-{version}-{tag}.whl"] = wheel
        return hashlib.sha256(wheel).hexdigest()

    @property
    def simple(self) -> str:
        return f"{self.url}/simple"

    def with_user(self, user: str, password: str) -> str:
        return self.simple.replace("http://", f"http://{user}:{password}@")

    def answer(self, path: str, authorization: str) -> tuple[int, bytes]:
        self.asked.append(path)
        expected = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        if self.user and authorization != f"Basic {expected}":
            return 401, b"no"
        words = path.strip("/").split("/")
        if words[0] == "files":
            found = self.files.get(words[-1].replace("%2B", "+"))
            return (200, found) if found else (404, b"")
        names = [name for name in self.files if name.split("-")[0].replace("_", "-") == words[-1]]
        if not names:
            return 404, b""
        return 200, "".join(map(self._link, names)).encode()

    def _link(self, name: str) -> str:
        digest = hashlib.sha256(self.files[name]).hexdigest()
        fragment = f"#sha256={digest}" if self.with_hashes else ""
        return f'<a href="/files/{name}{fragment}">{name}</a>\n'


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
