"""ELF files are read as pyelftools and the loader read them, and bad ones are nothing."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection

from limpet.core.elf import newest
from limpet.core.numbers import is_newer
from limpet.formats.elf import read_elf
from limpet.formats.elf_symbols import read_symbols

SMALL = Path(__file__).parents[1] / "gpu" / "needs-glibc-2.36.so"


def of_this_machine() -> list[Path]:
    """Python, its C library, and what else it has mapped: built by several linkers."""
    maps = Path("/proc/self/maps").read_text().split()
    return sorted({Path(word) for word in maps if ".so" in word and word.startswith("/")})


def as_pyelftools_reads(file: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"needed": [], "soname": [], "rpath": [], "runpath": []}
    asked, given = [], []
    for section in ELFFile(file).iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                kind = str(tag.entry.d_tag).removeprefix("DT_").lower()
                if kind in told:
                    told[kind].append(getattr(tag, kind))
        elif isinstance(section, GNUVerNeedSection):
            asked += [one.name for _, versions in section.iter_versions() for one in versions]
        elif isinstance(section, GNUVerDefSection):
            given += [next(versions).name for _, versions in section.iter_versions()]
    return {
        "needed": tuple(told["needed"]),
        "soname": "".join(told["soname"]),
        "rpath": tuple(filter(None, ":".join(told["rpath"]).split(":"))),
        "runpath": tuple(filter(None, ":".join(told["runpath"]).split(":"))),
        "asked": newest(asked),
        "given": newest(given),
    }


@pytest.mark.parametrize("path", [SMALL, Path(sys.executable).resolve(), *of_this_machine()])
def test_read_as_pyelftools_reads_it(path: Path) -> None:
    with path.open("rb") as file:
        ours = read_elf(file)
        file.seek(0)
        theirs = as_pyelftools_reads(file)
    assert ours
    assert {name: getattr(ours, name) for name in theirs} == theirs


def test_what_a_program_says() -> None:
    with SMALL.open("rb") as file:
        small = read_elf(file)
    assert small and (small.machine, small.glibc) == ("x86_64", "2.36")
    with Path(sys.executable).resolve().open("rb") as file:
        python = read_elf(file)
        symbols = read_symbols(file)
    assert python and python.interpreter.startswith("/lib") and is_newer(python.glibc, "2.1")
    assert "PyErr_SetString" in symbols.exports and "malloc" in symbols.imports


def test_a_file_without_sections_is_read_the_same() -> None:
    whole = bytearray(SMALL.read_bytes())
    before = read_elf(io.BytesIO(whole))
    whole[0x28:0x30] = bytes(8)
    whole[0x3C:0x40] = bytes(4)
    assert read_elf(io.BytesIO(whole)) == before
    assert read_symbols(io.BytesIO(whole)).exports == ()


def test_a_file_for_32_bits() -> None:
    strings = b"\0libx.so.1\0me.so\0/a:/b\0"
    dynamic = [(1, 1), (14, 11), (29, 17), (5, 0x2000), (10, len(strings)), (0, 0)]
    table = b"".join(struct.pack("<iI", *entry) for entry in dynamic)
    head = 52 + 2 * 32
    loaded = struct.pack("<8I", 1, head + len(table), 0x2000, 0, len(strings), len(strings), 4, 1)
    listed = struct.pack("<8I", 2, head, 0x1000, 0, len(table), len(table), 4, 1)
    header = b"\x7fELF\1\1\1".ljust(16, b"\0")
    header += struct.pack("<HHIIIIIHHHHHH", 3, 3, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    elf = read_elf(io.BytesIO(header + loaded + listed + table + strings))
    assert elf and (elf.machine, elf.soname, elf.needed) == ("i686", "me.so", ("libx.so.1",))
    assert elf.search == ("/a", "/b")


def test_bad_files_are_nothing() -> None:
    whole = SMALL.read_bytes()
    for bad in (b"", b"INPUT(libmpi.so.12)", whole[:40], whole[:70], whole[:4] + bytes(200)):
        assert read_elf(io.BytesIO(bad)) is None
        assert read_symbols(io.BytesIO(bad)).exports == ()


def test_damaged_files_are_nothing_or_little() -> None:
    whole = SMALL.read_bytes()
    for at in range(16, len(whole), 211):
        for bad in (whole[:at], whole[:at] + b"\xff" * 8 + whole[at + 8 :]):
            read_elf(io.BytesIO(bad))
            read_symbols(io.BytesIO(bad))
