"""The names of an ELF file's symbols, read with pyelftools: that takes tens of milliseconds."""

from __future__ import annotations

from typing import BinaryIO

from limpet.core.elf import Symbols


def read_symbols(file: BinaryIO) -> Symbols:
    """What the file exports and imports; nothing for one that is no ELF file, or a damaged one."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    exports: list[str] = []
    imports: list[str] = []
    # pyelftools also fails with other errors on files that are no good.
    bad = (OSError, ELFError, ValueError, LookupError, AssertionError, TypeError, OverflowError)
    try:
        file.seek(0)
        table = ELFFile(file).get_section_by_name(".dynsym")
        for symbol in table.iter_symbols() if isinstance(table, SymbolTableSection) else ():
            if symbol["st_shndx"] != "SHN_UNDEF":
                exports.append(symbol.name)
            # A weak one may be missing: mpi4py looks for newer functions in this way.
            elif symbol.name and symbol["st_info"]["bind"] != "STB_WEAK":
                imports.append(symbol.name)
    except bad:
        return Symbols()
    return Symbols(exports=tuple(exports), imports=tuple(imports))
