"""What registries refuse, against a server on loopback that answers as they do."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pytest

from limpet.core.errors import BaseError, FetchError, LimpetError
from limpet.core.login import Login
from limpet.tools.oci import select_manifest
from limpet.tools.registry import READ_BYTES, Registry
from tests.bases.server import Answer, serve

MANIFEST = json.dumps(
    {"schemaVersion": 2, "layers": [], "config": {"digest": "sha256:0", "size": 0}}
)
PATH = "/v2/a/b/manifests/t"
GOOD: Answer = (200, {}, MANIFEST.encode())


@pytest.mark.parametrize(
    ("status", "headers", "kind", "words"),
    [
        (401, {"WWW-Authenticate": 'Basic realm="x"'}, FetchError, "refuses access"),
        (403, {}, FetchError, "refuses access"),
        (404, {}, BaseError, "has no t"),
        (429, {"Retry-After": "3600"}, FetchError, "no more requests"),
        (500, {"Retry-After": "0"}, FetchError, "failed (HTTP 500)"),
    ],
)
def test_refusals(
    status: int, headers: dict[str, str], kind: type[LimpetError], words: str
) -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "go away"}]}'
    with serve({PATH: (status, headers, body)}) as (address, _), pytest.raises(kind) as caught:
        Registry(address, "a/b").read_manifest("t")
    assert words in caught.value.what
    assert "go away" in caught.value.why or status == 401
    if status == 429:
        assert "3600 s" in caught.value.now


def test_no_registry_there() -> None:
    with pytest.raises(FetchError, match="cannot be reached"):
        Registry("127.0.0.1:9", "a/b").read_manifest("t")


def test_a_short_pause_is_waited_for() -> None:
    with serve({PATH: [(429, {"Retry-After": "0"}, b""), GOOD]}) as (address, _):
        assert Registry(address, "a/b").read_manifest("t")[0] == MANIFEST.encode()


def test_a_token_is_fetched_with_the_login_and_used() -> None:
    challenge = 'Bearer realm="http://HOST/token",service="s",scope="repository:a/b:pull"'
    answers: dict[str, Answer | list[Answer]] = {
        PATH: [(401, {"WWW-Authenticate": challenge}, b""), GOOD],
        "/token": (200, {}, b'{"token": "abc"}'),
    }
    with serve(answers) as (address, asked):
        Registry(address, "a/b", login=Login(user="u", password="p")).read_manifest("t")
    assert asked[1] == ("/token?service=s&scope=repository%3Aa%2Fb%3Apull", "Basic dTpw")
    assert asked[2] == (PATH, "Bearer abc")


def test_netrc_does_not_replace_a_token(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login n password n\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serve({PATH: GOOD}) as (address, asked):
        Registry(address, "a/b").read_manifest("t")
    assert asked == [(PATH, "")]


def test_a_proxy_is_not_asked_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serve({PATH: GOOD}) as (address, _):
        Registry(address, "a/b").read_manifest("t")


def test_a_damaged_manifest_is_an_error() -> None:
    digest = "sha256:" + "0" * 64
    with serve({f"/v2/a/b/manifests/{digest}": GOOD}) as (address, _), pytest.raises(FetchError):
        Registry(address, "a/b").read_manifest(digest)


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_blob_that_breaks_off_goes_on_where_it_was(goes_on: bool) -> None:
    body = bytes(range(250)) * 4000
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    cut: Answer = (200, {"Content-Length": "1000000"}, body[:READ_BYTES])
    rest: Answer = (206, {}, body[READ_BYTES:]) if goes_on else (200, {}, body)
    out = io.BytesIO()
    with serve({f"/v2/a/b/blobs/{digest}": [cut, rest]}) as (address, asked):
        Registry(address, "a/b").download_blob(digest, out)
    assert out.getvalue() == body
    assert len(asked) == 2


def test_a_blob_is_what_its_digest_says_or_an_error() -> None:
    digest = f"sha256:{hashlib.sha256(b'x').hexdigest()}"
    answers: dict[str, Answer] = {f"/v2/a/b/blobs/{digest}": (200, {}, b"other")}
    with serve(answers) as (address, _), pytest.raises(FetchError, match="damaged"):
        Registry(address, "a/b").download_blob(digest, io.BytesIO())


def test_the_manifest_for_the_architecture() -> None:
    index = {
        "schemaVersion": 2,
        "manifests": [
            {"digest": "sha256:arm", "platform": {"os": "linux", "architecture": "arm64"}},
            {"digest": "sha256:win", "platform": {"os": "windows", "architecture": "amd64"}},
            {"digest": "sha256:amd", "platform": {"os": "linux", "architecture": "amd64"}},
        ],
    }

    def read(version: str) -> tuple[bytes, str]:
        text = json.dumps(index) if version == "t" else MANIFEST
        return text.encode(), version

    assert select_manifest(read, "t", "x86_64", "x").digest == "sha256:amd"
    assert select_manifest(read, "t", "aarch64", "x").digest == "sha256:arm"
    del index["manifests"][0]  # type: ignore[attr-defined]
    with pytest.raises(BaseError, match="not there for aarch64") as caught:
        select_manifest(read, "t", "aarch64", "x")
    assert "windows/amd64" in caught.value.why
