"""What is known of a foreign image without starting it: read from its file once, and kept.

The kept answer costs a start one small file; only the reading brings a squashfs reader.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from limpet.core.errors import LimpetError
from limpet.core.image_env import select_sent
from limpet.core.seen import ImageSeen, Known
from limpet.tools import answers, files

_SCRIPTS = ".singularity.d/env"


def with_known(image: ImageSeen, cache: Path) -> ImageSeen:
    """The image with what is known of it; as it was where that cannot be read, or it says it."""
    if image.facts:
        return image
    with contextlib.suppress(OSError, LimpetError):
        return msgspec.structs.replace(image, **msgspec.structs.asdict(_look(image, cache)))
    return image


def _look(image: ImageSeen, cache: Path) -> Known:
    path = Path(image.path)
    if image.kind == "sandbox":
        scripts = sorted((path / _SCRIPTS).glob("*.sh"))
        return Known(env=select_sent([s.read_text(errors="replace") for s in scripts]))
    kept = cache / "known" / f"{files.key_of(path)}.json"
    return answers.kept_answer(kept, Known, lambda: _read(path, is_sif=image.kind == "sif"))


def _read(path: Path, *, is_sif: bool) -> Known:
    from limpet.tools import image_needs

    return image_needs.read_known(path, is_sif)
