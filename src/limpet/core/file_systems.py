"""File systems: what is mounted where, and which kinds are shared between machines."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

SHARED = re.compile(
    r"nfs\d*|lustre|gpfs|beegfs\w*|ceph|cifs|smb\d*|panfs|pvfs2|orangefs|afs|wekafs|glusterfs|9p"
    r"|fuse\.(glusterfs|sshfs|ceph\w*|juicefs|cvmfs\w*)"
)
# Of many that are served by a program the kernel says no more than this.
FUSE = re.compile(r"fuse(\..*)?|fuseblk")
MEMORY = ("tmpfs", "ramfs")


class Mounted(msgspec.Struct, frozen=True):
    """One line of mountinfo: where, with which options, and the kind by the kernel's name."""

    place: str
    options: tuple[str, ...]
    kind: str


NOWHERE = Mounted("", (), "")


def parse_mounts(mountinfo: str) -> Iterator[Mounted]:
    """The lines of /proc/PID/mountinfo (proc(5)), in the order of mounting."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) > 5 and after:
            place = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
            yield Mounted(place, tuple(fields[5].split(",")), after.split()[0])


def find_mount(path: str, mountinfo: str) -> Mounted:
    """What a path without links lies on; NOWHERE if the kernel does not say."""
    best = NOWHERE
    for one in parse_mounts(mountinfo):
        inside = path == one.place or path.startswith(f"{one.place.rstrip('/')}/")
        if inside and len(one.place) >= len(best.place):  # of two on one place the later one counts
            best = one
    return best


def is_shared(kind: str) -> bool:
    """Whether a kind of file system is a network's."""
    return SHARED.fullmatch(kind) is not None


def may_be_shared(kind: str) -> bool:
    """Whether a server may have to be asked for what is not at hand."""
    return is_shared(kind) or FUSE.fullmatch(kind) is not None
