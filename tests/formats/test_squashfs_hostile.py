"""Damaged and hostile images are ImageErrors: no other exception, no endless loop, no huge read."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.core.errors import ImageError
from limpet.formats.squashfs import Entry, Squashfs, write
from limpet.formats.squashfs.codecs import codec_by_name
from limpet.formats.squashfs.layout import DIR, DIR_INODE
from tests.formats.trees import BLOCK, composed, image_of, looks, noise

SMALL = [
    Entry("d/e/f", "file", content=noise(BLOCK * 2 + 5)),
    Entry("d/t", "file", content=b"tail" * 9),
    Entry("d/hard", "file", hardlink="d/t"),
    Entry("d/s", "symlink", target="e/f"),
    Entry("n", "char", rdev=259),
    *(Entry(f"many/{'m' * 90}{i}", "fifo") for i in range(120)),
]


def _plain_image() -> bytes:
    """With metadata that are not compressed, so that every byte of them can be bent."""

    def raw_codec(name: str) -> object:
        return dataclasses.replace(codec_by_name(name), compressor=lambda level: bytes)

    with mock.patch.object(write, "codec_by_name", raw_codec):
        return image_of(SMALL)


PLAIN = _plain_image()
PACKED = image_of(SMALL)


def _use(data: bytes) -> None:
    looks(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_cut_anywhere(data: st.DataObject) -> None:
    used = Squashfs(BytesIO(PACKED)).size_bytes
    with pytest.raises(ImageError):
        _use(PACKED[: data.draw(st.integers(0, used - 1))])


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_bent_anywhere(data: st.DataObject) -> None:
    tables = Squashfs(BytesIO(PLAIN)).superblock.inode_table
    bent = bytearray(PLAIN)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, 95) | st.integers(tables, len(PLAIN) - 1))
        bent[place] = data.draw(st.integers(0, 255))
    try:
        _use(bytes(bent))
        composed([(bytes(bent), "")])
        composed([(bytes(bent), "")], order=["d/e/f", "d/t"])
    except ImageError as error:
        assert error.what


def _bend_directory(data: bytes, number: int) -> bytes:
    """Lets the directory inode of that number show the root's listing as its own."""
    image = Squashfs(BytesIO(data))
    root, bent = image.root(), bytearray(data)
    start, end = image.superblock.inode_table, image.superblock.directory_table
    for at in range(start, end - DIR_INODE.size):
        fields = list(DIR_INODE.unpack_from(data, at))
        if fields[0] == DIR and fields[5] == number and fields[7] < 9 and fields[3] == 0:
            fields[6], fields[8], fields[9] = root.listing[0], root.size_bytes, root.listing[1]
            DIR_INODE.pack_into(bent, at, *fields)
            return bytes(bent)
    raise AssertionError("no such inode")


def test_a_directory_inside_itself() -> None:
    with pytest.raises(ImageError) as caught:
        _use(_bend_directory(PLAIN, 2))
    assert "directory" in caught.value.why


@pytest.mark.parametrize("name", ["zstd", "gzip", "xz"])
def test_blocks_do_not_grow_without_end(name: str) -> None:
    codec = codec_by_name(name)
    bomb = codec.compressor(3)(bytes(1 << 22))
    assert len(bomb) < 1 << 15
    with pytest.raises(ImageError):
        codec.decompress(bomb, 8192)
    with pytest.raises(ImageError):
        codec.decompress(b"nonsense" * 9, 8192)
    exact = codec.compressor(3)(b"y" * 8192)
    assert codec.decompress(exact, 8192) == b"y" * 8192
    with pytest.raises(ImageError):
        codec.decompress(exact[:-3], 8192)


@pytest.mark.parametrize(("number", "name"), [(5, "lz4"), (3, "lzo"), (99, "99")])
def test_compressors_that_are_not_read(number: int, name: str) -> None:
    data = bytearray(PACKED)
    data[20] = number
    with pytest.raises(ImageError, match=name):
        Squashfs(BytesIO(bytes(data)))


def test_a_sparse_giant_is_not_read_whole() -> None:
    image = Squashfs(BytesIO(PACKED))
    node = image.find("d/t")
    assert node is not None
    node.size_bytes = 1 << 50
    with pytest.raises(ImageError, match="too large"):
        image.read(node)


def test_paths_and_links() -> None:
    image = Squashfs(BytesIO(PACKED))
    content = noise(BLOCK * 2 + 5)
    assert image.find("d/nothing") is None and image.find("d/t/under") is None
    found = image.find("d/s")
    assert found is not None and found.is_symlink and found.target == "e/f"
    assert image.read("d/s") == image.read("/d/e/../../../d/s") == content
    assert image.read("d/s", 10) == content[:10]
    with pytest.raises(ImageError):
        image.read("d")
    with pytest.raises(ImageError):
        image.read("absent")
    loops = [Entry("a", "symlink", target="b"), Entry("b", "symlink", target="/a/x")]
    assert Squashfs(BytesIO(image_of(loops))).find("a", follow=True) is None
