"""A server on loopback with fixed answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def serve(
    answers: Mapping[str, Answer | list[Answer]],
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server that gives fixed answers by path, and what it was asked with which Authorization."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked.append((self.path, self.headers.get("Authorization", "")))
            found = answers.get(path, (404, {}, b"{}"))
            if isinstance(found, list):
                found = found.pop(0) if len(found) > 1 else found[0]
            status, headers, body = found
            here = f"127.0.0.1:{server.server_port}"
            body = body.replace(b"http://HOST", f"http://{here}".encode())
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value.replace("HOST", here))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
