"""What lies in a folder that is to be packed: each thing as it was seen, and what became of it."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import msgspec

# The 16 bytes before the code: magic number, flags, then the source's time and size or its hash
# (PEP 552). Up to 3.6 there are no flags: magic number, time, and from 3.2 on the size.
PYC_HEADER_BYTES = 16
_MAGIC_ENDS = b"\r\n"
_FIRST_WITH_FLAGS, _FIRST_OF_3, _LAST_OF_3 = 3390, 3000, 9999  # magic numbers of Python 3.7, 3.x
_CACHED = re.compile(r"(?P<stem>.+)\.(?!opt-)[a-z]+-?\d[\w-]*(?:\.opt-\w+)?\.pyc")


class Seen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing in a folder, as `lstat` has it. `path` starts at the packed tree's own place.

    `blocks_bytes` is what it takes on the disk, `inode` names it together with `device`.
    """

    path: str
    mode: int
    size_bytes: int
    blocks_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    links: int
    rdev: int = 0
    target: str = ""

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_special(self) -> bool:
        """A device, a pipe or a socket."""
        return not (self.is_file or self.is_link or self.is_folder)

    @property
    def is_sparse(self) -> bool:
        return self.size_bytes > 65536 and self.blocks_bytes < self.size_bytes // 2 and self.is_file


class Content(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was read of a file: its own sha256, and that of what was written in its place.

    They differ for byte code whose header was rewritten; a file that was left out has none.
    """

    sha256: bytes
    written: bytes


@cache  # asked for each file, and there are few modes
def image_mode(mode: int) -> int:
    """The mode in the image: what its owner may read or start, everyone who has the image may.

    All files belong to root there, and a user who is not root could read nothing of a folder made
    under umask 077. Set-user-id bits would lend root's name, not the owner's: they are dropped.
    """
    if stat.S_ISLNK(mode):
        return 0o777
    own = (mode >> 6) & 0o5
    return (mode & 0o777) | own << 3 | own


def find_changes(before: Sequence[Seen], after: Sequence[Seen]) -> tuple[str, ...]:
    """The paths of what came, went or changed between two looks at a folder."""
    old = {one.path: _state(one) for one in before}
    new = {one.path: _state(one) for one in after}
    if old == new:
        return ()
    return tuple(path for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path))


def _state(one: Seen) -> tuple[object, ...]:
    """What tells of a change; how much of the disk a file takes is settled after it is written."""
    times = (one.mtime_ns, one.ctime_ns)
    # A folder's own times change with what is in it, and that is compared by itself.
    return (
        *(one.mode, one.size_bytes, one.inode, one.device, one.rdev, one.target),
        *(() if one.is_folder else times),
    )


def source_of(byte_code: str) -> str:
    """The module whose byte code this is, `a/__pycache__/b.cpython-313.pyc` → `a/b.py`; or ""."""
    folder, slash, name = byte_code.rpartition("/")
    if folder.endswith("__pycache__"):
        found = _CACHED.fullmatch(name)
        return f"{folder.removesuffix('__pycache__')}{found['stem']}.py" if found else ""
    return f"{folder}{slash}{name.removesuffix('.pyc')}.py"


def settle_byte_code(data: bytes, source: Seen | None) -> bytes | None:
    """Byte code that stays valid in an image, where no file has a time; None for stale one.

    Byte code that goes by its source's time becomes one that is never compared (PEP 552), or,
    before Python 3.7, one whose source has the time 0. What has no source is never compared anyway.
    """
    if source is None or len(data) < PYC_HEADER_BYTES or data[2:4] != _MAGIC_ENDS:
        return data
    magic = int.from_bytes(data[:2], "little")
    flags = int.from_bytes(data[4:8], "little")
    time_s = source.mtime_ns // 10**9 & 0xFFFFFFFF
    size_bytes = source.size_bytes & 0xFFFFFFFF
    if _FIRST_WITH_FLAGS <= magic <= _LAST_OF_3:
        if flags:
            return data
        stamp = data[8:16]
        if stamp != time_s.to_bytes(4, "little") + size_bytes.to_bytes(4, "little"):
            return None
        return data[:4] + b"\1\0\0\0" + bytes(8) + data[16:]
    if flags != time_s:
        return None
    if _FIRST_OF_3 <= magic < _FIRST_WITH_FLAGS and data[8:12] != size_bytes.to_bytes(4, "little"):
        return None
    return data[:4] + bytes(4) + data[8:]


def modules_without_code(
    seen: Iterable[Seen], folders: Sequence[str], cache_tag: str, gone: Mapping[str, object]
) -> list[Seen]:
    """The modules below `folders` for which a Python of that tag finds no byte code.

    `gone` are the paths that are not written although they were seen.
    """
    starts = tuple(f"{folder}/" for folder in folders)
    code: set[str] = set()
    modules = []
    for one in seen:
        if not one.path.startswith(starts) or not one.is_file:
            continue
        if one.path.endswith(".py"):
            modules.append(one)
        elif one.path.endswith(f".{cache_tag}.pyc") and one.path not in gone:
            code.add(source_of(one.path))
    return [one for one in modules if one.path not in code]
