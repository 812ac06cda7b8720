"""What lies in an image and serves nobody there."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from limpet.core.errors import ImageError
from limpet.core.image_contents import Heap
from limpet.formats.image_tree import ImageTree, Member
from limpet.tools.contents.libraries import SHARED

MOST_LISTED = 8
LARGE_BYTES = 64 << 10  # of a shared library that is worth a comparison
_CACHES = re.compile(
    r"^(?:root|home/[^/]+)/\.cache/(?:pip|uv|conda|rattler|matplotlib|huggingface)(?:/|$)"
    r"|^(?:.*/)?(?:conda|miniconda3?|anaconda3|miniforge3|mambaforge|micromamba)/pkgs/"
    r"|^var/cache/(?:apt|dnf|yum|apk)/|^var/lib/apt/lists/|^root/\.conda/pkgs/"
)
_TESTS = re.compile(r"((?:^|.*/)(?:site|dist)-packages/.*?/?tests?)/")


def find_heaps(tree: ImageTree) -> Iterator[Heap]:
    """Tests, static libraries, caches, and libraries that are there more than once."""
    files = [(path, member) for path, member in tree.members.items() if member.kind == "file"]
    tests = ((found[1], m) for path, m in files if (found := _TESTS.match(path)))
    yield from _heap("tests", tests)
    yield from _heap("static", ((p, m) for p, m in files if p.endswith(".a")))
    caches = ((found[0].rstrip("/"), m) for path, m in files if (found := _CACHES.match(path)))
    yield from _heap("caches", caches)
    yield from _heap("twins", _find_twins(files))


def _heap(kind: str, members: Iterable[tuple[str, Member]]) -> Iterator[Heap]:
    sizes: dict[str, int] = defaultdict(int)
    seen: set[object] = set()
    for folder, member in members:
        if member.key not in seen:
            seen.add(member.key)
            sizes[f"/{folder}"] += member.size_bytes
    if sizes and (total := sum(sizes.values())):
        largest = sorted(sizes.items(), key=lambda item: -item[1])[:MOST_LISTED]
        yield Heap(kind=kind, size_bytes=total, files=len(seen), largest=tuple(largest))


def _find_twins(files: Iterable[tuple[str, Member]]) -> Iterator[tuple[str, Member]]:
    """All but the first of shared libraries with the same content."""
    alike: dict[int, list[tuple[str, Member]]] = defaultdict(list)
    for path, member in files:
        if member.size_bytes >= LARGE_BYTES and SHARED.search(path):
            alike[member.size_bytes].append((path, member))
    for group in alike.values():
        if len({member.key for _, member in group}) > 1:
            digests: dict[bytes, object] = {}
            for path, member in group:
                with contextlib.suppress(ImageError, OSError):
                    key = digests.setdefault(_digest(member), member.key)
                    if key != member.key:
                        yield path, member


def _digest(member: Member) -> bytes:
    digest = hashlib.sha256()
    with member.open() as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.digest()
