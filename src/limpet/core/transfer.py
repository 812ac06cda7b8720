"""What went to a registry or came from one."""

from __future__ import annotations

import msgspec


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
