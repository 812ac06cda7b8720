"""The compressors of squashfs, each bounded in what it may produce from hostile bytes."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from limpet.core.errors import ImageError
from limpet.formats.squashfs.layout import METADATA_SIZE

Compress = Callable[[bytes], bytes]

NAMES = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
COMPRESSORS = ("zstd", "gzip")  # that data are written with
XZ_MEMORY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Codec:
    """`decompress(data, limit)` gives at most `limit` bytes or raises ImageError."""

    number: int
    name: str
    compressor: Callable[[int], Compress]
    decompress: Callable[[bytes, int], bytes]


def damaged(why: str) -> ImageError:
    return ImageError(
        "The squashfs image is damaged.",
        why=why,
        now="Fetch or build the file again; if it was copied, compare its size with the original.",
    )


def codec_by_number(number: int) -> Codec:
    name = NAMES.get(number, f"number {number}")
    if name not in _CODECS:
        raise ImageError(
            f"The squashfs image is compressed with {name}, which limpet does not read.",
            why=f"limpet reads {', '.join(_CODECS)}.",
            now="Build it again with one of these, for instance with `mksquashfs -comp zstd`.",
        )
    return codec_by_name(name)


@cache
def codec_by_name(name: str) -> Codec:
    number = next(number for number, known in NAMES.items() if known == name)
    return Codec(number, name, *_CODECS[name])


def _zstd_compressor(level: int) -> Compress:
    """A function for any thread; each gets a context of its own, which is costly to make."""
    from limpet.formats.zstd import ZstdCompressor

    local = threading.local()

    def compress(data: bytes) -> bytes:
        try:
            context = local.context
        except AttributeError:
            context = local.context = ZstdCompressor(level)
        packed: bytes = context.compress(data, ZstdCompressor.FLUSH_FRAME)
        return packed

    return compress


def _zstd_decompress(data: bytes, limit: int) -> bytes:
    from limpet.formats.zstd import ZstdDecompressor, ZstdError

    stream = ZstdDecompressor()
    try:
        plain: bytes = stream.decompress(data, limit + 1)
    except ZstdError as error:
        raise damaged(f"A block is no zstd data: {error}") from error
    if not stream.eof or len(plain) > limit or stream.unused_data:
        raise damaged("A zstd block ends too early or is too large.")
    return plain


def zstd_version() -> str:
    """Which library compresses: another one makes other bytes of the same."""
    from limpet.formats.zstd import zstd_version as version

    return str(version)


def _gzip_compressor(level: int) -> Compress:
    return lambda data: zlib.compress(data, min(level, 9))


def _gzip_decompress(data: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise damaged(f"A block is no zlib data: {error}") from error
    if not stream.eof or len(plain) > limit:
        raise damaged("A zlib block ends too early or is too large.")
    return plain


def _xz_compressor(level: int) -> Compress:
    """For metadata only. The kernel takes CRC32 and no dictionary larger than a block."""
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "preset": min(level, 9), "dict_size": METADATA_SIZE}]
    return lambda data: lzma.compress(
        data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters
    )


def _xz_decompress(data: bytes, limit: int) -> bytes:
    import lzma

    try:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
        plain = stream.decompress(data, limit + 1)
    except lzma.LZMAError as error:
        raise damaged(f"A block is no xz data: {error}") from error
    if not stream.eof or len(plain) > limit:
        raise damaged("An xz block ends too early or is too large.")
    return plain


_CODECS: dict[str, tuple[Callable[[int], Compress], Callable[[bytes, int], bytes]]] = {
    "gzip": (_gzip_compressor, _gzip_decompress),
    "xz": (_xz_compressor, _xz_decompress),
    "zstd": (_zstd_compressor, _zstd_decompress),
}
