"""The cache as it lies on the disk: looked through, cleaned, checked against its digests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limpet.core.cache import CacheEntry, Kind
from limpet.tools import files

IN_USE = ".in-use"
# Named by the digest of the one file in them.
_DOWNLOADS = ("wheels", "sources", "conda")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# A base's other files go with it; its lock file stays, for someone may wait for it.
_BASE_PARTS = (".facts.json",)
_OWN = ("bases", "pieces", "orders", *_DOWNLOADS, IN_USE)


def list_entries(cache: Path) -> Iterator[CacheEntry]:
    """All that is in the cache, in no order; what goes while it is looked at is left out."""
    for path in _glob(cache, "bases/**/*.sif"):
        beside = [path.with_name(path.stem + part) for part in _BASE_PARTS]
        yield from _entry("base", path.stem, path, *beside)
    for path in [*_glob(cache, "pieces/*/*.sqfs"), *_glob(cache, "pythons/*.sqfs")]:
        note = _read_note(path)
        name = f"{note.get('name', path.stem)} {note.get('version', '')}".strip()
        yield from _entry("piece", name, path, path.with_suffix(".json"))
    for folder in _DOWNLOADS:
        for path in _glob(cache, f"{folder}/*"):
            if _DIGEST.fullmatch(path.name):
                name = next((str(file.name) for file in _glob(path, "*")), path.name)
                yield from _entry("download", name, path)
            elif path.is_dir():
                yield from _entry("other", f"{folder}/{path.name}", path)
    for path in _glob(cache, "orders/*"):
        yield from _entry("order", path.stem, path)
    for path in _glob(cache, "*"):
        if path.name not in (*_OWN, "pythons"):
            yield from _entry("other", path.name, path)


def _read_note(path: Path) -> dict[str, Any]:
    """What a piece's note says; nothing where it is missing or damaged."""
    try:
        found = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _glob(folder: Path, pattern: str) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(p for p in folder.glob(pattern) if not p.name.startswith("."))
    return []


def _entry(kind: Kind, name: str, *paths: Path) -> Iterator[CacheEntry]:
    there, size_bytes, count, used_s = [], 0, 0, 0.0
    for path in paths:
        for file in _files(path):
            with contextlib.suppress(OSError):
                status = file.lstat()
                size_bytes += status.st_blocks * 512
                count += 1
                used_s = max(used_s, status.st_mtime)
        if os.path.lexists(path):
            there.append(str(path))
    if there and count:
        yield CacheEntry(
            kind=kind,
            name=name,
            paths=tuple(there),
            size_bytes=size_bytes,
            files=count,
            used_s=used_s,
        )


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def remove_entry(entry: CacheEntry) -> bool:
    """Remove it; False where it could not be, or another has done so already.

    Notes and facts go first: what they speak of must not be taken for whole without them.
    """
    gone = False
    for text in reversed(entry.paths):
        path = Path(text)
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            gone = True
        except OSError:
            continue
    return gone


def is_damaged(entry: CacheEntry) -> bool:
    """Whether what lies there is not what its digest says. Entries without one are never."""
    path = Path(entry.paths[0])
    if entry.kind == "download":
        found = [file for file in _files(path) if not file.name.startswith(".")]
        return any(files.hash_file(file) != path.name for file in found)
    if entry.kind == "piece" and path.parent.parent.name == "pieces":
        note = _read_note(path)
        expected = note.get("sha256")
        return not note or bool(expected and files.hash_file(path) != expected)
    if entry.kind == "base":
        return _is_damaged_sif(path)
    return False


def _is_damaged_sif(path: Path) -> bool:
    """A base has no digest of its own here: all its blocks are unpacked."""
    from limpet.core.errors import ImageError
    from limpet.formats.sif import read_sif, root_partition
    from limpet.formats.squashfs import Squashfs

    try:
        with path.open("rb") as file:
            squashfs = Squashfs(file, root_partition(read_sif(file)).offset)
            for _, node in squashfs.walk():
                if node.is_file:
                    with squashfs.open(node) as stream:
                        while stream.read(1 << 20):
                            pass
    except ImageError:
        return True
    return False
