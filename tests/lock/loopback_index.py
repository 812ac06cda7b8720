"""A small package index on loopback, with wheels made by hand."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from dataclasses import dataclass, field


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
