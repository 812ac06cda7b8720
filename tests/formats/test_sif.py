"""SIF files: what is written is what is read, and what is damaged is an ImageError."""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.core.errors import ImageError
from limpet.formats.sif import (
    DATA_AT,
    ObjectKind,
    PartitionKind,
    SifWriter,
    find_object,
    overlay_partitions,
    read_object,
    read_sif,
    root_partition,
)

IDENT = bytes(range(16))
DataKind = Literal["json", "raw", "sbom", "deffile"]
PartKind = Literal["root", "overlay"]
Item = tuple[DataKind | PartKind, str, bytes]

kinds: st.SearchStrategy[DataKind | PartKind] = st.sampled_from(
    ["json", "raw", "sbom", "deffile", "root", "overlay"]
)
names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
items = st.lists(st.tuples(kinds, names, st.binary(max_size=5000)), max_size=8)


def sif_of(things: list[Item], arch: str = "amd64") -> bytes:
    out = BytesIO()
    writer = SifWriter(out, arch=arch, ident=IDENT)
    for kind, name, data in things:
        if kind == "root" or kind == "overlay":
            with writer.partition(kind, name) as part:
                part.write(data)
        else:
            writer.add_object(name, data, kind)
    writer.finish()
    return out.getvalue()


@settings(max_examples=50, deadline=None)
@given(items, st.sampled_from(["amd64", "arm64"]))
def test_what_is_written_is_read(things: list[Item], arch: str) -> None:
    data = sif_of(things, arch)
    assert data == sif_of(things, arch)
    file = BytesIO(data)
    sif = read_sif(file)
    assert (sif.arch, sif.id.bytes, sif.created) == (arch, IDENT, 0)
    assert sif.launch == "#!/usr/bin/env run-singularity\n"
    assert [(item.name, read_object(file, item)) for item in sif.descriptors] == [
        (name, content) for _, name, content in things
    ]
    end = DATA_AT
    for number, (item, (kind, _, _)) in enumerate(zip(sif.descriptors, things, strict=True), 1):
        assert (item.id, item.group, item.link) == (number, 1, 0)
        assert item.offset >= end
        end = item.offset + item.size_bytes
        if item.kind is ObjectKind.PARTITION:
            assert (item.part.name.lower(), item.arch) == (kind, arch)
            assert item.offset % 4096 == 0
        else:
            assert item.kind.name.lower() == kind
            assert item.part is PartitionKind.NONE
    assert end == len(data)


def test_finds_things() -> None:
    sif = read_sif(
        BytesIO(
            sif_of(
                [
                    ("json", "lock", b"{}"),
                    ("overlay", "", b"1"),
                    ("root", "base", b"r"),
                    ("overlay", "", b"2"),
                ]
            )
        )
    )
    assert root_partition(sif).name == "base"
    assert [item.id for item in overlay_partitions(sif)] == [2, 4]
    found = find_object(sif, "lock")
    assert found is not None and found.id == 1
    assert find_object(sif, "absent") is None


def test_an_image_without_a_root() -> None:
    with pytest.raises(ImageError, match="root"):
        root_partition(read_sif(BytesIO(sif_of([("raw", "x", b"")]))))


WHOLE = sif_of([("root", "", b"r" * 5000), ("json", "lock", b"{}")])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_cut_anywhere(end: int) -> None:
    with pytest.raises(ImageError):
        read_sif(BytesIO(WHOLE[:end]))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 127) | st.integers(4096, 4096 + 3 * 585), st.integers(0, 255))
def test_bent_anywhere(place: int, value: int) -> None:
    bent = bytearray(WHOLE)
    bent[place] = value
    file = BytesIO(bytes(bent))
    try:
        for item in read_sif(file).descriptors:
            read_object(file, item)
    except ImageError as error:
        assert error.what


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n" * 50, b"\x7fELF" + bytes(500)])
def test_files_that_are_no_sif(data: bytes) -> None:
    with pytest.raises(ImageError, match="no SIF"):
        read_sif(BytesIO(data))


def test_what_has_no_room() -> None:
    writer = SifWriter(BytesIO(), arch="amd64", ident=IDENT)
    with pytest.raises(ImageError, match="too long"):
        writer.add_object("n" * 128, b"", "raw")
    with pytest.raises(ImageError, match="architecture"):
        SifWriter(BytesIO(), arch="vax", ident=IDENT)
    for i in range(48):
        writer.add_object(f"{i}", b"", "raw")
    with pytest.raises(ImageError, match="48"):
        writer.add_object("one more", b"", "raw")


def test_a_partition_that_fails_is_not_recorded() -> None:
    out = BytesIO()
    writer = SifWriter(out, arch="amd64", ident=IDENT)
    with pytest.raises(RuntimeError), writer.partition("root") as part:
        part.write(b"half")
        raise RuntimeError
    writer.finish()
    assert read_sif(out).descriptors == ()
