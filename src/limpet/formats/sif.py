"""Reads and writes SIF, the file format of Apptainer's and SingularityCE's images.

A header, a table of descriptors, then the objects they describe. Written with times of 0 and an id
that the caller gives, the same objects make the same bytes; `apptainer sif new` takes random ids
and the clock.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from struct import Struct
from typing import BinaryIO, Literal

import msgspec

from limpet.core.errors import ImageError

LAUNCH = b"#!/usr/bin/env run-singularity\n"
MAGIC = b"SIF_MAGIC\0"
VERSION = b"01\0"
# launch, magic, version, architecture, id, created, modified; descriptors free and in all, where
# they start, their bytes; where the data start, their bytes
HEADER = Struct("<32s10s3s3s16sqqqqqqqq")
# type, used, id, group, link, offset, size, size with padding, created, modified, uid, gid, name,
# then 384 bytes whose meaning depends on the type
DESCRIPTOR = Struct("<iBIIIqqqqqqq128s384s")
PARTITION = Struct("<ii3s")  # file system, kind of partition, architecture
INTEGER = Struct("<i")

DESCRIPTOR_COUNT = 48
DESCRIPTOR_LIMIT = 4096
DESCRIPTORS_AT = 4096
DATA_AT = DESCRIPTORS_AT + DESCRIPTOR_COUNT * DESCRIPTOR.size
ALIGNMENT = 4096
GROUP_BIT = 0xF0000000
GROUP = 1  # an overlay partition in another group than the root's is silently skipped at run time
CYCLONEDX_JSON = 1
OBJECT_READ_LIMIT = 256 << 20

ARCHITECTURES = {
    b"01\0": "386",
    b"02\0": "amd64",
    b"03\0": "arm",
    b"04\0": "arm64",
    b"05\0": "ppc64",
    b"06\0": "ppc64le",
    b"07\0": "mips",
    b"08\0": "mipsle",
    b"09\0": "mips64",
    b"10\0": "mips64le",
    b"11\0": "s390x",
    b"12\0": "riscv64",
    b"13\0": "loong64",
}
MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i686": "386",
    "armv7l": "arm",
    "loongarch64": "loong64",
}


class ObjectKind(IntEnum):
    """What an object of a SIF is."""

    DEFFILE = 0x4001
    ENVIRONMENT = 0x4002
    LABELS = 0x4003
    PARTITION = 0x4004
    SIGNATURE = 0x4005
    JSON = 0x4006
    RAW = 0x4007
    CRYPTO_MESSAGE = 0x4008
    SBOM = 0x4009
    OCI_INDEX = 0x400A
    OCI_BLOB = 0x400B


class FileSystem(IntEnum):
    """What a partition is formatted as."""

    NONE = 0
    SQUASHFS = 1
    EXT3 = 2
    ARCHIVE = 3
    RAW = 4
    ENCRYPTED_SQUASHFS = 5
    GOCRYPTFS = 6


class PartitionKind(IntEnum):
    """What a partition is for."""

    NONE = 0
    SYSTEM = 1
    ROOT = 2
    DATA = 3
    OVERLAY = 4


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    """One object. `fs`, `part` and `arch` are meant for partitions only."""

    id: int
    kind: ObjectKind
    group: int
    link: int
    offset: int
    size_bytes: int
    name: str
    fs: FileSystem = FileSystem.NONE
    part: PartitionKind = PartitionKind.NONE
    arch: str = ""


class Sif(msgspec.Struct, frozen=True, kw_only=True):
    """What the header and the descriptors of a SIF say."""

    launch: str
    arch: str
    id: uuid.UUID
    created: int
    descriptors: tuple[Descriptor, ...]

    def find_object(self, name: str) -> Descriptor | None:
        """The first object of that name."""
        return next((item for item in self.descriptors if item.name == name), None)


def read_sif(file: BinaryIO) -> Sif:
    """The header and all descriptors, each checked to lie within the file."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(HEADER.size)
    if len(head) < HEADER.size or head[32:42] != MAGIC:
        raise ImageError(
            "This file is no SIF image.",
            why="It does not have SIF's magic word.",
            now="Check the path; `limpet build` makes SIF images.",
        )
    launch, _, version, arch, ident, created, _, _, total, start, _, _, _ = HEADER.unpack(head)
    if version != VERSION:
        raise ImageError(f"The SIF image is of an unknown version, {version[:2]!r}.")
    if not 0 <= total <= DESCRIPTOR_LIMIT:
        raise _damaged(f"It says that it has {total} descriptors.")
    if start < HEADER.size or start + total * DESCRIPTOR.size > size:
        raise _damaged("Its table of objects lies beyond its end: it is cut off.")
    file.seek(start)
    table = file.read(total * DESCRIPTOR.size)
    if len(table) != total * DESCRIPTOR.size:
        raise _damaged("It is cut off.")
    return Sif(
        launch=_text(launch),
        arch=ARCHITECTURES.get(arch, "unknown"),
        id=uuid.UUID(bytes=ident),
        created=created,
        descriptors=tuple(
            _descriptor(fields, size) for fields in DESCRIPTOR.iter_unpack(table) if fields[1]
        ),
    )


def _damaged(why: str) -> ImageError:
    return ImageError(
        "The SIF image is damaged.",
        why=why,
        now="Fetch or build the file again; if it was copied, compare its size with the original.",
    )


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _descriptor(fields: tuple[object, ...], file_size: int) -> Descriptor:
    kind, _, number, group, link, offset, size, _, _, _, _, _, name, extra = fields
    assert isinstance(offset, int) and isinstance(size, int) and isinstance(group, int)
    assert isinstance(kind, int) and isinstance(number, int) and isinstance(link, int)
    assert isinstance(name, bytes) and isinstance(extra, bytes)
    if offset < HEADER.size or size < 0 or offset + size > file_size:
        raise _damaged(f"Its object {number} lies beyond its end: it is cut off.")
    fs = part = 0
    arch = b""
    try:
        if kind == ObjectKind.PARTITION:
            fs, part, arch = PARTITION.unpack_from(extra)
        return Descriptor(
            id=number,
            kind=ObjectKind(kind),
            group=group & ~GROUP_BIT,
            link=link,
            offset=offset,
            size_bytes=size,
            name=_text(name),
            fs=FileSystem(fs),
            part=PartitionKind(part),
            arch=ARCHITECTURES.get(arch, "unknown") if arch else "",
        )
    except ValueError as error:
        raise _damaged(f"Its object {number} is of no known kind: {error}.") from error


def root_partition(sif: Sif) -> Descriptor:
    """The partition that a container's root comes from."""
    for item in sif.descriptors:
        if item.part is PartitionKind.ROOT:
            return item
    raise ImageError(
        "The SIF image has no root partition.",
        why="It holds data or signatures only, so nothing can be run from it.",
        now="Choose an image that was built to be run.",
    )


def overlay_partitions(sif: Sif) -> tuple[Descriptor, ...]:
    """The partitions laid over the root, lowest first."""
    return tuple(item for item in sif.descriptors if item.part is PartitionKind.OVERLAY)


def find_object(sif: Sif, name: str) -> Descriptor | None:
    """The first object of that name."""
    return sif.find_object(name)


def read_object(file: BinaryIO, item: Descriptor) -> bytes:
    """An object's bytes as a whole; for all but partitions."""
    if item.size_bytes > OBJECT_READ_LIMIT:
        raise _damaged(f"Its object {item.name!r} is {item.size_bytes} bytes long.")
    file.seek(item.offset)
    data = file.read(item.size_bytes)
    if len(data) != item.size_bytes:
        raise _damaged(f"Its object {item.name!r} is cut off.")
    return data


def architecture_of(machine: str) -> str:
    """SIF's word for what `uname -m` says."""
    return MACHINES.get(machine, machine)


class SifWriter:
    """Writes a SIF into an empty file, object by object; nothing is valid before `finish`.

    `ident` may be set until then.
    """

    def __init__(self, file: BinaryIO, *, arch: str, ident: bytes, launch: bytes = LAUNCH) -> None:
        codes = {name: code for code, name in ARCHITECTURES.items()}
        if arch not in codes:
            raise ImageError(f"SIF has no word for the architecture {arch!r}.")
        if len(ident) != 16 or len(launch) >= 32:
            raise ValueError("an id has 16 bytes, a launch line at most 31")
        self._file = file
        self._arch = codes[arch]
        self.ident = ident
        self._launch = launch
        self._descriptors: list[bytes] = []
        self._end = DATA_AT
        file.seek(0)
        file.write(bytes(DATA_AT))

    @contextmanager
    def partition(self, kind: Literal["root", "overlay"], name: str = "") -> Iterator[BinaryIO]:
        """The file itself, standing where the partition starts; it ends where it stands then."""
        part = PartitionKind.ROOT if kind == "root" else PartitionKind.OVERLAY
        start = self._begin(ALIGNMENT)
        yield self._file
        extra = PARTITION.pack(FileSystem.SQUASHFS, part, self._arch)
        self._add(ObjectKind.PARTITION, name, start, extra)

    def add_object(
        self, name: str, data: bytes, kind: Literal["json", "raw", "sbom", "deffile"]
    ) -> None:
        """Adds a data object; an SBOM is one of CycloneDX in JSON."""
        start = self._begin(1)
        self._file.write(data)
        extra = INTEGER.pack(CYCLONEDX_JSON) if kind == "sbom" else b""
        self._add(ObjectKind[kind.upper()], name, start, extra)

    def finish(self) -> None:
        """Writes descriptors and header."""
        unused = DESCRIPTOR_COUNT - len(self._descriptors)
        self._file.seek(DESCRIPTORS_AT)
        self._file.write(b"".join(self._descriptors) + bytes(unused * DESCRIPTOR.size))
        self._file.seek(0)
        self._file.write(
            HEADER.pack(
                *(self._launch, MAGIC, VERSION, self._arch, self.ident, 0, 0),
                *(unused, DESCRIPTOR_COUNT, DESCRIPTORS_AT, DESCRIPTOR_COUNT * DESCRIPTOR.size),
                *(DATA_AT, self._end - DATA_AT),
            )
        )
        self._file.seek(self._end)

    def _begin(self, alignment: int) -> int:
        if len(self._descriptors) == DESCRIPTOR_COUNT:
            raise ImageError(f"An image has room for {DESCRIPTOR_COUNT} objects only.")
        padding = -self._end % alignment
        self._file.seek(self._end)
        self._file.write(bytes(padding))
        return self._end + padding

    def _add(self, kind: ObjectKind, name: str, start: int, extra: bytes) -> None:
        encoded = name.encode("utf-8", "surrogateescape")
        if len(encoded) > 127:
            raise ImageError(f"The object name {name!r} is too long for a SIF: 127 bytes.")
        end = self._file.tell()
        number = len(self._descriptors) + 1
        self._descriptors.append(
            DESCRIPTOR.pack(
                *(kind, 1, number, GROUP | GROUP_BIT, 0, start, end - start, end - self._end),
                *(0, 0, 0, 0, encoded, extra),
            )
        )
        self._end = end
