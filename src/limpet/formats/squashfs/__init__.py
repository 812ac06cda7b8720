"""squashfs 4.0: read, write and compose images, in Python, on open files.

`write_squashfs` turns a stream of entries into an image, `Squashfs` reads one, and `compose` merges
images by their metadata alone: no data block is decompressed or compressed again.
"""

from limpet.formats.squashfs.compose import Source, compose
from limpet.formats.squashfs.front import Front
from limpet.formats.squashfs.hot import Hot, Kept, Packed
from limpet.formats.squashfs.model import Entry, Kind, Node, SquashfsStats
from limpet.formats.squashfs.read import Squashfs
from limpet.formats.squashfs.write import Written, write_data, write_squashfs

__all__ = [
    "Entry",
    "Front",
    "Hot",
    "Kept",
    "Kind",
    "Node",
    "Packed",
    "Source",
    "Squashfs",
    "SquashfsStats",
    "Written",
    "compose",
    "write_data",
    "write_squashfs",
]
