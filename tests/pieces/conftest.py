"""Wheels made by hand, right ones and wrong ones."""

from __future__ import annotations

import hashlib
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

MakeWheel = Callable[..., Path]


def record_line(name: str, data: bytes) -> str:
    digest = urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f'"{name}",sha256={digest},{len(data)}\n'


@pytest.fixture
def make_wheel(tmp_path: Path) -> MakeWheel:
    """`make_wheel(files, name=, version=, record=, executable=)`: a wheel in `tmp_path`."""

    def make(
        files: Mapping[str, bytes],
        *,
        name: str = "demo",
        version: str = "1.0",
        record: Mapping[str, str] | None = None,
        executable: tuple[str, ...] = (),
        filename: str = "",
    ) -> Path:
        info = f"{name}-{version}.dist-info"
        members = {
            **files,
            f"{info}/METADATA": f"Name: {name}\nVersion: {version}\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        lines = {member: record_line(member, data) for member, data in members.items()}
        lines |= {f"{info}/RECORD": f"{info}/RECORD,,\n"} | dict(record or {})
        members[f"{info}/RECORD"] = "".join(lines.values()).encode()
        path = tmp_path / (filename or f"{name}-{version}-py3-none-any.whl")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
            for member, data in members.items():
                entry = zipfile.ZipInfo(member)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o100755 if member in executable else 0o100644) << 16
                wheel.writestr(entry, data)
        return path

    return make
