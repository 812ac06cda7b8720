"""What went to a registry or came from one."""

from __future__ import annotations

from typing import Literal

import msgspec

from limpet.core.errors import BaseError, UsageError
from limpet.core.reference import Reference, parse_reference


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """`digest` is that of the manifest, by which the same bytes are had again.

    `size_bytes` are all blobs, `moved_bytes` those that had to be sent, fetched or written.
    `layers` are the base's layers, as they were; `layer_bytes` is the environment's own.
    `signature` says what is known of a SIF's signature.
    """

    place: str
    digest: str
    size_bytes: int = 0
    moved_bytes: int = 0
    layers: int = 0
    layer_bytes: int = 0
    signature: str = ""
    elapsed_s: float = 0.0


def parse_place(text: str, scheme: Literal["docker", "oras"], *, writes: bool) -> Reference:
    """A place in a registry; UsageError where it is none, or cannot be written to."""
    form = f"{scheme}://HOST/NAME:TAG"
    try:
        parsed = parse_reference(text)
    except BaseError as error:
        raise UsageError(
            f"{text} cannot be read.", why=error.why, now=f"It is written {form}."
        ) from error
    if parsed.scheme != scheme:
        what = "a SIF" if scheme == "oras" else "a container image"
        raise UsageError(f"{text} is no place for {what}.", why=f"It is written {form}.")
    if writes and parsed.digest:
        raise UsageError(f"{text} has a digest.", now="Name a tag: what is pushed has its own.")
    return parsed
