"""Images made by hand, without a runtime: what they say of themselves is up to the test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from limpet.core.image import FACTS_OBJECT, LOCK_OBJECT, SBOM_OBJECT, ImageFacts
from limpet.core.lock import LockedBase
from limpet.core.sbom import REQUESTED
from limpet.formats.sif import SifWriter, architecture_of
from limpet.formats.squashfs import Entry, write_squashfs

SITE = "opt/env/lib/python3.13/site-packages"
FACTS = ImageFacts(
    limpet="0.1",
    name="by-hand",
    layout="merged",
    arch="x86_64",
    python="3.13.5",
    base=LockedBase(reference="debian:trixie", digest="sha256:ab", arch="x86_64"),
)


def package(name: str, version: str = "1.0", *lines: str, size: int = 1000) -> dict[str, bytes]:
    """A Python package with its metadata and RECORD, as an installer lays it out."""
    info = f"{SITE}/{name}-{version}.dist-info"
    head = [f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}", *lines]
    record = f"{name}/__init__.py,,\n{name}-{version}.dist-info/METADATA,,\n../../../bin/{name},,\n"
    return {
        f"{SITE}/{name}/__init__.py": b"#" * size,
        f"{SITE}/{name}/__pycache__/__init__.cpython-313.pyc": b"c" * 10,
        f"{info}/METADATA": "\n".join([*head, "\n"]).encode(),
        f"{info}/RECORD": record.encode(),
        f"{info}/INSTALLER": b"limpet",
        f"opt/env/bin/{name}": b"#!",
    }


def entries(members: Mapping[str, bytes | str | None]) -> list[Entry]:
    """Files (bytes), symbolic links (text), and marks that a layer puts where a file is gone."""
    folders = {
        "/".join(parts[:end])
        for parts in (path.split("/") for path in members)
        for end in range(1, len(parts))
    }
    made = [Entry(path=path, kind="dir", mode=0o755) for path in sorted(folders)]
    for path, content in members.items():
        if content is None:
            made.append(Entry(path=path, kind="char", mode=0, rdev=0))
        elif isinstance(content, str):
            made.append(Entry(path=path, kind="symlink", mode=0o777, target=content))
        else:
            made.append(Entry(path=path, kind="file", content=content))
    return made


def write_image(
    path: Path,
    members: Mapping[str, bytes | str],
    *layers: Mapping[str, bytes | str | None],
    facts: ImageFacts | None = FACTS,
    requested: tuple[str, ...] = (),
    lock: bytes = b'lock-version = "1.0"\npackages = []\n',
) -> Path:
    """A SIF with these files, the layers over them, and limpet's objects if there are facts."""
    with path.open("w+b") as file:
        writer = SifWriter(file, arch=architecture_of("x86_64"), ident=b"0123456789abcdef")
        with writer.partition("root", "root") as into:
            write_squashfs(into, entries(members), compressor="zstd")
        for layer in layers:
            with writer.partition("overlay") as into:
                write_squashfs(into, entries(layer), compressor="zstd")
        if facts is not None:
            told = [{"name": REQUESTED, "value": line} for line in requested]
            bill = {"metadata": {"component": {"properties": told}}}
            writer.add_object(FACTS_OBJECT, msgspec.json.encode(facts), "json")
            writer.add_object(LOCK_OBJECT, lock, "raw")
            writer.add_object(SBOM_OBJECT, json.dumps(bill).encode(), "sbom")
        writer.finish()
    return path
