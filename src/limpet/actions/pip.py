"""`limpet pip IMAGE COMMAND…`: pip inside, for this image's personal packages."""

from __future__ import annotations

from collections.abc import Sequence

from limpet.core.personal import PIP

# Of the personal packages alone; `limpet run IMAGE pip list` shows the image's as well.
_LISTING = ("list", "freeze")


def plan_words(words: Sequence[str]) -> tuple[str, ...]:
    """The command that is to run inside, by its own path: an image may put others before it."""
    own = ("--personal",) if words[0] in _LISTING else ()
    return (PIP, *words, *own)
