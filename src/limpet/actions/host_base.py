"""A Python of the host as a base: nothing is fetched, and its image is little but mount points."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from limpet.actions.base_making import local_path
from limpet.core.errors import LockError, RecipeError
from limpet.core.facts import BaseFacts
from limpet.core.host_python import CHECK_SCRIPT, HostPython, digest_host, render_check
from limpet.core.lock import LockedBase
from limpet.core.recipe import Recipe
from limpet.core.reference import Reference, parse_reference
from limpet.formats.squashfs import Entry
from limpet.tools import base_store, runtime_files
from limpet.tools.host_python import probe_host_facts, probe_host_python

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def resolve_host(parsed: Reference, folder: Path | None, arch: str) -> LockedBase:
    """What a Python of the host is now. It is asked each time: that takes a moment."""
    python = probe_host_python(local_path(parsed, folder), arch)
    return LockedBase(reference=parsed.text, digest=digest_host(python), arch=arch)


def stand_host(base: LockedBase, *, cache: Path, folder: Path | None) -> tuple[Path, BaseFacts]:
    """The SIF that stands for it, and what is known of it; LockError where it has changed."""
    path = local_path(parse_reference(base.reference), folder)
    python = probe_host_python(path, base.arch)
    if digest_host(python) != base.digest:
        raise LockError(
            f"The Python {path} is no longer what the lock says.",
            why=f"It is Python {python.version} ({python.path}) now.",
            now="Lock again with `limpet lock --upgrade`, or load the module of then.",
        )
    content = hashlib.sha256(msgspec.json.encode(python)).hexdigest()
    sif = base_store.base_path(cache, f"sha256:{content}")
    base_store.write_base(sif, _entries(python), arch=base.arch, digest=content)
    facts = probe_host_facts(path, python, f"sha256:{content}", base.arch)
    return sif, msgspec.structs.replace(facts, size_bytes=sif.stat().st_size)


def _entries(python: HostPython) -> Iterator[Entry]:
    yield from runtime_files.mount_points()
    yield Entry("etc/localtime", "file", mode=0o644, content=b"")  # what a runtime mounts there
    for folder in python.folders:
        # Deeper places may lie below a home. Where an image has them, the runtime makes none in
        # what is mounted above them, and fails (Apptainer 1.4.5, observed).
        if folder.count("/") == 1 or folder.startswith("/opt/"):
            yield Entry(folder[1:], "dir", mode=0o755)
    yield from runtime_files.singularity_files({"Env": [_PATH]})
    script = render_check(python).encode("utf-8", "surrogateescape")
    yield Entry(CHECK_SCRIPT.lstrip("/"), "file", mode=0o755, content=script)


def check_host_recipe(recipe: Recipe, base: LockedBase, *, conda: bool) -> None:
    """RecipeError for what cannot be put on a Python of the host."""
    what = ""
    if conda:
        what = "conda packages, which bring a Python of their own"
    elif recipe.image.apt or recipe.image.post:
        what = "`apt` and `post`, which change the system"
    if what:
        raise RecipeError(
            f"{base.reference} cannot be built on with {what}.",
            why="The Python and the system stay on the host; the image has packages alone.",
            now="Take an image as the base: --base debian:trixie, say.",
        )
