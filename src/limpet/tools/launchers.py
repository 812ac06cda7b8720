"""Folders of launchers: their versions, which of them is in force, and how that is changed.

`DIR/bin` leads through `DIR/.limpet/current` to `DIR/.limpet/versions/N/bin`. A version is written
beside and renamed, and never changed or removed after that, because jobs may run from it; one
rename of `current` puts it in force.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from limpet.core.errors import ExistsError, LimpetError, SpaceError, UsageError
from limpet.core.wrap import FORMAT, OWN, RECORD, SOURCES, Wrap
from limpet.tools.files import PARTIAL_MARK, held, written_beside

CURRENT = "current"


def is_ours(folder: Path) -> bool:
    """Whether limpet made this folder of launchers."""
    return (folder / OWN / "versions").is_dir()


def check_free(folder: Path, *, force: bool) -> None:
    """ExistsError where the folder holds something else; SpaceError where it cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise ExistsError(f"{folder} is there and is no folder.", now="Choose another one.")
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        raise SpaceError(f"{there} cannot be written.", now="Choose another folder.")
    if is_ours(folder) or not folder.exists() or force:
        return
    if any(folder.iterdir()):
        raise ExistsError(
            f"{folder} holds something that limpet did not put there.",
            now="Choose another one, or use --force: what is in it stays, a bin as bin.old.",
        )


def list_versions(folder: Path) -> tuple[int, ...]:
    """The numbers of the versions that are there, in order."""
    versions = folder / OWN / "versions"
    names = os.listdir(versions) if versions.is_dir() else []  # noqa: PTH208 - names, not paths
    return tuple(sorted(int(name) for name in names if re.fullmatch(r"[1-9]\d*", name)))


def current_version(folder: Path) -> int:
    """The version in force; UsageError where the folder is none of ours."""
    try:
        return int((folder / OWN / CURRENT).readlink().name)
    except (OSError, ValueError):
        raise UsageError(
            f"{folder} is no folder of launchers.", now="limpet wrap IMAGE DIR makes one."
        ) from None


def read_wrap(folder: Path, number: int) -> Wrap:
    """What was written down about a version."""
    path = folder / OWN / "versions" / str(number) / RECORD
    try:
        wrap = msgspec.json.decode(path.read_bytes(), type=Wrap)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(
            f"{path} cannot be read.", why=str(error), now="Make the launchers again: limpet wrap."
        ) from error
    if wrap.format > FORMAT:
        raise UsageError(f"{folder} was made by a newer limpet ({wrap.limpet}).")
    return wrap


@contextlib.contextmanager
def changed(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two updates at once follow each other."""
    (folder / OWN / "versions").mkdir(parents=True, exist_ok=True)
    with held(folder / OWN / "lock"):
        yield


def write_version(
    folder: Path,
    wrap: Wrap,
    script: str,
    extra: Mapping[str, bytes],
    fill: Callable[[Path], None] = lambda _: None,
) -> None:
    """One version, whole or not at all. Each launcher is a file of its own.

    A link to one of them is known by the file that it leads to. `fill` adds to the version.
    """
    versions = folder / OWN / "versions"
    for leftover in versions.glob(f".*{PARTIAL_MARK}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = versions / f".{wrap.number}{PARTIAL_MARK}{secrets.token_hex(4)}"
    try:
        (partial / "bin").mkdir(parents=True)
        for name in wrap.programs:
            _write(partial / "bin" / name, script.encode("utf-8", "surrogateescape"), 0o755)
        for name, data in extra.items():
            _write(partial / name, data, 0o644)
        fill(partial)
        _write(partial / RECORD, msgspec.json.format(msgspec.json.encode(wrap)), 0o644)
        partial.rename(versions / str(wrap.number))
    except LimpetError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise SpaceError(
            f"The launchers cannot be written to {folder}.",
            why=f"{error.strerror}.",
            now="Make room, or choose another folder.",
        ) from error


def _write(path: Path, data: bytes, mode: int) -> None:
    path.write_bytes(data)
    # Of the umask only who else may look is kept.
    path.chmod(mode & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def put_in_force(folder: Path, number: int) -> None:
    """Switch to a version: one rename."""
    own = folder / OWN
    _point(own / CURRENT, f"versions/{number}")
    entry = folder / "bin"
    if entry.is_dir() and not entry.is_symlink():
        old = folder / "bin.old"
        if old.exists():
            raise ExistsError(f"{old} is there already.", now="Move it, or choose another folder.")
        entry.rename(old)
    _point(entry, f"{OWN}/{CURRENT}/bin")
    _show_sources(folder)


def _show_sources(folder: Path) -> None:
    """`DIR/sources` is there while the version in force has some; only one version earlier keeps
    its own, since they are many files."""
    own = folder / OWN
    link = folder / SOURCES
    if (own / CURRENT / SOURCES).is_dir():
        if link.is_symlink() or not link.exists():
            _point(link, f"{OWN}/{CURRENT}/{SOURCES}")
    elif link.is_symlink():
        link.unlink()
    number = current_version(folder)
    earlier = [version for version in list_versions(folder) if version < number]
    for version in earlier[:-1]:
        shutil.rmtree(own / "versions" / str(version) / SOURCES, ignore_errors=True)


def _point(link: Path, target: str) -> None:
    if link.is_symlink() and str(link.readlink()) == target:
        return
    partial = link.with_name(f".{link.name}{PARTIAL_MARK}{secrets.token_hex(4)}")
    partial.symlink_to(target)
    partial.replace(link)


def read_version(folder: Path, number: int) -> dict[str, bytes]:
    """The files that its launchers are, and those beside them that they read, by relative path."""
    version = folder / OWN / "versions" / str(number)
    found = [*sorted((version / "bin").iterdir()), *sorted(version.glob("*.sh"))]
    found += sorted(version.glob("*.py"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def pack_launchers(files: Mapping[str, bytes], number: int) -> bytes:
    """A tar of launchers for another folder, for this user's eyes only; the same each time."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = 0o700 if Path(name).parent.name == "bin" else 0o600
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("bin")
        link.type, link.linkname = tarfile.SYMTYPE, f"{OWN}/versions/{number}/bin"
        tar.addfile(link)
    return packed.getvalue()


def images_folder(folder: Path) -> Path:
    """Where a folder of launchers keeps images of its own."""
    return folder / OWN / "images"


def keep_image(folder: Path, image: Path, identity: str) -> str:
    """A copy of the image (a hard link where that goes) in the folder; its relative path."""
    status = image.stat()
    place = images_folder(folder) / _image_name(status, identity)
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(image.resolve(), place)
        except OSError:
            with image.open("rb") as source, written_beside(place) as file:
                shutil.copyfileobj(source, file, 1 << 20)
            place.chmod(status.st_mode & 0o777)
    return str(place.relative_to(folder))


def settle_image(image: Path, identity: str) -> Path:
    """An image that was written into the folder takes the name that it has there for good."""
    place = image.with_name(_image_name(image.stat(), identity))
    return image.replace(place)


def _image_name(status: os.stat_result, identity: str) -> str:
    return f"{identity}-{status.st_size:x}-{status.st_mtime_ns:x}.sif"


def write_text(path: Path, text: str) -> None:
    """A modulefile or the like: written beside, then renamed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        path.chmod(0o644 & ~_umask())
    except OSError as error:
        raise SpaceError(f"{path} cannot be written.", why=f"{error.strerror}.") from error


def on_top_script() -> bytes:
    """What a launcher runs in place of `python -m venv`."""
    return (Path(__file__).parents[1] / "base_scripts" / "on_top.py").read_bytes()


def kernels_folder() -> Path:
    """Where Jupyter looks for this user's kernels."""
    named = os.environ.get("JUPYTER_DATA_DIR", "")
    data = os.environ.get("XDG_DATA_HOME", "")
    share = Path(data) if data.startswith("/") else Path.home() / ".local/share"
    return (Path(named).expanduser().absolute() if named else share / "jupyter") / "kernels"
