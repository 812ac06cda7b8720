"""Writes an image layer: a tar with nothing in it that depends on when or where it was written."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

from limpet.formats.squashfs import Node, Squashfs
from limpet.formats.zstd import ZstdCompressor

Compression = Literal["gzip", "zstd"]
GZIP_LEVEL = 6
ZSTD_LEVEL = 6
COPY_BYTES = 1 << 20
_TYPES = {
    "dir": tarfile.DIRTYPE,
    "file": tarfile.REGTYPE,
    "symlink": tarfile.SYMTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStats:
    """`digest` and `size_bytes` are of the compressed layer, `diff_id` is of the tar in it."""

    digest: str
    diff_id: str
    size_bytes: int
    files: int


class _Packed:
    """What is written to it is hashed, compressed, hashed again and passed on."""

    def __init__(self, out: BinaryIO, compression: Compression) -> None:
        self._out = out
        self._plain = hashlib.sha256()
        self._stored = hashlib.sha256()
        self._size_bytes = 0
        gzip = compression == "gzip"
        self._packer = (
            zlib.compressobj(GZIP_LEVEL, wbits=31) if gzip else ZstdCompressor(ZSTD_LEVEL)
        )

    def write(self, data: bytes) -> int:
        self._plain.update(data)
        self._pass_on(self._packer.compress(data))
        return len(data)

    def _pass_on(self, packed: bytes) -> None:
        self._stored.update(packed)
        self._size_bytes += len(packed)
        self._out.write(packed)

    def finish(self, files: int) -> LayerStats:
        self._pass_on(self._packer.flush())
        return LayerStats(
            digest=f"sha256:{self._stored.hexdigest()}",
            diff_id=f"sha256:{self._plain.hexdigest()}",
            size_bytes=self._size_bytes,
            files=files,
        )


def write_layer(
    out: BinaryIO, changes: Iterable[tuple[str, Node | None]], compression: Compression
) -> LayerStats:
    """A layer of these paths, in their order; None makes the OCI mark that a path is gone."""
    packed = _Packed(out, compression)
    first_names: dict[int, str] = {}
    files = 0
    with tarfile.open(
        fileobj=cast(BinaryIO, packed),
        mode="w|",
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
        bufsize=COPY_BYTES,
    ) as tar:
        for path, node in changes:
            files += 1
            _add(tar, path, node, first_names)
    return packed.finish(files)


def _add(tar: tarfile.TarFile, path: str, node: Node | None, first_names: dict[int, str]) -> None:
    if node is None:
        parent, _, name = path.rpartition("/")
        tar.addfile(tarfile.TarInfo(f"{parent}/.wh.{name}".lstrip("/")))
        return
    if node.kind not in _TYPES:
        return  # a socket is nothing that a tar can hold
    info = tarfile.TarInfo(path)
    info.mode, info.uid, info.gid, info.mtime = node.mode, node.uid, node.gid, node.mtime
    first = first_names.setdefault(id(node), path)
    if not node.is_dir and first != path:
        info.type, info.linkname = tarfile.LNKTYPE, first
        tar.addfile(info)
        return
    info.type = _TYPES[node.kind]
    info.linkname = node.target if node.is_symlink else ""
    if not node.is_file:
        info.devmajor, info.devminor = (node.rdev >> 8) & 0xFFF, node.rdev & 0xFF
        tar.addfile(info)
        return
    assert isinstance(node.image, Squashfs)
    info.size = node.size_bytes
    with node.image.open(node) as content:
        tar.addfile(info, content)
