"""Files and folders: where limpet keeps things, and how it writes them so that nothing is lost."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from limpet.core.errors import ExistsError, SpaceError, space_error

PARTIAL_MARK = ".limpet-partial-"
# What tools leave in a source tree; limpet's own files there decide nothing about its contents.
_PASSED_OVER = frozenset(
    (
        *(".git", ".hg", ".svn", "__pycache__", ".venv", "build", "dist", ".tox", ".nox"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"),
        *("limpet.toml", "pylock.toml"),
    )
)


def cache_folder(chosen: str = "") -> Path:
    """Where artifacts, bases and pieces are kept: `chosen`, $LIMPET_CACHE_DIR, or the XDG place."""
    named = chosen or os.environ.get("LIMPET_CACHE_DIR", "")
    if named:
        return Path(named).expanduser().absolute()
    return _xdg("XDG_CACHE_HOME", ".cache") / "limpet"


def state_folder(chosen: str = "") -> Path:
    """Where each image's personal things are kept: $LIMPET_STATE_DIR or the XDG place."""
    named = chosen or os.environ.get("LIMPET_STATE_DIR", "")
    if named:
        return Path(named).expanduser().absolute()
    return _xdg("XDG_STATE_HOME", ".local/state") / "limpet"


def _xdg(variable: str, default: str) -> Path:
    named = os.environ.get(variable, "")
    # The XDG base directory specification has relative values ignored.
    return Path(named) if named.startswith("/") else Path.home() / default


def make_folder(path: Path) -> Path:
    """The folder, made if need be; SpaceError where it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpaceError(
            f"The folder {path} cannot be made.",
            why=f"{error.strerror}.",
            now="Name another one: --cache-dir or LIMPET_CACHE_DIR.",
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise SpaceError(
            f"The folder {path} cannot be written.",
            now="Name another one: --cache-dir or LIMPET_CACHE_DIR.",
        )
    return path


@contextlib.contextmanager
def written_beside(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """Write a file under a passing name beside `path`; it takes its name only when all is well.

    The passing file is locked while it is written, so `sweep_partials` can tell a dead build's
    leftover from a living build's work.
    """
    partial, file = _open_partial(path)
    try:
        with file:
            yield file
            file.flush()
            if replace:
                partial.replace(path)
            else:
                _link_new(partial, path)
    except OSError as error:
        if full := space_error(error, path):
            raise full from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _open_partial(path: Path) -> tuple[Path, BinaryIO]:
    """A new passing file, locked. A sweep may come between the two steps: then once more."""
    while True:
        partial = path.with_name(f".{path.name}{PARTIAL_MARK}{os.urandom(4).hex()}")
        try:
            file = partial.open("x+b")
        except OSError as error:
            raise SpaceError(f"{path} cannot be written.", why=f"{error.strerror}.") from error
        with contextlib.suppress(OSError):  # Lustre without -o flock has no locks
            fcntl.flock(file, fcntl.LOCK_EX)  # waits for a sweep that holds it, and will remove it
        if os.fstat(file.fileno()).st_nlink:
            return partial, file
        file.close()


def _link_new(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError:  # a file system without hard links: the look and the renaming are two steps
        if path.exists():
            raise _exists(path) from None
        partial.rename(path)


def _exists(path: Path) -> ExistsError:
    return ExistsError(f"{path} is there already.", now="Use --force to replace it.")


def sweep_partials(folder: Path) -> list[Path]:
    """Remove what dead builds left in a folder; living builds hold a lock on theirs."""
    swept = []
    for leftover in folder.glob(f".*{PARTIAL_MARK}*"):
        with contextlib.suppress(OSError), leftover.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()
            swept.append(leftover)
    return swept


def remove_tree(folder: Path) -> None:
    """Remove a folder with all in it that can be removed."""
    import shutil

    shutil.rmtree(folder, onerror=_open_up)


@contextlib.contextmanager
def passing_folder(
    parent: Path, *, prefix: str = "", remove: Callable[[Path], None] = remove_tree
) -> Iterator[Path]:
    """A folder in `parent` for the time of the block; those of dead builds are removed first.

    It is locked while the block lasts, so that a dead build's can be told from a living one's.
    """
    import tempfile

    with contextlib.ExitStack() as stack:
        with held(make_folder(parent) / ".lock"):  # else a sweep takes what is not locked yet
            for leftover in parent.iterdir():
                _sweep_folder(leftover, remove)
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix or None))
            stack.callback(remove, folder)
            lock = stack.enter_context((folder / ".held").open("wb"))
            with contextlib.suppress(OSError):  # Lustre without -o flock has no locks
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _sweep_folder(folder: Path, remove: Callable[[Path], None]) -> None:
    with contextlib.suppress(OSError), (folder / ".held").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(folder)


def _open_up(action: object, path: str, _: object) -> None:
    """Containers leave folders that even their owner may not list (an overlay's `work`)."""
    import shutil

    with contextlib.suppress(OSError):
        place = Path(path)
        place.chmod(0o700)
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        place.unlink(missing_ok=True)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two builds do not do the same work twice; waits for the other."""
    make_folder(path.parent)
    with path.open("ab") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold a lock file together with others; `taken` waits for none of them.

    Where nothing can be locked, or written, it goes without.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, SpaceError):
            file = stack.enter_context(make_folder(path.parent).joinpath(path.name).open("ab"))
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def taken(path: Path) -> Iterator[bool]:
    """Hold a lock file alone; False where others hold it, or nothing can be locked here."""
    make_folder(path.parent)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def mark_used(path: Path, time_ns: int | None = None) -> None:
    """Set a file's time, where that can be: what was used last is kept longest."""
    with contextlib.suppress(OSError):
        if time_ns is None:
            os.utime(path)
        else:
            os.utime(path, ns=(time_ns, time_ns))


def hash_file(path: Path) -> str:
    """The hexadecimal sha256 of a file."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(path: Path) -> str:
    """A name for what is learned of a large file, which is another one when the file changes."""
    status = path.stat()
    place = crc32(os.fsencode(path.resolve()))
    return f"{place:08x}-{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"


def hash_tree(folder: Path) -> str:
    """The sha256 of a source tree: names, contents, execute bits and links, in sorted order."""
    import hashlib

    digest = hashlib.sha256()
    for name, path in sorted(_walk(folder, "")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            what = f"l{path.readlink()}"
        elif stat.S_ISREG(status.st_mode):
            what = f"{'x' if status.st_mode & 0o100 else 'f'}{hash_file(path)}"
        else:
            continue
        for part in (name, what):
            digest.update(os.fsencode(part) + b"\0")
    return digest.hexdigest()


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    for entry in os.scandir(folder):
        name = entry.name
        generated = name.startswith("pylock.") and name.endswith(".toml")
        if name in _PASSED_OVER or generated or name.endswith((".egg-info", ".pyc", ".sif")):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", Path(entry.path)


def nearest(folder: Path) -> Path:
    """The folder, or what there is of it: the first one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def check_writable(folder: Path, *, now: str) -> None:
    """SpaceError where the folder, or what it would be made in, cannot be written."""
    there = nearest(folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise SpaceError(f"The folder {folder} cannot be written.", now=now)


def check_space(folder: Path, *, size_bytes: int, files: int = 0) -> None:
    """SpaceError where the file system of `folder` has not that much left."""
    there = nearest(folder)
    status = os.statvfs(there)
    free_bytes = status.f_bavail * status.f_frsize
    if free_bytes < size_bytes:
        raise SpaceError(
            f"Not enough space in {folder}: {size_bytes / 1e6:.0f} MB needed, "
            f"{free_bytes / 1e6:.0f} MB free.",
            now="Make room, or name another folder.",
        )
    # Lustre, btrfs and others report 0 inodes in all: they have no such limit to tell of.
    if status.f_files and status.f_favail < files:
        raise SpaceError(
            f"Not enough inodes in {folder}: {files} files needed, {status.f_favail} free.",
            now="Remove files, or name another folder.",
        )


def umask() -> int:
    """The user's umask, which can only be asked by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
