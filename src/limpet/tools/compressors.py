"""Which compression the runtime here can read: found out by starting an image of a few bytes."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import Literal

from limpet.core.errors import LimpetError
from limpet.formats.sif import SifWriter, architecture_of
from limpet.formats.squashfs import Entry, write_squashfs
from limpet.tools import files, process

Compression = Literal["zstd", "gzip"]
_FOLDERS = ("dev", "etc", "proc", "root", "sys", "tmp", "var/tmp")
# exit(0): mov eax, 60; xor edi, edi; syscall. mov x8, 93; mov x0, 0; svc 0.
_EXIT = {
    "x86_64": (62, bytes.fromhex("b83c00000031ff0f05")),
    "aarch64": (183, bytes.fromhex("a80b80d2000080d2010000d4")),
}
_START = 0x400000
_HEADERS_BYTES = 64 + 56
_TIMEOUT_S = 60


def best_compression(runtime: Path, cache: Path) -> Compression:
    """zstd, unless only gzip starts here: an old kernel's or squashfuse's squashfs has no zstd.

    Remembered for this runtime, this kernel and the squashfuse in PATH. Where neither starts, or
    this machine's instructions are not known here, it is zstd: what is wrong is something else.
    """
    arch = os.uname().machine
    if arch not in _EXIT:
        return "zstd"
    kept = cache / "compression"
    key = _key(runtime)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        before, _, said = kept.read_text("utf-8").partition("\n")
        if before == key and said.strip() in ("zstd", "gzip"):
            return "gzip" if said.strip() == "gzip" else "zstd"
    with files.passing_folder(cache / "tmp") as scratch:
        works = {name: _starts(runtime, scratch, name, arch) for name in ("zstd",)}
        if not works["zstd"]:
            works["gzip"] = _starts(runtime, scratch, "gzip", arch)
    best: Compression = "gzip" if works.get("gzip") else "zstd"
    if any(works.values()):
        with contextlib.suppress(OSError, LimpetError), files.written_beside(kept) as out:
            out.write(f"{key}\n{best}\n".encode())
    return best


def _key(runtime: Path) -> str:
    parts = [os.uname().release]
    for path in (runtime, *(process.find_program(n) for n in ("squashfuse_ll", "squashfuse"))):
        with contextlib.suppress(OSError):
            if path:
                status = path.stat()
                parts.append(f"{path} {status.st_mtime_ns} {status.st_size} {status.st_ino}")
    return " | ".join(parts).replace("\n", " ")


def _starts(runtime: Path, scratch: Path, compression: str, arch: str) -> bool:
    image = scratch / f"{compression}.sif"
    with image.open("w+b") as file:
        writer = SifWriter(file, arch=architecture_of(arch), ident=bytes(16))
        with writer.partition("root") as out:
            program = Entry("true", "file", 0o755, content=_program(arch))
            folders = [Entry(name, "dir", 0o755) for name in _FOLDERS]
            write_squashfs(out, [*folders, program], compressor=compression)
        writer.finish()
    image.chmod(0o755)
    argv: list[str | Path] = [
        runtime,
        "--silent",
        "exec",
        "--cleanenv",
        "--contain",
        "--no-home",
        image,
        "/true",
    ]
    try:
        return process.run(argv, timeout_s=_TIMEOUT_S).code == 0
    except LimpetError:
        return False


def _program(arch: str) -> bytes:
    """The smallest ELF program that ends at once, long enough to be worth compressing."""
    machine, code = _EXIT[arch]
    entry = _START + _HEADERS_BYTES
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\2\1\1" + bytes(9),
        *(2, machine, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    size = _HEADERS_BYTES + len(code)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _START, _START, size, size, 4096)
    return header + segment + code + bytes(8192)
