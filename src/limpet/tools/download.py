"""Files over HTTP into the cache: hashed while they stream, resumed where a connection breaks."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from limpet.core.errors import FetchError
from limpet.tools import files

if TYPE_CHECKING:
    import requests

    from limpet.core.errors import LimpetError

# User and password, or a token that is sent as `Bearer`.
Login = tuple[str, str] | str
Credentials = Callable[[str], tuple[str, str] | None]
Logins = Callable[[str], Login | None]
CA_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 60.0
READ_BYTES = 256 << 10
PASSING_STATUS = (408, 416, 425, 429, 500, 502, 503, 504)


def ca_bundle() -> str:
    """The host's own bundle of certificate authorities, if it names one."""
    return next((os.environ[name] for name in CA_VARIABLES if os.environ.get(name)), "")


class Fetcher:
    """Fetches files; one HTTP session a thread. Proxies and netrc are as `requests` has them.

    `credentials` is asked for each URL, and its answer is sent to that URL's host only: `requests`
    drops it where a redirect leads elsewhere. `verify` (a bundle of certificate authorities, or
    False for none) and `proxies` by scheme come before what the environment says.
    """

    def __init__(
        self,
        credentials: Logins,
        *,
        pause_s: float = FIRST_PAUSE_S,
        verify: str | bool | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self._credentials = credentials
        self._pause_s = pause_s
        self._verify = verify
        self._proxies = dict(proxies or {})
        self._local = threading.local()

    def fetch(
        self,
        url: str,
        target: Path,
        *,
        sha256: str,
        size_bytes: int | None = None,
        on_bytes: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Put what `url` gives at `target`, if it has the right hash; else nothing is kept."""
        files.sweep_partials(files.make_folder(target.parent))
        with files.written_beside(target) as out:
            transfer = _Transfer(out, url, self._credentials(url), on_bytes)
            self._try_often(transfer)
            transfer.check(sha256, size_bytes)

    def hash_url(self, url: str, scratch: Path) -> str:
        """The sha256 of what `url` gives, for a file that no index vouches for."""
        with scratch.open("w+b") as out:
            transfer = _Transfer(out, url, self._credentials(url), lambda count: None)
            self._try_often(transfer)
            return transfer.sha256

    def _try_often(self, transfer: _Transfer) -> None:
        pause_s = self._pause_s
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._attempt(transfer)
                return
            except _PassingError as passing:
                if attempt == ATTEMPTS:
                    raise passing.error from passing.__cause__
                time.sleep(min(max(pause_s, passing.pause_s), LONGEST_PAUSE_S))
                pause_s *= 2

    def _attempt(self, transfer: _Transfer) -> None:
        import requests
        import urllib3

        try:
            with self._session().get(
                transfer.url,
                headers=transfer.headers(),
                auth=_Bearer(login) if isinstance(login := transfer.login, str) else login,
                stream=True,
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                verify=ca_bundle() or True if self._verify is None else self._verify,
                proxies=self._proxies,
            ) as response:
                if response.status_code == 416:  # the file is not the one that was begun
                    transfer.restart()
                _check_status(response, transfer.url)
                transfer.receive(response)
        except requests.exceptions.SSLError as error:
            raise _untrusted(transfer.url, error) from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _PassingError(_unreachable(transfer.url, error)) from error
        except urllib3.exceptions.HTTPError as error:
            raise _PassingError(_cut_short(transfer.url, transfer.received_bytes)) from error
        except requests.RequestException as error:
            raise FetchError(
                f"{_shown(transfer.url)} cannot be fetched.", why=str(error)
            ) from error

    def _session(self) -> requests.Session:
        import requests

        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            # Without it, `requests` asks for gzip, and a server may pack a file once more.
            session.headers["Accept-Encoding"] = "identity"
        return session


class _Bearer:
    """Sends a token with a request; `requests` drops it where a redirect leads elsewhere."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Transfer:
    """What has arrived so far of one file."""

    def __init__(
        self,
        out: BinaryIO,
        url: str,
        login: Login | None,
        on_bytes: Callable[[int], None],
    ) -> None:
        self.url = url
        self.login = login
        self.received_bytes = 0
        self._out = out
        self._digest = hashlib.sha256()
        self._tag = ""
        self._on_bytes = on_bytes

    def headers(self) -> dict[str, str]:
        """Ask for the rest only, and only if it is still the same file (RFC 9110, 13.1.5)."""
        if not self.received_bytes or not self._tag:
            return {}
        return {"Range": f"bytes={self.received_bytes}-", "If-Range": self._tag}

    def receive(self, response: requests.Response) -> None:
        if response.status_code != 206:
            self.restart()
            tag = response.headers.get("ETag", "")
            weak = tag.startswith("W/")
            self._tag = "" if weak else tag or response.headers.get("Last-Modified", "")
        while block := response.raw.read(READ_BYTES):
            self._out.write(block)
            self._digest.update(block)
            self.received_bytes += len(block)
            self._on_bytes(len(block))

    def restart(self) -> None:
        self._on_bytes(-self.received_bytes)
        self._out.seek(0)
        self._out.truncate()
        self._digest = hashlib.sha256()
        self.received_bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def check(self, sha256: str, size_bytes: int | None) -> None:
        check_hash(_shown(self.url), sha256, self.sha256, size_bytes, self.received_bytes)


def copy_file(source: Path, target: Path, *, sha256: str, size_bytes: int | None = None) -> None:
    """Put a file of this machine at `target`, with the same checks as one from the network."""
    files.sweep_partials(files.make_folder(target.parent))
    digest = hashlib.sha256()
    copied_bytes = 0
    try:
        file = source.open("rb")
    except OSError as error:
        raise FetchError(
            f"{source} cannot be read.",
            why=f"{error.strerror}.",
            now="Put the file back, or lock again.",
        ) from error
    with file, files.written_beside(target) as out:
        while block := file.read(READ_BYTES):
            out.write(block)
            digest.update(block)
            copied_bytes += len(block)
        check_hash(str(source), sha256, digest.hexdigest(), size_bytes, copied_bytes)


def check_hash(place: str, expected: str, got: str, size_bytes: int | None, got_bytes: int) -> None:
    """FetchError where a file is not the one that was locked."""
    if expected == got:
        return
    if size_bytes is not None and got_bytes < size_bytes:
        raise FetchError(
            f"{place} is cut short.",
            why=f"It has {got_bytes} bytes; the lock says {size_bytes}.",
            now="Try again; if it stays like this, the file is damaged where it lies.",
        )
    raise FetchError(
        f"{place} is not the file that was locked.",
        why=f"expected sha256 {expected}\ngot      sha256 {got}",
        now="If the file was replaced on purpose, lock again; else do not trust it.",
    )


class _PassingError(Exception):
    """A failure that may be gone at the next attempt."""

    def __init__(self, error: LimpetError, pause_s: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause_s = pause_s


def _shown(url: str) -> str:
    """A URL without what may be secret: user, password, signed queries."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _check_status(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status < 400:
        return
    why = f"The server answered {status} {response.reason}."
    error = FetchError(f"{_shown(url)} cannot be fetched.", why=why, now=_advice(status))
    if status in PASSING_STATUS:
        after = response.headers.get("Retry-After", "")
        raise _PassingError(error, float(after) if after.isdigit() else 0.0)
    raise error


def _advice(status: int) -> str:
    if status in (401, 403, 407):
        return "Give credentials for this host in ~/.netrc or in the index URL's variables."
    if status in (404, 410):
        return "The file is gone from where it was locked: lock again."
    return "Try again later."


def _unreachable(url: str, error: Exception) -> FetchError:
    reason = getattr(error.args[0], "reason", error) if error.args else error
    return FetchError(
        f"{_shown(url)} cannot be reached.",
        why=str(reason).rpartition(">: ")[2] or type(error).__name__,
        now="Check the network and the proxy settings (HTTPS_PROXY); "
        "with everything in the cache, --offline needs no network.",
    )


def _untrusted(url: str, error: Exception) -> FetchError:
    return FetchError(
        f"{_shown(url)} is not trusted.",
        why=str(error).rpartition("] ")[2] or str(error),
        now="If your site has a certificate authority of its own, name its file in SSL_CERT_FILE.",
    )


def _cut_short(url: str, received_bytes: int) -> FetchError:
    return FetchError(
        f"{_shown(url)} is cut short.",
        why=f"The connection broke after {received_bytes} bytes, {ATTEMPTS} times.",
        now="Try again; if it stays like this, the file is damaged where it lies.",
    )
