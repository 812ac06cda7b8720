"""ELF files, read from open files as the loader reads them: by program headers alone.

Sections, which a stripped file may lack, are not looked at, and neither are symbols
(`elf_symbols`): folders of software have thousands of libraries, and each takes a few reads here.
Formats: the gABI, and the LSB for symbol versions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, NamedTuple

from limpet.core.elf import Elf, newest

MAGIC = b"\x7fELF"
_MACHINES = {62: "x86_64", 183: "aarch64", 3: "i686", 40: "armv7l", 21: "ppc64le", 243: "riscv64"}
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRINGS, _STRINGS_SIZE, _SONAME, _RPATH, _RUNPATH = 1, 5, 10, 14, 15, 29
_NAMES = (_NEEDED, _SONAME, _RPATH, _RUNPATH)
_GIVEN, _GIVEN_COUNT, _ASKED, _ASKED_COUNT = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
_GIVES, _GIVES_NAME = struct.Struct("<HHHHIII"), struct.Struct("<II")
_ASKS, _ASKS_NAME = struct.Struct("<HHIII"), struct.Struct("<IHHII")
_MOST_BYTES = 64 << 20  # of any one table; a damaged file may claim anything
_MOST_ENTRIES = 10_000
_LONGEST_TEXT_BYTES = 16 << 10


class _Layout(NamedTuple):
    """Of 64-bit or 32-bit files. `segment` are the places of offset, address and size in one."""

    header: struct.Struct
    program: struct.Struct
    segment: tuple[int, int, int]
    entry: struct.Struct


def _layout(header: str, program: str, segment: tuple[int, int, int], entry: str) -> _Layout:
    return _Layout(struct.Struct(header), struct.Struct(program), segment, struct.Struct(entry))


_LAYOUTS = {
    1: _layout("<16xHHIIIIIHHHHHH", "<IIIIIIII", (1, 2, 4), "<iI"),
    2: _layout("<16xHHIQQQIHHHHHH", "<IIQQQQQQ", (2, 3, 5), "<qQ"),
}


def read_elf(file: BinaryIO) -> Elf | None:
    """What the file says; None for what is no ELF file, is damaged, or is big-endian."""
    try:
        head = file.read(64)
        layout = _LAYOUTS.get(head[4]) if head[:4] == MAGIC and head[5] == 1 else None
        if layout is None:
            return None
        fields = layout.header.unpack_from(head)
        machine = _MACHINES.get(fields[1], f"machine {fields[1]}")
        return _Reader(file, layout).read(machine, fields[4], fields[8], fields[9])
    except (OSError, struct.error, ValueError, OverflowError, IndexError):
        return None


class _Reader:
    def __init__(self, file: BinaryIO, layout: _Layout) -> None:
        self._file = file
        self._layout = layout
        self._loaded: list[tuple[int, int, int]] = []  # where in the file, in memory, and how long
        self._strings = b""

    def read(self, machine: str, table_at: int, size: int, count: int) -> Elf:
        interpreter = b""
        dynamic: list[tuple[int, int]] = []
        table = self._read_at(table_at, size * count)
        for at in range(0, size * count, max(size, 1)):
            segment = self._layout.program.unpack_from(table, at)
            offset, address, length = (segment[place] for place in self._layout.segment)
            if segment[0] == _LOAD:
                self._loaded.append((offset, address, length))
            elif segment[0] == _INTERPRETER:
                interpreter = self._read_at(offset, length).rstrip(b"\0")
            elif segment[0] == _DYNAMIC:
                entries = self._entries(self._read_at(offset, length))
                dynamic = list(islice(entries, _MOST_ENTRIES))
        values = dict(reversed(dynamic))
        if _STRINGS in values:
            self._strings = self._read_at(
                self._place(values[_STRINGS]), values.get(_STRINGS_SIZE, 0)
            )
        named = {kind: [self._text(at) for tag, at in dynamic if tag == kind] for kind in _NAMES}
        return Elf(
            machine=machine,
            interpreter=interpreter.decode("utf-8", "replace"),
            soname=next(iter(named[_SONAME]), ""),
            needed=tuple(named[_NEEDED]),
            rpath=tuple(filter(None, ":".join(named[_RPATH]).split(":"))),
            runpath=tuple(filter(None, ":".join(named[_RUNPATH]).split(":"))),
            asked=newest(list(islice(self._asked(values), _MOST_ENTRIES))),
            given=newest(list(islice(self._given(values), _MOST_ENTRIES))),
        )

    def _entries(self, data: bytes) -> Iterator[tuple[int, int]]:
        entry = self._layout.entry
        for tag, value in entry.iter_unpack(data[: len(data) // entry.size * entry.size]):
            if tag == 0:
                return
            yield tag, value

    def _asked(self, values: dict[int, int]) -> Iterator[str]:
        """The versions that are needed (DT_VERNEED), by library."""
        at = self._place(values[_ASKED]) if _ASKED in values else 0
        for _ in range(min(values.get(_ASKED_COUNT, 0) if at else 0, _MOST_ENTRIES)):
            _, names, _, first, following = _ASKS.unpack(self._read_at(at, _ASKS.size))
            name_at = at + first
            for _ in range(names):
                fields = _ASKS_NAME.unpack(self._read_at(name_at, _ASKS_NAME.size))
                yield self._text(fields[3])
                name_at += fields[4]
            at += following

    def _given(self, values: dict[int, int]) -> Iterator[str]:
        """The versions that are defined (DT_VERDEF)."""
        at = self._place(values[_GIVEN]) if _GIVEN in values else 0
        for _ in range(min(values.get(_GIVEN_COUNT, 0) if at else 0, _MOST_ENTRIES)):
            *_, first, following = _GIVES.unpack(self._read_at(at, _GIVES.size))
            name, _ = _GIVES_NAME.unpack(self._read_at(at + first, _GIVES_NAME.size))
            yield self._text(name)
            at += following

    def _place(self, address: int) -> int:
        """Where in the file lies what is at an address in memory."""
        for offset, start, length in self._loaded:
            if start <= address < start + length:
                return offset + address - start
        raise ValueError(address)

    def _read_at(self, offset: int, size: int) -> bytes:
        if size > _MOST_BYTES:
            raise ValueError(size)
        self._file.seek(offset)
        return self._file.read(size)

    def _text(self, at: int) -> str:
        end = self._strings.index(b"\0", at, at + _LONGEST_TEXT_BYTES)
        return self._strings[at:end].decode("utf-8", "surrogateescape")
