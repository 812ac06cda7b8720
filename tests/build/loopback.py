"""A package index on loopback that can refuse, or break off."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.build.workshop import Workshop


class _Index(http.server.SimpleHTTPRequestHandler):
    """A folder as an index, that refuses or breaks off where the test says so."""

    status = 0
    cut = False

    def do_GET(self) -> None:
        if self.status:
            return self.send_error(self.status)
        if not (self.cut and self.path.endswith(".whl")):
            return super().do_GET()
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True
        return None

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path, *, status: int = 0, cut: bool = False) -> Iterator[str]:
    handler = type("Handler", (_Index,), {"status": status, "cut": cut})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *given: handler(*given, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def add_simple_index(workshop: Workshop, folder: Path, name: str) -> None:
    """PEP 503's page for one wheel of the workshop, its metadata beside it as PEP 658 has it."""
    wheel = next(workshop.wheels.glob(f"{name}-*.whl"))
    page = folder / "simple" / name
    page.mkdir(parents=True)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / wheel.name).write_bytes(wheel.read_bytes())
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{name}-1.0.dist-info/METADATA")
    (folder / f"{wheel.name}.metadata").write_bytes(metadata)
    link = f'href="/{wheel.name}#sha256={digest}" data-dist-info-metadata="true"'
    (page / "index.html").write_text(f"<a {link}>{wheel.name}</a>")
