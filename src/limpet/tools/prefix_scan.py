"""A folder on the disk, looked at as a whole: names and `lstat` of all that is in it.

On a parallel file system `lstat` is a way to a server and back. Where it takes long, many threads
look at a folder each.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from limpet.core.errors import SpaceError
from limpet.core.prefix import Seen
from limpet.tools import process

if TYPE_CHECKING:
    from concurrent.futures import Future

THREADS = 16
SLOW_S = 0.0002  # to look at a file: fifty times what it takes where the system knows it already
_SHOWN = 5
_READABLE = 0o444
_PLAIN = stat.S_IFREG | _READABLE
_path_of = attrgetter("path")

# The folders in a folder, and how long the first look at something in it took (0: nothing is).
Looked = tuple[list[str], float]


class _ChangedError(Exception):
    """Something is not as it was seen."""


def scan_tree(folder: Path) -> tuple[Seen, ...]:
    """All that is in a folder and the folder itself, parents first, sorted within each folder.

    SpaceError names what cannot be read, before anything else is done with the folder.
    """
    top = os.fspath(folder)
    listings: dict[str, list[Seen]] = {}
    closed: list[str] = []

    def look(inside: str) -> Looked:
        listing, folders, took_s = _list(top, inside, closed)
        listings[inside] = listing
        return folders, took_s

    first = _seen(top, os.stat(top), "")  # noqa: PTH116 - behind a link, if it is one
    _look_through(look)
    if closed:
        more = f"\n… and {len(closed) - _SHOWN} more" if len(closed) > _SHOWN else ""
        raise SpaceError(
            f"{len(closed)} of the things in {folder} cannot be read.",
            why="\n".join(sorted(closed)[:_SHOWN]) + more,
            now="Let their owner make them readable, or remove what is not needed.",
        )
    found = [first]
    _add_in_order(found, "", listings)
    return tuple(found)


def is_as_seen(folder: Path, seen: Sequence[Seen]) -> bool:
    """Whether a folder holds what `scan_tree` saw in it and nothing else, none of it changed.

    A change is one of inode, mode, size, time of change (of content or inode), link or device.
    """
    top = os.fspath(folder)
    expected = {one.path: one for one in seen}
    counts: list[int] = []

    def look(inside: str) -> Looked:
        folders: list[str] = []
        start = f"{inside[1:]}/" if inside else ""
        with os.scandir(top + inside) as listing:
            entries = list(listing)
            took_s = _time_look(entries)
            for entry in entries:
                one = expected.get(start + entry.name)
                if one is None or not _is_same(entry.stat(follow_symlinks=False), one):
                    raise _ChangedError
                if one.is_folder:
                    folders.append(f"/{one.path}")
                elif one.target and os.readlink(entry.path) != one.target:  # noqa: PTH115
                    raise _ChangedError
        counts.append(len(entries))
        return folders, took_s

    try:
        if not _is_same(os.stat(top), expected[""]):  # noqa: PTH116
            return False
        _look_through(look)
    except (OSError, _ChangedError):
        return False
    return sum(counts) == len(expected) - 1


def _look_through(look: Callable[[str], Looked]) -> None:
    """Look at all folders from the top ("") on, one by one or, where it is slow, many at once."""
    from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

    waiting = [""]
    running: set[Future[Looked]] = set()
    is_slow = False
    with ThreadPoolExecutor(THREADS) as pool:
        while waiting or running:
            if is_slow:
                while waiting and len(running) < 2 * THREADS:
                    running.add(pool.submit(look, waiting.pop()))
            if running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                looked = [one.result() for one in done]
            else:
                looked = [look(waiting.pop())]
            for folders, took_s in looked:
                waiting += folders
                is_slow = took_s > SLOW_S if took_s else is_slow


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


def _time_look(entries: Sequence[os.DirEntry[str]]) -> float:
    """How long it takes to look at the first; what is seen of it, the entry keeps."""
    if not entries:
        return 0.0
    started_s = perf_counter()
    with suppress(OSError):  # which comes again, when its turn comes
        entries[0].stat(follow_symlinks=False)
    return perf_counter() - started_s


def _list(top: str, inside: str, closed: list[str]) -> tuple[list[Seen], list[str], float]:
    """What is in a folder, sorted, and as `Looked`; what cannot be read is added to `closed`."""
    found: list[Seen] = []
    folders: list[str] = []
    start = f"{inside[1:]}/" if inside else ""
    try:
        with os.scandir(top + inside) as listing:
            entries = list(listing)
    except PermissionError:
        closed.append(top + inside)
        return found, folders, 0.0
    except FileNotFoundError:
        return found, folders, 0.0  # gone by now: the next look at the folder will differ
    took_s = _time_look(entries)
    for entry in entries:
        path = start + entry.name
        try:
            one = _seen(entry.path, entry.stat(follow_symlinks=False), path)
        except FileNotFoundError:
            continue
        except PermissionError:  # names may be read, and nothing else
            closed.append(top + inside)
            break
        found.append(one)
        mode = one.mode
        if mode & _PLAIN == _PLAIN:
            continue  # most are files that all may read: no further question
        if stat.S_ISDIR(mode):
            folders.append(f"/{path}")
        elif (
            stat.S_ISREG(mode)
            and mode & _READABLE != _READABLE
            and not os.access(entry.path, os.R_OK)
        ):
            closed.append(entry.path)
    found.sort(key=_path_of)
    return found, folders, took_s


def _add_in_order(found: list[Seen], inside: str, listings: dict[str, list[Seen]]) -> None:
    """What is in a folder, each folder with its own behind it."""
    listing = listings[inside]
    start = 0
    for at, one in enumerate(listing, 1):
        if stat.S_ISDIR(one.mode):
            found += listing[start:at]
            _add_in_order(found, f"/{one.path}", listings)
            start = at
    found += listing[start:]


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
