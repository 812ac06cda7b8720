"""Image files as they lie there: what a launch and `inspect` read of them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

import msgspec

from limpet.core.errors import ImageError, no_image
from limpet.core.image import AHEAD_OBJECT, FACTS_OBJECT, Ahead, ImageFacts
from limpet.core.inspection import Part
from limpet.core.seen import ImageKind, ImageSeen
from limpet.formats import sif

# The kernel's words (`uname -m`) for SIF's.
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def read_image(text: str) -> ImageSeen:
    """What is at this path; ImageError where it is nothing that a runtime starts."""
    path = Path(text).absolute()
    if path.is_dir():
        return _read_sandbox(path)
    with open_image(text) as file:
        start = file.read(4)
        if start == b"hsqs":
            return _seen(path, "squashfs", _digest(file))
        try:
            return _read_sif(path, file)
        except ImageError as error:
            raise ImageError(f"{path}: {error.what}", why=error.why, now=error.now) from error


def open_image(text: str) -> BinaryIO:
    """The file, or an ImageError that says what is in the way."""
    path = Path(text).absolute()
    try:
        return path.open("rb")
    except FileNotFoundError:
        if "://" not in text:
            raise no_image(path) from None
        raise ImageError(
            f"{text} is no file.",
            why="Images of registries are not started directly.",
            now=f"Build one: limpet build --base {text} -o image.sif.",
        ) from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read.", why=f"{error.strerror}.") from error


def touch(path: Path) -> None:
    """Look at the file or folder as reading it will; OSError where that is not possible."""
    if not path.is_dir():
        with path.open("rb") as file:
            file.read(1)


def _read_sif(path: Path, file: BinaryIO) -> ImageSeen:
    found = sif.read_sif(file)
    sif.root_partition(found)
    described = found.find_object(FACTS_OBJECT)
    arch = _MACHINES.get(found.arch, found.arch)
    if described is None:
        return _seen(path, "sif", found.id.hex, arch=arch)
    facts = parse_facts(sif.read_object(file, described))
    seen = _seen(path, "sif", facts.identify(), arch=arch, facts=facts)
    ahead = _read_ahead(file, found)
    return msgspec.structs.replace(seen, needs=facts.gpu, libc=facts.libc, ahead=ahead)


def _read_ahead(file: BinaryIO, found: sif.Sif) -> Ahead:
    """What a start reads first; a start can do without, so what cannot be read is not there."""
    item = found.find_object(AHEAD_OBJECT)
    try:
        ahead = msgspec.json.decode(sif.read_object(file, item), type=Ahead) if item else Ahead()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Ahead()
    size_bytes = os.fstat(file.fileno()).st_size
    fits = all(0 <= start < start + length <= size_bytes for start, length in ahead.ranges)
    return ahead if fits else Ahead()


def parse_facts(data: bytes) -> ImageFacts:
    """The object `limpet.json`; of a newer limpet's only what is sure to be there is needed."""
    try:
        return msgspec.json.decode(data, type=ImageFacts)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ImageError(
            f"The object {FACTS_OBJECT} in the image cannot be read.",
            why=str(error),
            now="A newer limpet may have made it; `apptainer exec` starts it as well.",
        ) from error


def _read_sandbox(path: Path) -> ImageSeen:
    if not any((path / name).exists() for name in (".singularity.d", "bin/sh", "usr/bin/sh")):
        raise ImageError(
            f"{path} is a folder, but no root file system.",
            why="It has neither .singularity.d nor bin/sh.",
            now="Name a SIF file or a sandbox folder.",
        )
    import hashlib

    digest = hashlib.sha256(bytes(path.resolve()))
    with contextlib.suppress(OSError):  # what the runtime notes at each build, its date too
        digest.update((path / ".singularity.d/labels.json").read_bytes())
    return _seen(path, "sandbox", digest.hexdigest())


def _digest(file: BinaryIO) -> str:
    import hashlib

    # A squashfs' superblock: its creation time and the places of all its tables.
    file.seek(0)
    return hashlib.sha256(file.read(96)).hexdigest()


def _seen(
    path: Path, kind: ImageKind, identity: str, *, arch: str = "", facts: ImageFacts | None = None
) -> ImageSeen:
    title = (facts.name if facts else "") or path.stem
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in title)[:40]
    return ImageSeen(
        path=str(path),
        kind=kind,
        identity=f"{name}-{identity[:16]}" if facts else identity[:16],
        title=title,
        arch=arch,
        facts=facts,
    )


def is_sif(path: Path) -> bool:
    """Whether a file is a SIF, whatever its name."""
    with path.open("rb") as file:
        return sif.MAGIC in file.read(64)


def list_parts(path: Path) -> tuple[Part, ...]:
    """The objects of a SIF with their sizes."""
    with open_image(str(path)) as file:
        return tuple(
            Part(
                name=item.name,
                kind=f"{item.part.name.lower()} partition" if item.part else item.kind.name.lower(),
                size_bytes=item.size_bytes,
            )
            for item in sif.read_sif(file).descriptors
        )


def read_named(path: Path, name: str) -> bytes | None:
    """An object of a SIF by its name, or None."""
    with open_image(str(path)) as file:
        item = sif.read_sif(file).find_object(name)
        return sif.read_object(file, item) if item else None
