"""Conda packages, `.conda` and `.tar.bz2`, streamed into entries of an image. Nothing is unpacked.

py-rattler installs into folders only; its `PackageArchive` can stream, but does not tell a file's
mode (0.28), and reads each file whole. So the archives, which are tar files, are read here; what
each file becomes is in `core.conda_install`.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from limpet.core.conda import CondaPackage
from limpet.core.conda_install import (
    PathEntry,
    check_path,
    is_replaced,
    parse_old_paths,
    parse_paths,
    place_link,
    place_path,
    with_prefix,
)
from limpet.core.conda_record import record_name, render_record
from limpet.core.errors import BuildError
from limpet.core.piece import Layout
from limpet.formats.squashfs import Entry
from limpet.formats.zstd import ZstdError, ZstdFile

_INFO = ("index.json", "paths.json", "link.json", "files", "has_prefix")
_INFO_LIMIT_BYTES = 256 << 20
_NEEDED_EARLY = {"info/index.json", "info/paths.json"}


@contextmanager
def open_package(path: Path, package: CondaPackage, layout: Layout) -> Iterator[Iterator[Entry]]:
    """A package's entries at their final place; each is to be read before the next is asked for.

    Raises BuildError for a package that is damaged, hostile, or not the one that was locked, here
    or while the entries are read.
    """
    try:
        yield _entries(path, package, layout)
    except _UNREADABLE as error:
        raise _invalid(package, str(error) or type(error).__name__) from error
    except OSError as error:
        if error.errno is not None:  # bz2 has no other name for damaged data
            raise
        raise _invalid(package, str(error)) from error


_UNREADABLE = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, ZstdError),
    *(ValueError, KeyError, TypeError, AttributeError),
)


def _invalid(package: CondaPackage, why: str) -> BuildError:
    return BuildError(
        f"{package.filename} is no valid conda package.",
        why=why,
        now="Its hash is the one in the lock, so it was published like this: choose another "
        "build, and tell its channel.",
    )


def _entries(path: Path, package: CondaPackage, layout: Layout) -> Iterator[Entry]:
    info = _read_info(path)
    index = json.loads(info["info/index.json"])
    _check_identity(package, index)
    installed = _Installed(package, layout, _paths(info))
    with ExitStack() as stack:
        tar = stack.enter_context(_open_section(path, "pkg", stack))
        for member in tar:
            name = member.name.removeprefix("./")
            if name in ("", ".") or name.startswith("info/"):
                continue
            check_path(name)
            if name not in installed.paths:
                continue
            if is_replaced(name, installed.paths):
                installed.note_replaced(name)
            else:
                yield installed.add(member, name, partial(_open_member, tar, member))
    if absent := installed.paths.keys() - installed.seen:
        raise ValueError(f"It does not hold {min(absent)!r}, which its list of files names.")
    if package.noarch == "python":
        link = json.loads(info.get("info/link.json", b"{}"))
        for line in link.get("noarch", {}).get("entry_points") or ():
            yield installed.add_entry_point(line)
    record = render_record(package, index, installed.rows)
    yield Entry(f"{layout.prefix[1:]}/conda-meta/{record_name(package)}", "file", content=record)


def _paths(info: dict[str, bytes]) -> dict[str, PathEntry]:
    if text := info.get("info/paths.json"):
        return parse_paths(text)
    old = (info[f"info/{name}"].decode() if f"info/{name}" in info else "" for name in _INFO[3:])
    return parse_old_paths(*old)


def _check_identity(package: CondaPackage, index: dict[str, Any]) -> None:
    for what in ("name", "version", "build"):
        found, wanted = index[what], getattr(package, what)
        if found != wanted:
            raise ValueError(f"It holds {what} {found}, but the lock says {wanted}.")
    if index.get("subdir") and index["subdir"] != package.subdir:
        raise ValueError(f"It is for {index['subdir']}, but the lock says {package.subdir}.")


# ---- archives ------------------------------------------------------------------------------------


def _read_info(path: Path) -> dict[str, bytes]:
    """What the package says of itself."""
    wanted = {f"info/{name}" for name in _INFO}
    found: dict[str, bytes] = {}
    with ExitStack() as stack:
        tar = stack.enter_context(_open_section(path, "info", stack))
        for member in tar:
            name = member.name.removeprefix("./")
            # Tools put info/ first into the older format; then there is no need to read on.
            if not name.startswith("info/") and found.keys() >= _NEEDED_EARLY:
                break
            if name in wanted and member.isfile():
                if member.size > _INFO_LIMIT_BYTES:
                    raise ValueError(f"Its {name} is of {member.size} bytes.")
                with _open_member(tar, member) as stream:
                    found[name] = stream.read()
    return found


def _open_section(path: Path, section: str, stack: ExitStack) -> tarfile.TarFile:
    """One of a `.conda` file's two archives; an older package is one archive with both."""
    if path.name.endswith(".tar.bz2"):
        return tarfile.open(path, mode="r|bz2")
    archive = stack.enter_context(zipfile.ZipFile(path))
    name = next(
        (
            name
            for name in archive.namelist()
            if name.startswith(f"{section}-") and name.endswith(".tar.zst")
        ),
        "",
    )
    if not name:
        raise ValueError(f"It has no {section}-….tar.zst.")
    packed = stack.enter_context(archive.open(name))
    plain = stack.enter_context(ZstdFile(cast(Any, packed)))
    return tarfile.open(fileobj=cast(IO[bytes], plain), mode="r|")


def _open_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    stream = tar.extractfile(member)
    assert stream is not None
    return cast(BinaryIO, stream)


# ---- what becomes of each member -----------------------------------------------------------------


@dataclass
class _Installed:
    """A package's files as they are installed, and what conda-meta will say of them."""

    package: CondaPackage
    layout: Layout
    paths: dict[str, PathEntry]
    rows: list[dict[str, Any]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for path in self.paths:
            check_path(path)

    def add(self, member: tarfile.TarInfo, name: str, opened: Callable[[], BinaryIO]) -> Entry:
        self.seen.add(name)
        listed = self.paths[name]
        place = place_path(name, self.package, self.layout)
        if member.issym():
            target = place_link(place, member.linkname, listed.placeholder, self.layout.prefix)
            return self._add(Entry(self._full(place), "symlink", 0o777, target=target), "softlink")
        if member.isdir():
            return self._add(Entry(self._full(place), "dir", 0o755), "directory")
        if member.islnk():
            return self._add_hard_link(member, place)
        if not member.isfile():
            raise ValueError(f"The member {name!r} is neither a file, nor a folder, nor a link.")
        mode = 0o755 if member.mode & 0o111 else 0o644
        if not listed.placeholder:
            row = {"sha256": listed.sha256, "sha256_in_prefix": listed.sha256}
            entry = Entry(self._full(place), "file", mode, content=opened)
            return self._add(entry, "hardlink", size_in_bytes=member.size, **row)
        with opened() as stream:
            archive = self.package.filename
            data = with_prefix(stream.read(), listed, self.layout.prefix, archive=archive)
        row = {"sha256": listed.sha256, "sha256_in_prefix": hashlib.sha256(data).hexdigest()}
        entry = Entry(self._full(place), "file", mode, content=data)
        return self._add(entry, "hardlink", size_in_bytes=len(data), **row)

    def add_entry_point(self, line: str) -> Entry:
        """A command of a noarch Python package, which the installer writes."""
        from installer.scripts import Script

        name, _, reference = (word.strip() for word in line.partition("="))
        module, _, attribute = reference.partition(":")
        if "/" in name or name in ("", ".", "..") or not module or not attribute:
            raise ValueError(f"The entry point {line!r} cannot be read.")
        script = Script(name, module, attribute, "console")
        _, data = script.generate(self.layout.python, "posix")
        digest = hashlib.sha256(data).hexdigest()
        entry = Entry(self._full(f"bin/{name}"), "file", 0o755, content=data)
        row = {"sha256_in_prefix": digest, "size_in_bytes": len(data)}
        return self._add(entry, "unix_python_entry_point", **row)

    def note_replaced(self, name: str) -> None:
        """Byte code of the package's own that limpet makes itself."""
        self.seen.add(name)
        place = place_path(name, self.package, self.layout)
        self.rows.append({"_path": place, "path_type": "pyc_file"})

    def _add_hard_link(self, member: tarfile.TarInfo, place: str) -> Entry:
        first = posixpath.normpath(member.linkname)
        if first not in self.seen:
            raise ValueError(f"The link {member.name!r} leads to {member.linkname!r}.")
        target = self._full(place_path(first, self.package, self.layout))
        return self._add(Entry(self._full(place), "file", hardlink=target), "hardlink")

    def _full(self, place: str) -> str:
        return f"{self.layout.prefix[1:]}/{place}"

    def _add(self, entry: Entry, path_type: str, **told: Any) -> Entry:
        place = entry.path.removeprefix(f"{self.layout.prefix[1:]}/")
        known = {name: value for name, value in told.items() if value not in ("", None)}
        self.rows.append({"_path": place, "path_type": path_type, **known})
        return entry
