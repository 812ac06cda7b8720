"""The state folder on the disk: one folder for each image, with a record of which image it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from limpet.core.errors import HostError, SpaceError
from limpet.core.state import RECORD, Kept, PersonalPackage, Record, Whereabouts
from limpet.tools.files import written_beside

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_REMOVED = ".removed-"
_TOUCH_S = 5  # less than a build takes: which image was started last is known by it


def read_record(folder: Path) -> Record | None:
    """What the folder says of its image; None where it says nothing."""
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Write it down, whole or not at all."""
    try:
        with written_beside(folder / RECORD) as file:
            file.write(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    except SpaceError as error:
        now = "Make room, or set LIMPET_STATE_DIR to a folder elsewhere."
        raise SpaceError(error.what, why=error.why, now=now) from error


def touch_record(folder: Path) -> None:
    """Note that the image was used; not at each of many starts, for it is a write to the home."""
    with contextlib.suppress(OSError):
        if time.time() - (folder / RECORD).stat().st_mtime > _TOUCH_S:
            os.utime(folder / RECORD)


def find_folders(state: Path) -> list[Path]:
    """The images' folders."""
    with contextlib.suppress(OSError):
        return sorted(
            Path(entry.path)
            for entry in os.scandir(state)
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )
    return []


def find_previous(state: Path, path: str, identity: str) -> Path | None:
    """The folder of the image that was last started from `path`, where that was another one."""
    found = []
    for folder in find_folders(state):
        record = read_record(folder)
        if record and path in record.paths and folder.name != identity:
            found.append(((folder / RECORD).stat().st_mtime, folder))
    return max(found)[1] if found else None


def site_folders(folder: Path) -> list[Path]:
    """Where an image's personal packages are: of limpet's own images, and of foreign ones."""
    places = ("packages", "home/.local")
    return [site for place in places for site in (folder / place).glob("lib/python*/site-packages")]


def read_packages(folder: Path, *, python: str = "") -> tuple[PersonalPackage, ...]:
    """The personal packages in an image's folder; `python` (`3.13`): only those for it."""
    found = {}
    for distribution in _distributions(folder, python):
        package = _described(distribution)
        found[package.name] = package
    return tuple(found[name] for name in sorted(found))


def read_packages_by_python(folder: Path) -> dict[str, tuple[PersonalPackage, ...]]:
    """The personal packages in an image's folder, for each Python (`3.13`)."""
    pythons = {_python_of(site) for site in site_folders(folder)}
    return {python: read_packages(folder, python=python) for python in sorted(pythons)}


def _python_of(site: Path) -> str:
    return site.parent.name.removeprefix("python")


def _distributions(folder: Path, python: str = "") -> Iterator[Distribution]:
    from importlib.metadata import distributions

    for site in site_folders(folder):
        if python and _python_of(site) != python:
            continue
        for one in distributions(path=[str(site)]):
            if one.metadata and one.metadata["Name"] and one.version:
                yield one


def _described(distribution: Distribution) -> PersonalPackage:
    from packaging.utils import canonicalize_name

    wheel = distribution.read_text("WHEEL") or ""
    direct = distribution.read_text("direct_url.json")
    return PersonalPackage(
        name=canonicalize_name(distribution.metadata["Name"]),
        version=distribution.version,
        asked=distribution.read_text("REQUESTED") is not None,
        origin=msgspec.json.decode(direct)["url"] if direct else "",
        requires=tuple(distribution.requires or ()),
        tags=tuple(
            line.partition(":")[2].strip() for line in wheel.splitlines() if line.startswith("Tag:")
        ),
    )


def carry_packages(
    source: Path, target: Path, names: frozenset[str], *, python: str = "", executable: str = ""
) -> None:
    """Give `target` the named packages of `source`: links to the same bytes where that can be.

    `python` as in `read_packages`; scripts that another interpreter starts get `executable`.
    """
    from packaging.utils import canonicalize_name

    for distribution in _distributions(source, python):
        if canonicalize_name(distribution.metadata["Name"]) not in names:
            continue
        for file in distribution.files or ():
            place = Path(os.path.normpath(str(distribution.locate_file(file))))
            if place.is_relative_to(source) and place.is_file():
                goal = target / place.relative_to(source)
                if not (
                    executable and place.parent.name == "bin" and _adapt(place, goal, executable)
                ):
                    _link(place, goal)


def _adapt(source: Path, target: Path, executable: str) -> bool:
    """A copy of a Python script for another interpreter; False where that is not needed."""
    data = source.read_bytes()
    first, _, rest = data.partition(b"\n")
    line = b"#!" + os.fsencode(executable)
    if not first.startswith(b"#!") or b"python" not in first or first == line:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.write_bytes(line + b"\n" + rest)
        target.chmod(source.stat().st_mode)
    return True


def _link(source: Path, target: Path) -> None:
    import shutil

    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def measure(folder: Path) -> tuple[int, int]:
    """Bytes and files below a folder; what cannot be read is not counted."""
    size_bytes = files = 0
    for above, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size_bytes += Path(above, name).lstat().st_size
                files += 1
    return size_bytes, files


def describe(folder: Path, whereabouts: Whereabouts) -> Kept:
    """All there is to say of an image's folder."""
    size_bytes, files = measure(folder)
    marker = folder / RECORD
    return Kept(
        identity=folder.name,
        folder=str(folder),
        record=read_record(folder) or Record(title=""),
        whereabouts=whereabouts,
        size_bytes=size_bytes,
        files=files,
        used_s=(marker if marker.exists() else folder).stat().st_mtime,
        packages=read_packages(folder),
    )


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep pip out of an image's packages for a while; HostError where one is at work."""
    with contextlib.ExitStack() as stack:
        for packages in (folder / "packages", folder / "home/.local"):
            if not packages.is_dir():
                continue
            file = stack.enter_context((packages / ".limpet-lock").open("ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HostError(
                    f"A pip changes the packages in {folder} just now.", now="Wait for it to end."
                ) from None
            except OSError:
                pass  # a file system without locks
        yield


def remove(folder: Path) -> None:
    """Remove an image's folder: out of sight at once, then file by file."""
    doomed = folder.with_name(f"{_REMOVED}{folder.name}-{os.urandom(4).hex()}")
    with held(folder):
        folder.rename(doomed)
    _remove_tree(doomed)


def sweep_removed(state: Path) -> None:
    """Finish what a killed `clean` began."""
    for doomed in state.glob(f"{_REMOVED}*"):
        _remove_tree(doomed)


def _remove_tree(doomed: Path) -> None:
    import shutil

    for above, names, _ in os.walk(doomed):
        for path in (Path(above), *(Path(above, name) for name in names)):
            with contextlib.suppress(OSError):
                if not path.is_symlink():
                    path.chmod(stat.S_IRWXU)  # some programs keep read-only folders
    shutil.rmtree(doomed, ignore_errors=True)


def now_s() -> float:
    """The time, as files carry it."""
    return time.time()
