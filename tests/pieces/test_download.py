"""Downloads from a real HTTP server on loopback that misbehaves as told."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from limpet.core.errors import FetchError
from limpet.tools.download import ATTEMPTS, Fetcher, copy_file

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at /file; `failures` are what the next requests meet."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures: list[int | str] = []
        self.requests: list[dict[str, str]] = []
        self.redirect = ""

    def url(self, path: str = "/file") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append(dict(self.headers.items()))
        failure = self.server.failures.pop(0) if self.server.failures else ""
        if isinstance(failure, int):
            self.send_error(failure)
        elif self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
        elif self.path != "/file":
            self.send_error(404)
        else:
            self._send(cut=failure == "cut")

    def _send(self, *, cut: bool) -> None:
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


Login = tuple[str, str] | None
Fetch = Callable[..., Path]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    def get(url: str, *, login: Login = None, sha256: str = SHA256, **options: object) -> Path:
        target = tmp_path / "cache" / "file"
        fetcher = Fetcher(lambda _: login, pause_s=0.01)
        fetcher.fetch(url, target, sha256=sha256, **options)  # type: ignore[arg-type]
        return target

    return get


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_file_arrives(server: Server, fetch: Fetch) -> None:
    counted: list[int] = []
    assert fetch(server.url(), on_bytes=counted.append).read_bytes() == CONTENT
    assert sum(counted) == len(CONTENT)
    assert "Authorization" not in server.requests[0]


def test_a_passing_failure_is_tried_again(server: Server, fetch: Fetch) -> None:
    server.failures = [503, 500, 429]
    assert fetch(server.url()).read_bytes() == CONTENT
    assert len(server.requests) == 4


def test_a_broken_connection_is_resumed(server: Server, fetch: Fetch) -> None:
    server.failures = ["cut", "cut"]
    counted: list[int] = []
    assert fetch(server.url(), on_bytes=counted.append).read_bytes() == CONTENT
    ranges = [request.get("Range") for request in server.requests]
    assert ranges[0] is None
    assert ranges[1] == f"bytes={len(CONTENT) // 2}-"
    assert server.requests[1]["If-Range"] == '"one"'
    assert sum(counted) == len(CONTENT)


def test_a_connection_that_always_breaks_is_an_error(
    server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    server.failures = ["cut"] * ATTEMPTS
    with pytest.raises(FetchError, match="cut short"):
        fetch(server.url())
    assert kept(tmp_path) == []


def test_a_file_that_is_too_short_where_it_lies(
    server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    with pytest.raises(FetchError, match="cut short") as caught:
        fetch(server.url(), sha256="0" * 64, size_bytes=len(CONTENT) + 1)
    assert str(len(CONTENT)) in caught.value.why
    assert kept(tmp_path) == []


def test_a_wrong_hash_keeps_nothing(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="not the file that was locked") as caught:
        fetch(server.url(), sha256="0" * 64)
    assert "0" * 64 in caught.value.why
    assert SHA256 in caught.value.why
    assert kept(tmp_path) == []


@pytest.mark.parametrize(("status", "advice"), [(404, "lock again"), (401, "netrc")])
def test_a_final_answer_is_not_asked_for_twice(
    server: Server, fetch: Fetch, status: int, advice: str
) -> None:
    server.failures = [status]
    with pytest.raises(FetchError) as caught:
        fetch(server.url())
    assert str(status) in caught.value.why
    assert advice in caught.value.now
    assert len(server.requests) == 1


def test_an_outage_ends_in_an_error(server: Server, fetch: Fetch) -> None:
    server.failures = [503] * ATTEMPTS
    with pytest.raises(FetchError) as caught:
        fetch(server.url())
    assert "503" in caught.value.why


def test_no_network(fetch: Fetch, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="cannot be reached") as caught:
        fetch("http://127.0.0.1:1/file")
    assert "refused" in caught.value.why
    assert kept(tmp_path) == []


def test_credentials_go_to_their_host_only(
    server: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.redirect = server.url().replace("127.0.0.1", "localhost")
    fetch(server.url("/elsewhere"), login=("user", "secret"))
    expected = "Basic " + base64.b64encode(b"user:secret").decode()
    assert server.requests[0]["Authorization"] == expected
    assert "Authorization" not in server.requests[1]


def test_errors_show_no_secrets(server: Server, fetch: Fetch) -> None:
    url = server.url("/gone?token=secret").replace("http://", "http://user:secret@")
    with pytest.raises(FetchError) as caught:
        fetch(url, login=("user", "secret"))
    assert "secret" not in str(caught.value)


def test_a_file_of_this_machine_is_checked_too(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(CONTENT)
    target = tmp_path / "cache" / "file"
    copy_file(source, target, sha256=SHA256, size_bytes=len(CONTENT))
    assert target.read_bytes() == CONTENT
    target.unlink()
    source.write_bytes(CONTENT[:-1])
    with pytest.raises(FetchError, match="cut short"):
        copy_file(source, target, sha256=SHA256, size_bytes=len(CONTENT))
    with pytest.raises(FetchError, match="cannot be read"):
        copy_file(tmp_path / "none", target, sha256=SHA256)
    assert kept(tmp_path) == []
