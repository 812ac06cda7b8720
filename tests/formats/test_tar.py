from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.core.errors import FetchError
from limpet.formats.tar import CHUNK_BYTES, Tar, inflated, open_tar
from limpet.formats.zstd import ZstdCompressor


def zstd(data: bytes) -> bytes:
    return ZstdCompressor().compress(data, ZstdCompressor.FLUSH_FRAME)


def plain(data: bytes) -> bytes:
    return data


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def make_tar(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read_all(layer: bytes) -> dict[str, bytes]:
    with open_tar(io.BytesIO(layer)) as tar:
        return {
            info.name: tar.open_content(info.offset_data, info.size).read()
            for info in tar.headers()
        }


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=5),
    st.sampled_from([gzip.compress, zstd]),
    st.integers(1, 700),
    st.integers(0, 900),
)
def test_members_and_frames_cut_anywhere_are_one_stream(
    parts: list[bytes], pack: Callable[[bytes], bytes], size: int, padding: int
) -> None:
    packed = b"".join(map(pack, parts))
    if pack is gzip.compress:
        packed += bytes(padding)
    # The first piece says what it is, so it is never shorter than a magic number.
    assert b"".join(inflated(pieces(packed, size + 3))) == b"".join(parts)


@pytest.mark.parametrize("pack", [gzip.compress, zstd, plain])
def test_contents_of_any_length_are_read(pack: Callable[[bytes], bytes]) -> None:
    sizes = (0, 1, 511, 512, 513, CHUNK_BYTES - 512, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES)
    contents = {f"{size}": bytes(i % 251 for i in range(size % 99991)) for size in sizes}
    contents |= {f"{size} long": b"x" * size for size in sizes}
    assert read_all(pack(make_tar(contents))) == contents


@pytest.mark.parametrize("pack", [gzip.compress, zstd, plain])
@pytest.mark.parametrize("kept", [0.3, 0.8])
def test_a_tar_that_ends_early_is_an_error(pack: Callable[[bytes], bytes], kept: float) -> None:
    whole = pack(make_tar({"x": bytes(range(256)) * 9000, "y": b"2"}))
    with pytest.raises(FetchError, match="damaged"):
        read_all(whole[: int(len(whole) * kept)])


def test_members_are_skipped_but_never_read_again() -> None:
    tar = Tar(iter([make_tar({"a": b"1" * 5000, "b": b"2"}), b""]))
    a, b = tar.headers()
    assert tar.open_content(b.offset_data, b.size).read() == b"2"
    far = Tar(pieces(make_tar({"a": b"1" * 5000, "b": b"2"}), 512))
    a, b = far.headers()
    with pytest.raises(FetchError, match="damaged"):
        far.open_content(a.offset_data, a.size).read()


def test_holes_of_sparse_files_are_zeros(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"middle" * 1000)
        file.truncate(3 << 20)
    (tmp_path / "after").write_bytes(b"end")
    command = ["tar", "-c", "-S", "-C", str(tmp_path), "sparse", "after"]
    packed = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(packed) < 1 << 20
    with open_tar(io.BytesIO(packed)) as tar:
        for info in tar.headers():
            sparse: Any = info.sparse if info.issparse() else None
            with tar.open_content(info.offset_data, info.size, sparse) as content:
                read = b"".join(iter(lambda: content.read(70_001), b""))
            assert read == (tmp_path / info.name).read_bytes()
