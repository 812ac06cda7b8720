"""Overlays on the disk: ext3 files by e2fsprogs, folders, and who uses them.

Apptainer locks a file (open file description locks over the whole of it: for writing, or for
reading with `:ro`; seen in 1.4.5), so limpet asks for and takes the same lock. It does not lock
folders: limpet does, and hands the lock on to the runtime that it becomes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from limpet.core.errors import ExistsError, HostError, ImageError, SpaceError
from limpet.core.overlay import (
    RECORD,
    RESERVED_PERCENT,
    Overlay,
    Record,
    Use,
    check_use,
    parse_superblock,
)
from limpet.tools import files, process

# Where plain users' PATH does not look, and Apptainer itself does.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_program(name: str) -> Path | None:
    """A program of PATH or of the system's folders."""
    return process.find_program(name) or process.find_program(name, path=SYSTEM_PATH)


def need_program(name: str) -> Path:
    """A program of e2fsprogs, or a HostError."""
    found = find_program(name)
    if not found:
        raise HostError(
            f"{name} is not here, and an overlay file needs it.",
            now="Ask for the package e2fsprogs, or use a folder: limpet overlay create --dir.",
        )
    return found


def check_helpers(runtime: str) -> None:
    """HostError where this machine's runtime cannot mount an overlay file for a plain user."""
    missing = [name for name in ("fuse2fs", "fuse-overlayfs") if not find_program(name)]
    if not missing:
        return
    # Packages of Apptainer bring their own, or starters with setuid rights that need none.
    said = process.run([runtime, "buildcfg"], timeout_s=30).text
    settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", said))
    libexec = Path(settings.get("LIBEXECDIR", "/usr/libexec"))
    for kind in ("apptainer", "singularity"):
        if (libexec / kind / "bin/starter-suid").exists():
            return
        missing = [name for name in missing if not (libexec / kind / "bin" / name).exists()]
    if missing:
        raise HostError(
            f"{' and '.join(missing)} cannot be found: an overlay file needs it.",
            why="Without setuid rights the runtime mounts ext3 files with these programs.",
            now="Ask for the packages fuse2fs and fuse-overlayfs, "
            "or use a folder: limpet overlay create --dir.",
        )


def make_file(path: Path, *, size_bytes: int, label: str, mark: str) -> None:
    """A sparse file with an ext3 file system in which the user owns everything."""
    mkfs = need_program("mkfs.ext3")
    _make_parent(path.parent)
    files.sweep_partials(path.parent)
    files.check_space(path.parent, size_bytes=size_bytes)
    owner = f"{os.getuid()}:{os.getgid()}"
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".seed-") as seed,
        files.written_beside(path, replace=False) as file,
    ):
        for name in ("upper", "work"):
            (Path(seed) / name).mkdir(mode=0o755)
        os.ftruncate(file.fileno(), size_bytes)
        options = ["-q", "-F", "-m", str(RESERVED_PERCENT), "-L", label, "-U", mark]
        options += ["-E", f"lazy_itable_init=1,root_owner={owner}", "-d", seed]
        done = process.run([mkfs, *options, file.name])
        if done.code:
            raise HostError(f"{path} cannot be made.", why=done.stderr.strip()[-500:])


def make_folder(path: Path, record: Record) -> None:
    """A folder with the places that the runtime writes to; complete from the start."""
    _make_parent(path.parent)
    if path.exists():
        raise ExistsError(f"{path} is there already.")
    made = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        for name in ("upper", "work"):
            (made / name).mkdir()
        (made / RECORD).write_bytes(msgspec.json.encode(record))
        made.rename(path)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise SpaceError(f"{path} cannot be made.", why=f"{error.strerror}.") from error


def _make_parent(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return
        why = "It is not yours to write."
    except OSError as error:
        why = f"{error.strerror}."
    raise SpaceError(
        f"The folder {folder} cannot be written.",
        why=why,
        now="Name a path for the overlay, or set LIMPET_STATE_DIR.",
    )


def probe_overlay(path: Path) -> Overlay:
    """What is there; ImageError where it is nothing that can be laid over an image."""
    try:
        if path.is_dir():
            return _probe_folder(path)
        with path.open("rb") as file:
            head = file.read(2048)
            status = os.fstat(file.fileno())
            use = find_use(file.fileno())
    except FileNotFoundError:
        raise ImageError(f"There is no overlay {path}.") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read.", why=f"{error.strerror}.") from error
    found = parse_superblock(head)
    name, disk_bytes = path.stem, status.st_blocks * 512
    if found is None:
        damage = "" if head.startswith(b"hsqs") else "It has no ext3 file system (any more)."
        return Overlay(
            path=str(path), name=name, kind="file", disk_bytes=disk_bytes, use=use, damage=damage
        )
    damage = "The file system found errors in itself." if found.has_errors else ""
    if found.size_bytes > status.st_size:
        damage = f"It is cut off: {status.st_size} bytes of {found.size_bytes}."
    return Overlay(
        path=str(path),
        name=name,
        kind="file",
        disk_bytes=disk_bytes,
        size_bytes=found.size_bytes,
        free_bytes=found.free_bytes,
        free_inodes=found.free_inodes,
        label=found.label,
        mark=found.mark,
        use=use,
        damage=damage,
    )


def _probe_folder(path: Path) -> Overlay:
    record = Record(label="", mark="")
    with contextlib.suppress(OSError, msgspec.DecodeError):
        record = msgspec.json.decode((path / RECORD).read_bytes(), type=Record)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        use: Use = "free"
    except BlockingIOError:
        use = "written"
    except OSError:  # a file system without locks tells nothing
        use = "free"
    finally:
        os.close(descriptor)
    free = os.statvfs(path)
    return Overlay(
        path=str(path),
        name=path.name,
        kind="folder",
        disk_bytes=_measure(path),
        free_bytes=free.f_bavail * free.f_frsize,
        free_inodes=free.f_favail,
        label=record.label,
        mark=record.mark,
        use=use,
    )


def _measure(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(where) / name).lstat().st_blocks * 512
    return total


_FLOCK = "hhqqi0q"  # struct flock where off_t has 64 bits
_WHOLE = (os.SEEK_SET, 0, 0, 0)


def find_use(descriptor: int) -> Use:
    """Who holds the runtime's lock on an overlay file."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, *_WHOLE)
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    except OSError:
        return "free"
    kinds: dict[int, Use] = {fcntl.F_UNLCK: "free", fcntl.F_RDLCK: "read"}
    return kinds.get(struct.unpack_from("h", answer)[0], "written")


@contextlib.contextmanager
def locked(overlay: Overlay) -> Iterator[Path]:
    """Keep everyone out of an overlay file, as a writing runtime would."""
    path = Path(overlay.path)
    with path.open("r+b") as file:
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, *_WHOLE)
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, wanted)
        except (BlockingIOError, PermissionError):
            check_use(msgspec.structs.replace(overlay, use="written"), writable=True)
        except OSError:
            pass  # a file system without locks: Apptainer goes on as well
        yield path


def hold_folder(path: str) -> int:
    """A lock on an overlay folder that lasts as long as the program that this process becomes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        check_use(
            Overlay(path=path, name="", kind="folder", disk_bytes=0, use="written"), writable=True
        )
    except OSError:
        pass  # a file system without locks
    os.set_inheritable(descriptor, True)
    return descriptor


def grow_file(overlay: Overlay, size_bytes: int) -> None:
    """Make an overlay file larger; what is in it stays."""
    resize = need_program("resize2fs")
    more = size_bytes - Path(overlay.path).stat().st_size
    files.check_space(Path(overlay.path).parent, size_bytes=max(0, more))
    with locked(overlay) as path:
        mend(path, "-p")
        os.truncate(path, size_bytes)
        done = process.run([resize, path])
        if done.code:
            raise ImageError(f"{path} cannot be made larger.", why=done.stderr.strip()[-500:])


def check_file(overlay: Overlay, *, repair: bool) -> tuple[bool, str]:
    """Check an overlay file, mending what is safe (with `repair`: all); whether it was changed."""
    with locked(overlay) as path:
        return mend(path, "-y" if repair else "-p")


def mend(path: Path, mode: str) -> tuple[bool, str]:
    """Run e2fsck on a file that nobody uses. Its exit code is a sum: 1 mended, 4 not mended."""
    done = process.run([need_program("e2fsck"), "-f", mode, path])
    said = done.text.strip()
    if done.code & ~3:
        raise ImageError(
            f"The overlay {path} is damaged.",
            why=(said or done.stderr.strip())[-1000:],
            now="limpet overlay check --repair mends what can be mended; what cannot, is lost."
            if mode == "-p"
            else "Remove it and make a new one.",
        )
    return bool(done.code), said


def remove(overlay: Overlay) -> None:
    """Remove an overlay that nobody uses."""
    check_use(overlay, writable=True)
    path = Path(overlay.path)
    if overlay.kind == "file":
        with locked(overlay):
            path.unlink()
        return
    # The runtime leaves folders that not even their owner may look into.
    for where, names, _ in os.walk(path):
        for name in names:
            inner = Path(where) / name
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(path)
