"""What an ELF file says of itself, and how versions of symbols are ordered."""

from __future__ import annotations

import re

import msgspec

from limpet.core.numbers import is_newer

# What belongs to a C library and must come from the same installation as the loader that maps it.
_LIBC = re.compile(
    r"(ld-linux\S*|ld64|libc|libm|libmvec|libpthread|libdl|librt|libutil|libresolv|libanl|libnsl"
    r"|libBrokenLocale|libthread_db|libnss_\w+|libcrypt|linux-vdso)\.so(\.\d+)*"
)
# What every distribution has and the image's programs rely on in the image's own version.
_GENERAL = re.compile(
    r"lib(z|zstd|lzma|bz2|xml2|crypto|ssl|udev|cap|systemd|selinux|pcre2?-8|pcre|gcrypt|gpg-error"
    r"|lz4|curl|uuid|blkid|mount|expat|ffi|gomp|atomic|gfortran|quadmath|tirpc|keyutils|krb5\w*"
    r"|gssapi_krb5|com_err|k5crypto|jansson|json-c)\.so(\.\d+)*"
)
# The compiler's: newer ones serve older programs.
COMPILER = ("libstdc++.so.6", "libgcc_s.so.1")


class Elf(msgspec.Struct, frozen=True, kw_only=True):
    """What a program or library says to the loader.

    `rpath` is searched before LD_LIBRARY_PATH and only counts where there is no `runpath`, which is
    searched after it (ld.so(8)). `asked` and `given` are the newest version of each set of symbols
    that the file needs and has: {"GLIBC": "2.17"}.
    """

    machine: str = ""
    interpreter: str = ""
    soname: str = ""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    asked: dict[str, str] = msgspec.field(default_factory=dict)
    given: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def search(self) -> tuple[str, ...]:
        """The file's own folders."""
        return self.runpath or self.rpath

    @property
    def glibc(self) -> str:
        """The newest glibc that it asks for; empty for none."""
        return self.asked.get("GLIBC", "")


class Symbols(msgspec.Struct, frozen=True, kw_only=True):
    """Their names in a file, of `imports` without those that may be missing (weak ones)."""

    exports: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()


def newest(names: list[str]) -> dict[str, str]:
    """{"GLIBC": "2.17"} of `GLIBC_2.2.5`, `GLIBC_2.17`."""
    found: dict[str, str] = {}
    for name in names:
        kind, _, version = name.rpartition("_")
        if re.fullmatch(r"\d+(\.\d+)*", version) and is_newer(version, found.get(kind, "")):
            found[kind] = version
    return found


def is_general(name: str) -> bool:
    """Whether a library of this name has nothing to do with MPI or the network's hardware."""
    return _GENERAL.fullmatch(name) is not None


def is_libc(name: str) -> bool:
    """Whether a library of this name is a part of the C library."""
    return _LIBC.fullmatch(name) is not None
