"""Uploads to a registry that breaks off, asks for tokens, or takes blobs from next door."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from limpet.core.errors import FetchError
from limpet.core.login import Login
from limpet.tools import registry
from limpet.tools.registry import Registry

DATA = bytes(range(256)) * 8
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


class Store:
    """What a registry has; `failures` counts the parts of which it takes only the first half."""

    def __init__(self, *, failures: int = 0, scope: str = "") -> None:
        self.failures = failures
        self.scope = scope
        self.arrived = b""
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.requests: list[str] = []


@contextmanager
def serve(store: Store) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def refused(self) -> bool:
            if not store.scope or self.headers.get("Authorization") == f"Bearer {store.scope}":
                return False
            here = f"http://127.0.0.1:{server.server_port}/token"
            said = f'Bearer realm="{here}",scope="{store.scope}"'
            self.read_body()
            self.answer(401, b"", **{"WWW-Authenticate": said})
            return True

        def read_body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_GET(self) -> None:
            if self.path.startswith("/token"):
                asked = self.path.rpartition("scope=")[2].replace("%3A", ":").replace("%2C", ",")
                assert self.headers["Authorization"].startswith("Basic ")
                return self.answer(200, body=json.dumps({"token": asked}).encode())
            last = f"0-{max(len(store.arrived) - 1, 0)}"
            return self.answer(204, Range=last, Location="/upload")

        def do_POST(self) -> None:
            if self.refused():
                return
            store.requests.append(self.path)
            if "from=near" in self.path:
                self.answer(201)
                return
            store.arrived = b""
            self.answer(202, Location="/upload?state=x")

        def do_PATCH(self) -> None:
            body = self.read_body()
            start = int(self.headers["Content-Range"].partition("-")[0])
            assert start == len(store.arrived)
            if store.failures:
                store.failures -= 1
                store.arrived += body[: len(body) // 2]
                return self.answer(503)
            store.arrived += body
            return self.answer(202, Location="/upload?state=x")

        def do_PUT(self) -> None:
            body = self.read_body()
            if "/manifests/" in self.path:
                store.manifests[self.path] = (self.headers["Content-Type"], body)
            else:
                store.blobs[self.path.rpartition("digest=")[2]] = store.arrived
            self.answer(201)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "UPLOAD_BYTES", 512)
    monkeypatch.setattr("time.sleep", lambda _: None)


def chunks() -> Iterator[bytes]:
    return iter([DATA[:100], DATA[100:1500], DATA[1500:]])


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_an_upload_goes_on_where_it_broke(failures: int) -> None:
    store = Store(failures=failures)
    told: list[int] = []
    with serve(store) as address:
        Registry(address, "x").upload_blob(DIGEST, chunks(), told.append)
    assert list(store.blobs.values()) == [DATA]
    assert DIGEST.replace(":", "%3A") in store.blobs
    assert sum(told) == len(DATA)


def test_a_registry_that_never_takes_it_is_given_up() -> None:
    with serve(Store(failures=99)) as address, pytest.raises(FetchError, match="HTTP 503"):
        Registry(address, "x").upload_blob(DIGEST, chunks())


def test_a_token_for_writing_is_asked_for() -> None:
    store = Store(scope="repository:x:pull,push")
    with serve(store) as address:
        client = Registry(address, "x", login=Login(user="ada", password="secret"))
        client.upload_blob(DIGEST, chunks())
        client.put_manifest("1", b"{}", "some/type")
    assert list(store.blobs.values()) == [DATA]
    assert store.manifests == {"/v2/x/manifests/1": ("some/type", b"{}")}


def test_a_blob_of_a_neighbour_is_mounted() -> None:
    store = Store()
    with serve(store) as address:
        client = Registry(address, "x")
        assert client.mount_blob(DIGEST, "near")
        assert not client.mount_blob(DIGEST, "far")
    assert store.requests[0].startswith("/v2/x/blobs/uploads/?mount=sha256%3A")
