"""What a shell's completion needs to know of an image, and quickly."""

from __future__ import annotations

import re
from pathlib import Path

from limpet.core.image import LOCK_OBJECT
from limpet.tools import images

_NAME = re.compile(r'^name = "([A-Za-z0-9][A-Za-z0-9._-]*)"$', re.MULTILINE)


def locked_names(path: Path) -> list[str]:
    """Names of the packages in an image's lock, sorted; empty where it has none."""
    text = images.read_named(path, LOCK_OBJECT) or b""
    return sorted(set(_NAME.findall(text.decode("utf-8", "replace"))))
