"""`[files]`: what is put into the image at which place, decided before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from limpet.core.errors import RecipeError

# Apptainer mounts over these, so that a file there would never be seen.
COVERED = ("/dev", "/proc", "/sys", "/tmp", "/var/tmp", "/home", "/root")


def plan_destinations(files: Mapping[str, str]) -> dict[str, PurePosixPath]:
    """Each source with its absolute place in the image; a trailing `/` means into that folder.

    Raises RecipeError for a destination that is not in the image or that a mount covers.
    """
    return {source: _destination(source, wanted) for source, wanted in files.items()}


def _destination(source: str, wanted: str) -> PurePosixPath:
    place = PurePosixPath(wanted)
    if wanted.endswith("/"):
        place = place / PurePosixPath(source).name
    if not place.is_absolute() or ".." in place.parts or "\x00" in wanted:
        raise RecipeError(
            f"[files]: {wanted!r} is outside the image.",
            why="A destination is an absolute path in the image, without `..`.",
            now=f'Write, for instance, "{source}" = "/opt/env/share/{PurePosixPath(source).name}".',
        )
    for covered in COVERED:
        if place.is_relative_to(covered):
            raise RecipeError(
                f"[files]: {wanted!r} would never be seen.",
                why=f"The container runtime mounts something else over {covered}.",
                now="Choose a place under /opt or /etc.",
            )
    if len(place.parts) < 3:
        raise RecipeError(
            f"[files]: {wanted!r} would replace a top-level folder of the image.",
            now="Name the file's full place, for instance /opt/data/table.csv.",
        )
    return place


def stale_byte_code(place: PurePosixPath, minor: str) -> str:
    """The byte code file that a staged `.py` makes stale: limpet's never looks at its source."""
    cache = f"{place.stem}.cpython-{minor.replace('.', '')}.pyc"
    return str(place.parent / "__pycache__" / cache)
