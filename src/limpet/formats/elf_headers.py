"""What an ELF file asks of the system that it is to run on.

Read from the program headers alone, as the loader does: a folder of software has thousands of
libraries, and all of them are looked at. Format: the gABI, and the LSB for symbol versions.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import msgspec

from limpet.core.gpu import numbers

_HEADER = struct.Struct("<4sBBB9xHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<qQ")
_NEED, _NEED_NAME = struct.Struct("<HHIII"), struct.Struct("<IHHII")
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRINGS, _STRINGS_SIZE, _RPATH, _RUNPATH = 1, 5, 10, 15, 29
_VERSIONS, _VERSION_COUNT = 0x6FFFFFFE, 0x6FFFFFFF
_MACHINES = {62: "x86_64", 183: "aarch64", 3: "i686", 40: "armv7l", 21: "ppc64le", 243: "riscv64"}
_LARGEST_BYTES = 64 << 20  # of any one table; a damaged file may claim anything


class Elf(msgspec.Struct, frozen=True, kw_only=True):
    """`glibc` is the newest version of it that is asked for; empty where none is."""

    machine: str
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    glibc: str = ""


def read_elf(file: BinaryIO) -> Elf | None:
    """What is asked for; None for what is no ELF file for a 64-bit little-endian machine."""
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or head[:6] != b"\x7fELF\2\1":
        return None
    fields = _HEADER.unpack(head)
    machine = _MACHINES.get(fields[5], f"machine {fields[5]}")
    table_at, size, count = fields[8], fields[12], fields[13]
    try:
        return _read(file, machine, _read_at(file, table_at, size * count), size)
    except (struct.error, ValueError, OverflowError, UnicodeDecodeError):
        return Elf(machine=machine)  # stripped or damaged: nothing is known of it


def _read(file: BinaryIO, machine: str, table: bytes, size: int) -> Elf:
    segments = [_PROGRAM.unpack_from(table, at) for at in range(0, len(table), size)]
    interpreter = ""
    dynamic: list[tuple[int, int]] = []
    for kind, _, offset, _, _, length, _, _ in segments:
        if kind == _INTERPRETER:
            interpreter = _read_at(file, offset, length).rstrip(b"\0").decode()
        elif kind == _DYNAMIC:
            data = _read_at(file, offset, length)
            dynamic = list(_ENTRY.iter_unpack(data[: len(data) // _ENTRY.size * _ENTRY.size]))
    values = dict(reversed(dynamic))
    if _STRINGS not in values:
        return Elf(machine=machine, interpreter=interpreter)

    def place(address: int) -> int:
        for kind, _, offset, start, _, length, _, _ in segments:
            if kind == _LOAD and start <= address < start + length:
                return int(offset + address - start)
        raise ValueError(address)

    strings = _read_at(file, place(values[_STRINGS]), values.get(_STRINGS_SIZE, 0))
    search = [_text(strings, at) for tag, at in dynamic if tag in (_RPATH, _RUNPATH)]
    versions: list[str] = []
    if values.get(_VERSION_COUNT) and _VERSIONS in values:
        versions = _versions(file, place(values[_VERSIONS]), values[_VERSION_COUNT], strings)
    asked = [v.removeprefix("GLIBC_") for v in versions if v.startswith("GLIBC_2")]
    return Elf(
        machine=machine,
        interpreter=interpreter,
        needed=tuple(_text(strings, at) for tag, at in dynamic if tag == _NEEDED),
        search=tuple(part for text in search for part in text.split(":") if part),
        glibc=max(asked, key=numbers, default=""),
    )


def _versions(file: BinaryIO, start: int, count: int, strings: bytes) -> list[str]:
    found = []
    for _ in range(min(count, 1000)):
        _, names, _, first, following = _NEED.unpack(_read_at(file, start, _NEED.size))
        at = start + first
        for _ in range(names):
            _, _, _, name, step = _NEED_NAME.unpack(_read_at(file, at, _NEED_NAME.size))
            found.append(_text(strings, name))
            at += step
        start += following
    return found


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    if size > _LARGEST_BYTES:
        raise ValueError(size)
    file.seek(offset)
    return file.read(size)


def _text(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode("utf-8", "surrogateescape")
