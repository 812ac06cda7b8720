"""ELF files, read from open files with pyelftools; nothing is started."""

from __future__ import annotations

from typing import Any, BinaryIO

from limpet.core.elf import Elf, newest

MAGIC = b"\x7fELF"


def read_elf(file: BinaryIO, *, symbols: bool = False) -> Elf | None:
    """What the file says; None for one that is no ELF file, or a damaged one.

    Symbols' names are read only with `symbols`, because that takes tens of milliseconds.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    # pyelftools also fails with other errors on files that are no good.
    bad = (OSError, ELFError, ValueError, KeyError, IndexError, AssertionError, TypeError)
    try:
        if file.read(4) != MAGIC:
            return None
        file.seek(0)
        return _parse(ELFFile(file), symbols)
    except bad:
        return None


def _parse(elf: Any, symbols: bool) -> Elf:
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection
    from elftools.elf.sections import SymbolTableSection

    tags: dict[str, list[str]] = {}
    names: tuple[list[str], list[str]] = ([], [])
    asked, given = [], []
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                kind = str(tag.entry.d_tag).removeprefix("DT_").lower()
                if kind in ("needed", "soname", "rpath", "runpath"):
                    tags.setdefault(kind, []).append(getattr(tag, kind))
        elif isinstance(section, GNUVerNeedSection):
            asked += [one.name for _, versions in section.iter_versions() for one in versions]
        elif isinstance(section, GNUVerDefSection):
            given += [next(versions).name for _, versions in section.iter_versions()]
        elif symbols and isinstance(section, SymbolTableSection) and section.name == ".dynsym":
            for symbol in section.iter_symbols():
                undefined = symbol["st_shndx"] == "SHN_UNDEF"
                # A weak one may be missing: mpi4py looks for newer functions in this way.
                if not undefined or symbol["st_info"]["bind"] != "STB_WEAK":
                    names[undefined].append(symbol.name)
    paths = {k: tuple(":".join(tags.get(k, ())).split(":")) for k in ("rpath", "runpath")}
    return Elf(
        soname=next(iter(tags.get("soname", ())), ""),
        needed=tuple(tags.get("needed", ())),
        rpath=tuple(filter(None, paths["rpath"])),
        runpath=tuple(filter(None, paths["runpath"])),
        asked=newest(asked),
        given=newest(given),
        exports=tuple(names[0]),
        imports=tuple(filter(None, names[1])),
    )
