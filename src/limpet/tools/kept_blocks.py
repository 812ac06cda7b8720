"""Blocks that were compressed with effort, kept for the next image, by recipe."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import msgspec

from limpet.core.errors import SpaceError
from limpet.formats.squashfs import Kept, Packed
from limpet.tools import files

CHECK_BYTES = 4


def recall(path: Path) -> Kept:
    """What an earlier image left there; where none did, what the last one of all others left.

    With another package asked for, most blocks are those of the image before. Nothing where the
    file is damaged.
    """
    if not path.exists():
        with suppress(OSError, ValueError):
            path = max(path.parent.glob(f"*{path.suffix}"), key=lambda one: one.stat().st_mtime)
    with suppress(OSError, msgspec.MsgspecError):
        data = path.read_bytes()
        body = memoryview(data)[CHECK_BYTES:]
        if data[:CHECK_BYTES] == _check(body):
            known = msgspec.msgpack.decode(body, type=dict[bytes, Packed])
            with suppress(OSError):  # it may be a colleague's
                os.utime(path)  # what is used last is removed from the cache last
            return Kept(known=known)
    return Kept()


def keep(path: Path, kept: Kept) -> None:
    """Keep what an image used, where that is possible and it is not there already."""
    if not kept.used or (kept.used.keys() == kept.known.keys() and path.exists()):
        return
    with suppress(OSError, SpaceError):
        files.make_folder(path.parent)
        body = msgspec.msgpack.encode(dict(sorted(kept.used.items())))
        with files.written_beside(path) as out:
            out.write(_check(body))
            out.write(body)


def _check(data: bytes | memoryview) -> bytes:
    return crc32(data).to_bytes(CHECK_BYTES, "little")
