"""Look into an image without starting it."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

from packaging.utils import canonicalize_name

from limpet.actions.contents import read_contents, read_requested
from limpet.core.contents import Contents, Software
from limpet.core.dependencies import Graph, plan_graph
from limpet.core.difference import Difference, plan_difference
from limpet.core.errors import ImageError, LimpetError, UsageError
from limpet.core.image import LOCK_OBJECT, RECIPE_OBJECT, SBOM_OBJECT
from limpet.core.inspection import Inspection, Package
from limpet.core.seen import ImageSeen
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


def inspect_image(text: str, *, contents: bool = False) -> Inspection:
    """Read from the file alone: no runtime is needed.

    With `contents` what is in its file systems as well; where these cannot be read, that says why.
    """
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
        contents=_contents(seen) if contents else None,
    )


def _contents(seen: ImageSeen) -> Contents:
    try:
        return read_contents(seen)
    except (LimpetError, OSError) as error:
        why = f"{error.what} {error.why}" if isinstance(error, LimpetError) else str(error)
        return Contents(requested=read_requested(seen), unreadable=(why.strip(),))


def compare_images(first: str, second: str) -> Difference:
    """What is other in the second image; ImageError where one cannot be looked into."""
    seen = [inspect_image(text, contents=True) for text in (first, second)]
    for one in seen:
        if one.contents and not one.contents.layers:
            raise ImageError(f"{one.path} cannot be looked into.", why=one.contents.unreadable[0])
    return plan_difference(*seen)


def explain_package(text: str, name: str) -> tuple[Graph, Software]:
    """The packages of an image and one of them; UsageError where it has none of that name."""
    contents = inspect_image(text, contents=True).contents or Contents()
    graph, wanted = plan_graph(contents), canonicalize_name(name)
    for package in contents.packages:
        if wanted in (canonicalize_name(package.name), *package.provides):
            return graph, package
    names = [package.name for package in contents.packages]
    near = difflib.get_close_matches(wanted, names, n=1)
    raise UsageError(
        f"{text} has no package named {name}.",
        why="; ".join(contents.unreadable),
        now=f"Did you mean {near[0]}?" if near else "limpet inspect --all IMAGE lists them.",
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
