"""A small client for container registries (the OCI distribution API)."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote, urljoin, urlsplit

from limpet.core.errors import BaseError, FetchError
from limpet.core.login import Login

if TYPE_CHECKING:
    import requests


MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MANIFEST_LIMIT_BYTES = 8 << 20
PATIENCE_S = 10.0  # longest wait that a registry may ask for before limpet gives up
ATTEMPTS = 3
READ_BYTES = 1 << 18
UPLOAD_BYTES = 32 << 20  # what is sent again at most where a connection breaks
_NO_PROXIES = {"http": "", "https": "", "all": ""}


class Registry:
    """One repository of one registry."""

    def __init__(
        self, host: str, name: str, *, login: Login | None = None, insecure: Collection[str] = ()
    ) -> None:
        self.host = host
        self.name = name
        self._login = login
        self._session = _make_session()
        scheme = "http" if _is_plain(host, insecure) else "https"
        # Docker Hub is named docker.io in references and lives elsewhere.
        self._address = f"{scheme}://{'registry-1.docker.io' if host == 'docker.io' else host}"
        self._authorization = ""

    @property
    def label(self) -> str:
        """How messages call the repository."""
        return f"{self.host}/{self.name}"

    def read_manifest(self, version: str) -> tuple[bytes, str]:
        """A manifest or index by tag or digest, and its own digest, checked."""
        path = f"manifests/{version}"
        response = self._get(path, {"Accept": ", ".join(MANIFEST_TYPES)})
        with response:
            data = _read_bounded(response, MANIFEST_LIMIT_BYTES, self.label)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        promised = version if version.startswith("sha256:") else ""
        if promised and promised != digest:
            raise FetchError(
                f"{self.label} gave a damaged manifest.", why=f"{promised} asked, {digest} got."
            )
        return data, digest

    def download_blob(self, digest: str, out: BinaryIO) -> None:
        """A blob into an open file; FetchError where it is not what its digest says."""
        for chunk in self.stream_blob(digest):
            out.write(chunk)

    def stream_blob(self, digest: str) -> Iterator[bytes]:
        """A blob as it comes; FetchError at its end where it is not what its digest says."""
        import requests
        from urllib3.exceptions import HTTPError

        hashed = hashlib.sha256()
        come_bytes = 0
        for attempt in range(1, ATTEMPTS + 1):
            try:
                for chunk in self._stream_from(f"blobs/{digest}", come_bytes):
                    come_bytes += len(chunk)
                    hashed.update(chunk)
                    yield chunk
                break
            except (requests.RequestException, HTTPError, ConnectionError) as error:
                if attempt == ATTEMPTS:
                    raise FetchError(
                        f"A layer of {self.label} broke off while it was fetched.", why=str(error)
                    ) from error
        if f"sha256:{hashed.hexdigest()}" != digest:
            raise FetchError(
                f"A layer of {self.label} is damaged.",
                why=f"{digest} asked, sha256:{hashed.hexdigest()} got.",
                now="Try again; if it stays so, a proxy or the registry alters or cuts data.",
            )

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has it already; a refusal of access is an error."""
        response = self._ask("HEAD", f"blobs/{digest}")
        if response.status_code in (401, 403):
            raise self._refusal(response, f"blobs/{digest}")
        response.close()
        return response.status_code == 200

    def check_access(self) -> None:
        """FetchError where the registry cannot be reached, or wants another login."""
        self.has_blob(f"sha256:{hashlib.sha256(b'').hexdigest()}")

    def mount_blob(self, digest: str, source: str) -> bool:
        """Let the registry take a blob from another of its repositories; False where it will not.

        Registries that know the user in that repository do it; the others begin an upload.
        """
        path = f"blobs/uploads/?mount={quote(digest)}&from={quote(source, safe='')}"
        response = self._ask("POST", path)
        response.close()
        return response.status_code == 201

    def upload_blob(
        self,
        digest: str,
        chunks: Iterator[bytes],
        on_bytes: Callable[[int], None] = lambda count: None,
    ) -> None:
        """A blob as it comes, in parts; a part that breaks off is sent on from where it broke."""
        response = self._accepted(self._ask("POST", "blobs/uploads/"), (202,), "blobs/uploads")
        place, at = self._place_of(response), 0
        for part in _parts(chunks):
            place = self._upload_part(place, at, part)
            at += len(part)
            on_bytes(len(part))
        mark = "&" if "?" in place else "?"
        url = f"{place}{mark}digest={quote(digest)}"
        response = self._exchange("PUT", url, {"Content-Length": "0"}, b"")
        self._accepted(response, (201, 204), f"blobs/{digest}").close()

    def put_manifest(self, version: str, data: bytes, media_type: str) -> None:
        """A manifest under a tag or its digest."""
        path = f"manifests/{version}"
        response = self._ask("PUT", path, {"Content-Type": media_type}, data)
        self._accepted(response, (201, 200, 202), path).close()

    def _upload_part(self, place: str, start: int, part: bytes) -> str:
        """Where the next part goes."""
        sent = 0
        for attempt in range(1, ATTEMPTS + 1):
            if sent == len(part):
                return place
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{start + sent}-{start + len(part) - 1}",
            }
            try:
                response = self._exchange("PATCH", place, headers, part[sent:])
                if response.status_code < 500 or attempt == ATTEMPTS:
                    return self._place_of(self._accepted(response, (202, 204), "blobs/uploads"))
                response.close()
            except FetchError:
                if attempt == ATTEMPTS:
                    raise
            time.sleep(0.5 * attempt)
            state = self._accepted(self._exchange("GET", place), (204,), "blobs/uploads")
            last = state.headers.get("Range", "").rpartition("-")[2]
            # "0-0" is what registries say of nothing at all.
            arrived = int(last) + 1 if last.isdigit() and last != "0" else 0
            sent = max(arrived - start, 0)
            place = self._place_of(state)
        raise FetchError(f"An upload to {self.label} broke off.", now="Try again.")

    def _place_of(self, response: requests.Response) -> str:
        response.close()
        return urljoin(f"{self._address}/", response.headers.get("Location", ""))

    def _ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, data: bytes = b""
    ) -> requests.Response:
        return self._exchange(method, f"{self._address}/v2/{self.name}/{path}", headers, data)

    def _accepted(
        self, response: requests.Response, expected: tuple[int, ...], path: str
    ) -> requests.Response:
        if response.status_code in expected:
            return response
        raise self._refusal(response, path)

    def _exchange(
        self, method: str, url: str, headers: dict[str, str] | None = None, data: bytes = b""
    ) -> requests.Response:
        """One answer; where a login or another scope is asked for, asked once more with it."""
        response = self._send(url, headers or {}, method, data)
        if response.status_code == 401:
            fresh = self._authorize(response)
            if fresh and fresh != self._authorization:
                self._authorization = fresh
                response = self._send(url, headers or {}, method, data)
        return response

    def _stream_from(self, path: str, start: int) -> Iterator[bytes]:
        """What lies behind `start`, also where the registry only gives all of it."""
        with self._get(path, {"Range": f"bytes={start}-"} if start else {}) as response:
            skipped = start if response.status_code == 206 else 0
            for chunk in response.raw.stream(READ_BYTES, decode_content=False):
                if new := chunk[max(start - skipped, 0) :]:
                    yield new
                skipped += len(chunk)

    def _get(self, path: str, headers: dict[str, str]) -> requests.Response:
        url = f"{self._address}/v2/{self.name}/{path}"
        for attempt in range(1, ATTEMPTS + 1):
            response = self._exchange("GET", url, headers)
            if response.status_code in (200, 206):
                return response
            wait_s = _wait_s(response, attempt)
            if attempt == ATTEMPTS or wait_s is None or wait_s > PATIENCE_S:
                break
            response.close()
            time.sleep(wait_s)
        raise self._refusal(response, path)

    def _send(
        self, url: str, headers: dict[str, str], method: str = "GET", data: bytes = b""
    ) -> requests.Response:
        import requests

        # An upload may go to a place of another host, which is not to have the login.
        if self._authorization and urlsplit(url).netloc == urlsplit(self._address).netloc:
            headers = headers | {"Authorization": self._authorization}
        try:
            # With an auth of our own, requests does not overwrite the header from ~/.netrc.
            return self._session.request(
                method,
                url,
                headers=headers,
                data=data or None,
                auth=_as_it_is,
                proxies=_NO_PROXIES if _is_loopback(self.host) else None,
                stream=True,
                timeout=(20, 120),
            )
        except requests.exceptions.SSLError as error:
            raise FetchError(
                f"The registry {self.host} cannot be trusted.",
                why=str(error),
                now="Name your site's CA bundle in SSL_CERT_FILE, or the registry as insecure "
                "if it speaks plain http.",
            ) from error
        except requests.RequestException as error:
            raise FetchError(
                f"The registry {self.host} cannot be reached.",
                why=_innermost(error),
                now="Check the network and the proxy (https_proxy); debian:SUITE, a local SIF or "
                "an oci: folder need no registry.",
            ) from error

    def _authorize(self, response: requests.Response) -> str:
        """The Authorization header that a 401 asks for; empty where there is nothing to offer."""
        challenge = response.headers.get("WWW-Authenticate", "")
        response.close()
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic" and self._login:
            return _basic(self._login)
        if kind.lower() != "bearer":
            return ""
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        return f"Bearer {self._fetch_token(asked)}" if asked.get("realm") else ""

    def _fetch_token(self, asked: dict[str, str]) -> str:
        import requests

        login = self._login
        scope = asked.get("scope") or f"repository:{self.name}:pull"
        query = {"service": asked.get("service", ""), "scope": scope}
        try:
            if login and login.identity_token:
                form = {"grant_type": "refresh_token", "client_id": "limpet", **query}
                form["refresh_token"] = login.identity_token
                got = self._session.post(asked["realm"], data=form, auth=_as_it_is, timeout=60)
            else:
                headers = {"Authorization": _basic(login)} if login else {}
                got = self._session.get(
                    asked["realm"], params=query, headers=headers, auth=_as_it_is, timeout=60
                )
            if got.status_code in (400, 401, 403):
                raise self._refusal(got, "token")
            got.raise_for_status()
            said: dict[str, Any] = got.json()
        except (requests.RequestException, ValueError) as error:
            raise FetchError(
                f"The registry {self.host} gives no access token.", why=_innermost(error)
            ) from error
        return str(said.get("token") or said.get("access_token") or "")

    def _refusal(self, response: requests.Response, path: str) -> FetchError | BaseError:
        status, why = response.status_code, _registry_message(response)
        wait = response.headers.get("Retry-After", "")
        response.close()
        if status in (401, 403):
            known = (
                "The login that was found was not accepted." if self._login else "No login known."
            )
            return FetchError(
                f"The registry {self.host} refuses access to {self.name} (HTTP {status}).",
                why=f"{known} {why}".strip(),
                now=f"Log in: apptainer registry login -u NAME docker://{self.host}; "
                "or check the name: some registries answer so for what does not exist.",
            )
        if status == 404:
            version = path.rpartition("/")[2]
            return BaseError(
                f"{self.label} has no {version}.", why=why, now="Check the name and the tag."
            )
        if status == 429:
            return FetchError(
                f"The registry {self.host} allows no more requests for now (HTTP 429).",
                why=why,
                now=(f"Wait {wait} s, or log" if wait else "Wait, or log")
                + " in: registries allow more to those they know.",
            )
        return FetchError(
            f"The registry {self.host} failed (HTTP {status}).", why=why, now="Try again later."
        )


def _parts(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Chunks joined to parts that are worth a request each."""
    part = bytearray()
    for chunk in chunks:
        part += chunk
        if len(part) >= UPLOAD_BYTES:
            yield bytes(part)
            part.clear()
    if part:
        yield bytes(part)


def _make_session() -> requests.Session:
    import requests

    session = requests.Session()
    session.headers["User-Agent"] = "limpet"
    named = os.environ.get("SSL_CERT_FILE")
    if named and not any(os.environ.get(n) for n in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")):
        session.verify = named
    return session


def _is_plain(host: str, insecure: Collection[str]) -> bool:
    names = (f"{kind}_NOHTTPS" for kind in ("APPTAINER", "SINGULARITY"))
    asked = any(os.environ.get(name, "").lower() in ("1", "true", "yes", "y") for name in names)
    return asked or host in insecure or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    bare = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost"


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _basic(login: Login) -> str:
    import base64

    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()


def _wait_s(response: requests.Response, attempt: int) -> float | None:
    """How long to wait before the next attempt; None where waiting does not help."""
    if response.status_code != 429 and response.status_code < 500:
        return None
    named = response.headers.get("Retry-After", "")
    return float(named) if named.isdigit() else 0.5 * attempt


def _registry_message(response: requests.Response) -> str:
    import requests

    try:
        errors = response.json()["errors"]
        return "; ".join(f"{e.get('code', '')}: {e.get('message', '')}" for e in errors)[:500]
    except (ValueError, KeyError, TypeError, AttributeError, requests.RequestException):
        return ""


def _read_bounded(response: requests.Response, limit: int, label: str) -> bytes:
    parts, size = [], 0
    for chunk in response.iter_content(1 << 16):
        size += len(chunk)
        if size > limit:
            raise FetchError(f"{label} gave a manifest larger than {limit >> 20} MiB.")
        parts.append(chunk)
    return b"".join(parts)


def _innermost(error: BaseException) -> str:
    """The plain reason at the bottom of a stack of wrapped network errors."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error)
