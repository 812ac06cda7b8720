"""A folder on the disk, looked at as a whole: names and `lstat` of all that is in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from limpet.core.errors import SpaceError
from limpet.core.prefix import Seen
from limpet.tools import process

_SHOWN = 5
_READABLE = 0o444
_PLAIN = stat.S_IFREG | _READABLE


def scan_tree(folder: Path) -> tuple[Seen, ...]:
    """All that is in a folder and the folder itself, parents first, sorted within each folder.

    SpaceError names what cannot be read, before anything else is done with the folder.
    """
    top = os.fspath(folder)
    found = [_seen(top, os.stat(top), "")]  # noqa: PTH116 - behind a link, if it is one
    closed: list[str] = []
    _scan(top, "", found, closed)
    if closed:
        more = f"\n… and {len(closed) - _SHOWN} more" if len(closed) > _SHOWN else ""
        raise SpaceError(
            f"{len(closed)} of the things in {folder} cannot be read.",
            why="\n".join(sorted(closed)[:_SHOWN]) + more,
            now="Let their owner make them readable, or remove what is not needed.",
        )
    return tuple(found)


def is_as_seen(folder: Path, seen: Sequence[Seen]) -> bool:
    """Whether a folder holds what `scan_tree` saw in it and nothing else, none of it changed.

    A change is one of inode, mode, size, time of change (of content or inode), link or device.
    """
    top = os.fspath(folder)
    expected = {one.path: one for one in seen}
    left = len(expected) - 1
    if not _is_same(os.stat(top), expected[""]):  # noqa: PTH116
        return False
    stack = [(top, "")]
    while stack:
        place, inside = stack.pop()
        try:
            with os.scandir(place) as listing:
                for entry in listing:
                    one = expected.get(inside + entry.name)
                    left -= 1
                    if one is None or not _is_same(entry.stat(follow_symlinks=False), one):
                        return False
                    if one.is_folder:
                        stack.append((entry.path, f"{one.path}/"))
                    elif one.target and os.readlink(entry.path) != one.target:  # noqa: PTH115
                        return False
        except OSError:
            return False
    return not left


@contextmanager
def looking_again(
    folders: Sequence[tuple[Path, Sequence[Seen]]],
) -> Iterator[Callable[[], tuple[bool, ...]]]:
    """Start to look, in a copy of this process, which folders are as they were seen.

    What is given waits for the answer, with one word for each folder.
    """

    def look(says: int, hears: int) -> None:
        os.write(says, bytes(is_as_seen(folder, seen) for folder, seen in folders))

    with process.forked(look) as (said, _):

        def answer() -> tuple[bool, ...]:
            words = os.read(said, len(folders))  # so few are written at once
            return tuple(bool(word) for word in words.ljust(len(folders), b"\0"))

        yield answer


def _is_same(now: os.stat_result, one: Seen) -> bool:
    if now.st_mode != one.mode or now.st_ino != one.inode or now.st_dev != one.device:
        return False
    # A folder's own times change with what is in it, and that is compared by itself.
    return stat.S_ISDIR(now.st_mode) or (
        now.st_mtime_ns == one.mtime_ns
        and now.st_ctime_ns == one.ctime_ns
        and now.st_rdev == one.rdev
        and (now.st_size == one.size_bytes or not (one.size_bytes or one.is_file))
    )


def _scan(folder: str, inside: str, found: list[Seen], closed: list[str]) -> None:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except PermissionError:
        closed.append(folder)
        return
    except FileNotFoundError:
        return  # gone since its folder was listed: the next look at the folder will differ
    for entry in entries:
        path = f"{inside}{entry.name}"
        try:
            status = entry.stat(follow_symlinks=False)
            one = _seen(entry.path, status, path)
        except FileNotFoundError:
            continue
        found.append(one)
        mode = one.mode
        if mode & _PLAIN == _PLAIN:
            continue  # most are files that all may read: no further question
        if stat.S_ISDIR(mode):
            _scan(entry.path, f"{path}/", found, closed)
        elif (
            stat.S_ISREG(mode)
            and mode & _READABLE != _READABLE
            and not os.access(entry.path, os.R_OK)
        ):
            closed.append(entry.path)


def _seen(place: str, status: os.stat_result, path: str) -> Seen:
    kind = stat.S_IFMT(status.st_mode)
    is_link, is_file = kind == stat.S_IFLNK, kind == stat.S_IFREG
    return Seen(
        path=path,
        mode=status.st_mode,
        size_bytes=status.st_size if is_file or is_link else 0,
        blocks_bytes=status.st_blocks * 512 if is_file else 0,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        inode=status.st_ino,
        device=status.st_dev,
        links=status.st_nlink,
        rdev=status.st_rdev,
        target=os.readlink(place) if is_link else "",  # noqa: PTH115 - the very text
    )
