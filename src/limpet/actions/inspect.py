"""Look into an image without starting it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from limpet.core.errors import ImageError, UsageError
from limpet.core.image import LOCK_OBJECT, RECIPE_OBJECT, SBOM_OBJECT
from limpet.core.inspection import Inspection, Package
from limpet.tools import images

ObjectName = Literal["lock", "sbom", "recipe"]
_OBJECTS: dict[ObjectName, str] = {
    "lock": LOCK_OBJECT,
    "sbom": SBOM_OBJECT,
    "recipe": RECIPE_OBJECT,
}
_SOURCES: dict[str, Literal["pip", "conda", "other"]] = {
    "pypi": "pip",
    "conda": "conda",
    "generic": "other",
}


def inspect_image(text: str) -> Inspection:
    """Read from the file alone: no runtime is needed."""
    seen = images.read_image(text)
    path = Path(seen.path)
    is_sif = seen.kind == "sif"
    lock = images.read_named(path, LOCK_OBJECT) if is_sif and seen.facts else None
    return Inspection(
        path=seen.path,
        kind=seen.kind,
        arch=seen.arch,
        size_bytes=path.stat().st_size if path.is_file() else 0,
        identity=seen.identity,
        facts=seen.facts,
        parts=images.list_parts(path) if is_sif else (),
        packages=list_packages(lock) if lock else (),
    )


def list_packages(lock: bytes) -> tuple[Package, ...]:
    """Names and versions of a pylock file; its hashes and addresses are `--lock`'s to show."""
    try:
        table: dict[str, Any] = tomllib.loads(lock.decode())
        own = table.get("tool", {}).get("limpet", {})
        conda, found = own.get("conda", []), own.get("found", [])
        packages = [
            *(Package(name=e["name"], version=e["version"], source="conda") for e in conda),
            *(
                Package(name=e["name"], version=e.get("version", ""))
                for e in table.get("packages", [])
            ),
            *(
                Package(name=e["name"], version=e.get("version", ""), source=_SOURCES[e["kind"]])
                for e in found
            ),
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError("The lock in the image cannot be read.", why=str(error)) from error
    return tuple(sorted(packages, key=lambda package: package.name))


def read_object(text: str, name: ObjectName) -> bytes:
    """The lock, SBOM or recipe in an image, as it is there."""
    seen = images.read_image(text)
    data = images.read_named(Path(seen.path), _OBJECTS[name]) if seen.kind == "sif" else None
    if data is None:
        raise UsageError(
            f"{seen.path} has no {name} in it.",
            why="" if seen.facts else "limpet did not make this image.",
        )
    return data
