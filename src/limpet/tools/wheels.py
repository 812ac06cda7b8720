"""Wheels: what they hold, laid out as entries of an image. Nothing is unpacked.

`pypa/installer` knows the format; it is handed a source and a destination that pass promises of
content on instead of bytes. A member is inflated, and checked against RECORD, when its turn comes
to be written.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import posixpath
import struct
import zipfile
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import installer
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import InvalidRecordEntry, RecordEntry, parse_record_file
from installer.scripts import Script
from installer.sources import WheelContentElement, WheelFile
from installer.utils import Scheme
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from limpet.core.errors import BuildError
from limpet.core.piece import Layout
from limpet.formats.squashfs import Entry

if TYPE_CHECKING:
    from installer.scripts import ScriptSection

LOCAL_HEADER = struct.Struct("<26xHH")
READ_BYTES = 256 << 10
HASHES = ("sha256", "sha384", "sha512")
OURS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


@dataclass(frozen=True, slots=True)
class Module:
    """A .py member: its path in site-packages and where the zip has its bytes."""

    path: str
    offset: int
    packed_bytes: int
    size_bytes: int
    method: int


@dataclass(slots=True)
class LaidOut:
    """A wheel laid out: `entries` and `modules`, and what RECORD will say of them."""

    name: str
    version: str
    layout: Layout
    record_path: str
    entries: list[Entry]
    modules: list[Module]
    rows: list[tuple[str, str, str]] = field(repr=False)

    def place(self, site_path: str) -> str:
        """The path in the image of something in site-packages."""
        return f"{self.layout.site_folder[1:]}/{site_path}"

    def record(self, byte_code: Iterable[str]) -> Entry:
        """RECORD, complete: byte code without a hash, as pip writes it."""
        rows = [*self.rows, *((path, "", "") for path in byte_code), (self.record_path, "", "")]
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(sorted(rows))
        return Entry(self.place(self.record_path), "file", content=text.getvalue().encode())


@contextmanager
def lay_out(
    path: Path,
    layout: Layout,
    *,
    name: str = "",
    version: str = "",
    metadata: Mapping[str, bytes] | None = None,
) -> Iterator[LaidOut]:
    """Lay a wheel out; its entries can be read as long as the context is open.

    `name` and `version` are what the wheel must be. `metadata` are further files for its dist-info.
    Raises BuildError for a wheel that is damaged or hostile, here or when an entry is read.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(path) as archive:
                source = _Source(archive, file.fileno())
                _check_identity(source, name, version)
                destination = _Destination(layout, source.identity[0])
                extra = {"INSTALLER": b"limpet\n", **(metadata or {})}
                installer.install(source, destination, extra)
        except _UNREADABLE as error:
            raise _invalid(path.name, str(error) or repr(error)) from error
        yield LaidOut(
            name=source.identity[0],
            version=source.identity[1],
            layout=layout,
            record_path=f"{source.dist_info_dir}/RECORD",
            entries=list(destination.entries.values()),
            modules=sorted(destination.modules.values(), key=_place_of_byte_code),
            rows=list(destination.rows.values()),
        )


def _place_of_byte_code(module: Module) -> tuple[bool, str]:
    """Tests last: what is imported shares its blocks with what is imported too."""
    folders = module.path.split("/")[:-1]
    return "tests" in folders or "test" in folders, module.path


# AssertionError and the Key-, Unicode- and ValueErrors are what installer has for bad wheels.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    InstallerError,
    InvalidRecordEntry,
    AssertionError,
    KeyError,
    UnicodeError,
    ValueError,
    NotImplementedError,
)


def _invalid(filename: str, why: str) -> BuildError:
    return BuildError(
        f"{filename} is no valid wheel.",
        why=why,
        now="Its hash is the one in the lock, so it was published like this: choose another "
        "version, and tell its authors.",
    )


def _check_identity(source: _Source, name: str, version: str) -> None:
    found_name, found_version = source.identity
    if name and canonicalize_name(found_name) != canonicalize_name(name):
        raise ValueError(f"It holds {found_name}, but the lock says {name}.")
    try:
        same = not version or Version(found_version) == Version(version)
    except InvalidVersion:
        same = found_version == version
    if not same:
        raise ValueError(f"It holds version {found_version}, but the lock says {version}.")


class _Source(WheelFile):
    """A wheel whose members are promises: `get_contents` gives streams that nobody has opened."""

    def __init__(self, archive: zipfile.ZipFile, descriptor: int) -> None:
        super().__init__(archive)
        self._archive = archive
        self._descriptor = descriptor

    @cached_property
    def identity(self) -> tuple[str, str]:
        """Name and version, as the dist-info folder has them."""
        name, _, version = self.dist_info_dir.removesuffix(".dist-info").rpartition("-")
        return name, version

    @property
    def data_dir(self) -> str:
        # installer takes the file's name, which may be written in another case than the folders.
        return self.dist_info_dir.removesuffix(".dist-info") + ".data"

    def get_contents(self) -> Iterator[WheelContentElement]:
        text = self.read_dist_info("RECORD")
        recorded = {row[0]: row for row in parse_record_file(text.splitlines())}
        filename = Path(self._archive.filename or "").name
        ours = {f"{self.dist_info_dir}/{name}" for name in OURS}
        for info in self._archive.infolist():
            name = info.filename
            if name.endswith("/") or name in ours or "/__pycache__/" in f"/{name}":
                continue
            _check_member(info)
            member = Member(filename, self._descriptor, info, recorded.get(name, ("", "", ""))[1])
            executable = bool(info.external_attr >> 16 & 0o111)
            # installer only hands the stream on to the destination, which knows what it is.
            yield (name, "", ""), cast("BinaryIO", member), executable


def _check_member(info: zipfile.ZipInfo) -> None:
    parts = info.filename.split("/")
    if ".." in parts or "" in parts or "." in parts or "\\" in info.filename:
        raise ValueError(f"The member {info.filename!r} points outside of the wheel.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise ValueError(f"The member {info.filename!r} is neither stored nor deflated.")


class Member:
    """A file in a wheel, and the hash that RECORD has for it."""

    def __init__(self, wheel: str, descriptor: int, info: zipfile.ZipInfo, recorded: str) -> None:
        self.wheel = wheel
        self.descriptor = descriptor
        self.info = info
        self.recorded = recorded or self._computed()

    def open(self) -> BinaryIO:
        return cast("BinaryIO", _MemberStream(self))

    def _computed(self) -> str:
        """The hash of a member that RECORD forgot; the whole file's hash vouches for it."""
        self.recorded = ""
        digest = hashlib.sha256()
        with self.open() as stream:
            while block := stream.read(READ_BYTES):
                digest.update(block)
        return f"sha256={_encoded(digest.digest())}"


def _encoded(digest: bytes) -> str:
    return urlsafe_b64encode(digest).decode().rstrip("=")


class _MemberStream(io.RawIOBase):
    """Inflates a member piece by piece; at its end, compares it with RECORD."""

    def __init__(self, member: Member) -> None:
        self._member = member
        info = member.info
        header = os.pread(member.descriptor, LOCAL_HEADER.size, info.header_offset)
        self._at = info.header_offset + LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(header))
        self._end = self._at + info.compress_size
        self._inflater = zlib.decompressobj(-15) if info.compress_type else None
        self._left = info.file_size
        algorithm, _, self._expected = member.recorded.partition("=")
        if algorithm and algorithm not in HASHES:
            raise self._damaged(f"has a {algorithm} in RECORD, which proves nothing")
        self._digest = hashlib.new(algorithm) if algorithm else None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        blocks = bytearray()
        while len(blocks) < wanted:
            block = self._next(wanted - len(blocks))
            if not block:
                raise self._damaged("is cut short")
            blocks += block
        self._left -= wanted
        data = bytes(blocks)
        if self._digest:
            self._digest.update(data)
            if not self._left:
                self._check(self._digest.digest())
        return data

    def _next(self, size: int) -> bytes:
        if self._inflater is None:
            return self._packed(size)
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._packed(READ_BYTES)
            try:
                block = self._inflater.decompress(packed, size)
            except zlib.error as error:
                raise self._damaged(f"is damaged: {error}") from error
            if block or not packed:
                return block
        return b""

    def _packed(self, size: int) -> bytes:
        data = os.pread(self._member.descriptor, min(size, self._end - self._at), self._at)
        self._at += len(data)
        return data

    def _check(self, digest: bytes) -> None:
        if _encoded(digest) != self._expected.rstrip("="):
            raise self._damaged("has another hash than RECORD says")

    def _damaged(self, how: str) -> BuildError:
        return _invalid(self._member.wheel, f"The member {self._member.info.filename!r} {how}.")


class _Destination(WheelDestination):
    """Collects entries below the prefix instead of writing files."""

    def __init__(self, layout: Layout, name: str) -> None:
        self._layout = layout
        self._name = name
        self.entries: dict[str, Entry] = {}
        self.modules: dict[str, Module] = {}
        self.rows: dict[str, tuple[str, str, str]] = {}

    def write_script(
        self, name: str, module: str, attr: str, section: ScriptSection
    ) -> RecordEntry:
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"The script {name!r} points outside of the environment.")
        _, data = Script(name, module, attr, section).generate(self._layout.python, "posix")
        return self._add_bytes(f"bin/{name}", data, 0o755)

    def write_file(
        self,
        scheme: Scheme,
        path: str | os.PathLike[str],
        stream: BinaryIO,
        is_executable: bool,
    ) -> RecordEntry:
        relative = os.fspath(path)
        place = self._place(scheme, relative)
        mode = 0o755 if is_executable or scheme == "scripts" else 0o644
        if not isinstance(stream, Member):
            return self._add_bytes(place, stream.read(), mode)
        if scheme == "scripts":
            with stream.open() as script:
                if script.read(8) == b"#!python":
                    return self._add_bytes(place, self._with_shebang(stream), mode)
        if scheme in ("purelib", "platlib") and place.endswith(".py"):
            info = stream.info
            self.modules[place] = Module(
                relative,
                info.header_offset,
                info.compress_size,
                info.file_size,
                info.compress_type,
            )
        return self._add(place, stream.open, mode, stream.recorded, stream.info.file_size)

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        """RECORD is written when it is known which modules could be compiled."""

    def _place(self, scheme: str, path: str) -> str:
        if scheme in ("purelib", "platlib"):
            return f"{self._layout.site_packages}/{path}"
        if scheme == "scripts":
            return f"bin/{path}"
        if scheme == "headers":
            return f"{self._layout.headers}/{self._name}/{path}"
        # lib64 is a symlink to lib in a venv.
        return f"lib/{path[6:]}" if path.startswith("lib64/") else path

    def _with_shebang(self, member: Member) -> bytes:
        with member.open() as stream:
            rest = stream.read().partition(b"\n")[2]
        return f"#!{self._layout.python}\n".encode() + rest

    def _add_bytes(self, place: str, data: bytes, mode: int) -> RecordEntry:
        recorded = f"sha256={_encoded(hashlib.sha256(data).digest())}"
        return self._add(place, data, mode, recorded, len(data))

    def _add(self, place: str, content: object, mode: int, recorded: str, size: int) -> RecordEntry:
        path = f"{self._layout.prefix[1:]}/{place}"
        self.entries[path] = Entry(path, "file", mode=mode, content=content)  # type: ignore[arg-type]
        inside = place.removeprefix(self._layout.site_packages + "/")
        if inside == place:
            inside = posixpath.relpath(place, self._layout.site_packages)
        self.rows[inside] = (inside, recorded, str(size))
        return RecordEntry(inside, None, size)
