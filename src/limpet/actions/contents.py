"""What is installed in an image: conda's, Debian's and Python's packages, and the files of none."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from limpet.core.contents import Contents
from limpet.core.image import RECIPE_OBJECT, SBOM_OBJECT
from limpet.core.markers import linux_markers
from limpet.core.sbom import REQUESTED
from limpet.core.seen import ImageSeen
from limpet.formats.image_tree import opened_tree
from limpet.tools import images
from limpet.tools.contents.owners import find_software
from limpet.tools.contents.records import Records, read_records

MOST_NOTES = 20
_PYTHON = re.compile(r"/python(3\.\d+)/(?:site|dist)-packages$")


def read_contents(image: ImageSeen) -> Contents:
    """Read an image's packages from its files. ImageError where it cannot be looked into."""
    with opened_tree(image) as tree:
        records = read_records(tree)
        prefix = image.facts.prefix.strip("/") if image.facts else ""
        software = find_software(tree, records, prefix)
    python = (image.facts.python if image.facts else "") or _find_python(records)
    return Contents(
        software=software,
        layers=tree.layers,
        requested=read_requested(image),
        markers=linux_markers(python or "3", image.arch),
        unreadable=tuple(dict.fromkeys(tree.troubles))[:MOST_NOTES],
    )


def _find_python(records: Records) -> str:
    found = (_PYTHON.search(f"/{one.folder}") for one in records.python)
    return next((one[1] for one in found if one), "")


def read_requested(image: ImageSeen) -> tuple[str, ...]:
    """What the recipe asked for by name: from the SBOM, else as far as the recipe itself says."""
    path = Path(image.path)
    if image.kind != "sif" or image.facts is None:
        return ()
    try:
        bill = json.loads(images.read_named(path, SBOM_OBJECT) or b"{}")
        told = bill.get("metadata", {}).get("component", {}).get("properties", [])
        asked = [one["value"] for one in told if one["name"] == REQUESTED]
        if not asked:
            recipe = tomllib.loads((images.read_named(path, RECIPE_OBJECT) or b"").decode())
            asked = list(recipe.get("packages", {}).get("pip", []))
        return tuple(map(str, asked))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ()
