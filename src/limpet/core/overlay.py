"""Overlays: a writable layer over an image, as a file with an ext3 file system or as a folder.

An overlay says of itself which image it belongs to: an ext3 file by its UUID and label, a folder by
a small file beside `upper`. So it can be moved and renamed, and a look at 1 kB tells.
"""

from __future__ import annotations

import re
import struct
import uuid
from typing import Literal

import msgspec

from limpet.core.errors import ImageError, SpaceError, UsageError
from limpet.core.seen import ImageSeen

RECORD = "limpet.json"
SMALLEST_BYTES = 16 * 1024**2  # below, the journal leaves no room
LARGEST_BYTES = 16 * 1024**4  # ext3 with blocks of 4 kB
# fuse2fs keeps a tenth for root where a file system reserves nothing, so one percent is less.
RESERVED_PERCENT = 1
LOW_SHARE = 0.05
FULL_BYTES = 65536  # no program gets far with less

Kind = Literal["file", "folder"]
Use = Literal["free", "read", "written"]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """`--overlay NAME|PATH[:ro]`: exactly one of `name` and `path` is set."""

    name: str = ""
    path: str = ""
    writable: bool = True


class Superblock(msgspec.Struct, frozen=True, kw_only=True):
    """What an ext2/3/4 file system says of itself."""

    size_bytes: int
    free_bytes: int
    free_inodes: int
    label: str
    mark: str
    has_errors: bool


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder says of itself."""

    label: str
    mark: str


class Overlay(msgspec.Struct, frozen=True, kw_only=True):
    """An overlay as it lies there.

    `size_bytes` is what it can hold (0: a folder, which has no limit of its own, or a squashfs
    file, which can only be read), `disk_bytes` what
    it takes on the disk, `free_bytes` what is left. `mark` is empty where limpet did not make it.
    """

    path: str
    name: str
    kind: Kind
    disk_bytes: int
    size_bytes: int = 0
    free_bytes: int = 0
    free_inodes: int = 0
    label: str = ""
    mark: str = ""
    use: Use = "free"
    damage: str = ""


def parse_wish(text: str) -> Wish:
    """A word without `/` and `.` is a name, anything else a path."""
    place, colon, mode = text.rpartition(":")
    if not colon or mode not in ("ro", "rw"):
        place, mode = text, "rw"
    if re.search(r"[:,]", place) or not place:
        # The runtime splits there, and has no way to quote.
        raise UsageError(
            f"--overlay {text}: the path must not have a colon or comma in it.",
            now="Write NAME or PATH, and :ro after it to only read.",
        )
    writable = mode == "rw"
    if is_name(place):
        return Wish(name=place, writable=writable)
    return Wish(path=place, writable=writable)


def is_name(text: str) -> bool:
    """Whether it is an overlay's name rather than a path."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", text) is not None


_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def parse_size(text: str) -> int:
    """`512M`, `4G`, `4GiB` in bytes (units of 1024, as the runtime and mkfs count)."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise UsageError(f"--size {text}: that is no size.", now="Write for instance 512M or 4G.")
    size_bytes = int(float(found[1]) * _UNITS[found[2].upper()])
    if not SMALLEST_BYTES <= size_bytes <= LARGEST_BYTES:
        raise UsageError(
            f"--size {text}: an overlay has at least 16M and at most 16T.",
            now="Write for instance 512M or 4G.",
        )
    return size_bytes // 4096 * 4096


def mark_of(image: ImageSeen) -> str:
    """The UUID of this image's overlays: the same for every copy of the image."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"limpet:{image.identity}"))


def label_of(image: ImageSeen) -> str:
    """The image's title in the 16 bytes that an ext3 label has."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", image.title)[:16]


def parse_superblock(data: bytes) -> Superblock | None:
    """The superblock from a file's first 2 kB; None where there is none.

    Layout: https://docs.kernel.org/filesystems/ext4/globals.html#super-block
    """
    if len(data) < 2048 or data[1024 + 56 : 1024 + 58] != b"\x53\xef":
        return None
    inodes, blocks, reserved, free, free_inodes, _, log_size = struct.unpack_from("<7I", data, 1024)
    (state,) = struct.unpack_from("<H", data, 1024 + 58)
    block_bytes = 1024 << min(log_size, 6)
    mark = uuid.UUID(bytes=data[1024 + 104 : 1024 + 120])
    label = data[1024 + 120 : 1024 + 136].split(b"\0")[0].decode("utf-8", "replace")
    return Superblock(
        size_bytes=blocks * block_bytes,
        free_bytes=max(0, free - (reserved or blocks // 10)) * block_bytes,
        free_inodes=min(free_inodes, inodes),
        label=label,
        mark=str(mark) if mark.version == 5 else "",
        has_errors=bool(state & 2),
    )


def check_start(overlay: Overlay, image: ImageSeen, *, writable: bool) -> str:
    """A note for a start with this overlay (empty: none), or the error that it would end in."""
    if overlay.damage:
        raise ImageError(
            f"The overlay {overlay.path} is damaged.",
            why=overlay.damage,
            now=f"Try: limpet overlay check {image.path} {overlay.path} --repair",
        )
    if overlay.mark and overlay.mark != mark_of(image):
        raise ImageError(
            f"The overlay {overlay.path} belongs to another image ({overlay.label}).",
            why=f"What was written over that image does not fit on {image.path}.",
            now=f"Make one for this image: limpet overlay create {image.path} --size 4G",
        )
    check_use(overlay, writable=writable)
    if not writable or not overlay.size_bytes:
        return ""
    if overlay.free_bytes < FULL_BYTES or overlay.free_inodes == 0:
        what = "inodes" if overlay.free_inodes == 0 else "space"
        raise SpaceError(
            f"The overlay {overlay.path} is full.",
            why=f"It has no {what} left of {overlay.size_bytes / 1e6:.0f} MB.",
            now=f"limpet overlay grow {image.path} {overlay.path} --size …, or add :ro to read.",
        )
    if overlay.free_bytes < LOW_SHARE * overlay.size_bytes:
        return f"The overlay {overlay.path} is nearly full: {overlay.free_bytes / 1e6:.1f} MB left."
    return ""


def check_use(overlay: Overlay, *, writable: bool) -> None:
    """ImageError where another process has it."""
    if overlay.use == "written" or (writable and overlay.use == "read"):
        raise ImageError(
            f"The overlay {overlay.path} is in use.",
            why="Another program writes to it: only one can, and nobody reads meanwhile."
            if overlay.use == "written"
            else "Others read it: nobody can write to it meanwhile.",
            now="Wait for that to end, or make another one. Many at once can read: add :ro.",
        )
