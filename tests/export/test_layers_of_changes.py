"""What an image has beyond its base, as a layer; and what its start script sets."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable

import pytest

from limpet.core.activation import Setting, render_settings
from limpet.core.container_image import is_runtimes_own, read_exports
from limpet.core.skeleton import render_env_script
from limpet.formats.layer import Compression, write_layer
from limpet.formats.squashfs import Entry, Source, Squashfs, compose, write_squashfs
from limpet.formats.squashfs.difference import Tree, find_changes, read_tree
from limpet.formats.zstd import ZstdDecompressor


def make(*entries: Entry, compressor: str = "zstd") -> Squashfs:
    out = io.BytesIO()
    write_squashfs(out, entries, compressor=compressor)
    return Squashfs(out)


def file(path: str, content: bytes = b"x", **fields: int) -> Entry:
    return Entry(path, "file", content=content, **fields)  # type: ignore[arg-type]


def tree(*images: Squashfs) -> Tree:
    return read_tree(images, is_runtimes_own)


BIG = bytes(range(256)) * 2048  # some whole blocks
BASE = (
    file("etc/keep", b"same"),
    file("etc/big", BIG),
    file("etc/changed", b"before"),
    file("etc/gone", b"x"),
    file("etc/folder/one", b"1"),
    file("etc/folder/two", b"2"),
    Entry("lib", "symlink", target="usr/lib"),
    file(".singularity.d/env/10-docker2singularity.sh"),
)


def names(changes: Iterable[tuple[str, object]]) -> dict[str, bool]:
    return {path: node is not None for path, node in changes}


def test_only_what_differs_is_there() -> None:
    base = make(*BASE)
    own = make(
        file("etc/changed", b"behind"),
        file("opt/env/new", b"new"),
        file(".singularity.d/env/95-limpet.sh"),
        file(".singularity.d/runscript"),
    )
    out = io.BytesIO()
    compose(out, [Source(squashfs=base), Source(squashfs=own)], remove=["etc/gone", "etc/folder"])
    found = names(find_changes(tree(base), tree(Squashfs(out))))
    assert found == {
        ".singularity.d": True,
        ".singularity.d/env": True,
        ".singularity.d/env/95-limpet.sh": True,
        "etc": True,
        "etc/changed": True,
        "etc/folder": False,
        "etc/gone": False,
        "opt": True,
        "opt/env": True,
        "opt/env/new": True,
    }


def test_the_same_in_another_compression_is_the_same() -> None:
    assert names(find_changes(tree(make(*BASE)), tree(make(*BASE, compressor="gzip")))) == {}
    other = BIG[:-1] + b"!"
    images = (make(file("a", BIG)), make(file("a", other), compressor="gzip"))
    assert names(find_changes(*map(tree, images))) == {"a": True}


def test_modes_count_owners_and_times_do_not() -> None:
    base = tree(make(file("a"), file("b"), file("c")))
    changed = tree(make(file("a", mode=0o755), file("b", uid=7), file("c", mtime=9)))
    assert names(find_changes(base, changed)) == {"a": True}


def test_what_engines_mount_themselves_is_no_change() -> None:
    base = tree(make(file("dev/null"), file("etc/resolv.conf", b"x"), file("etc/group")))
    image = tree(make(Entry("dev", "dir", mode=0o755), file("etc/group"), file("proc/x")))
    assert names(find_changes(base, image)) == {"proc": True}


def test_an_overlay_hides_replaces_and_adds() -> None:
    base = make(*BASE)
    overlay = make(
        Entry("etc/gone", "char", mode=0, rdev=0),
        file("etc/folder", b"a file now"),
        file("opt/env/new"),
    )
    found = names(find_changes(tree(base), tree(base, overlay)))
    assert found == {
        "etc": True,
        "etc/folder": True,
        "etc/gone": False,
        "opt": True,
        "opt/env": True,
        "opt/env/new": True,
    }


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_layer_is_a_tar_with_its_two_digests(compression: Compression) -> None:
    base = make(*BASE)
    image = make(
        file("etc/keep", b"same"),
        file("opt/ünïcode \udcff", b"odd", mode=0o4755, mtime=5),
        Entry("opt/same", "file", hardlink="opt/ünïcode \udcff"),
        Entry("opt/link", "symlink", target="a/" + "long/" * 50),
        Entry("opt/pipe", "fifo"),
    )
    out = io.BytesIO()
    stats = write_layer(out, find_changes(tree(base), tree(image)), compression)
    packed = out.getvalue()
    assert stats.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert stats.size_bytes == len(packed)
    plain = (
        gzip.decompress(packed) if compression == "gzip" else ZstdDecompressor().decompress(packed)
    )
    assert stats.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    with tarfile.open(fileobj=io.BytesIO(plain), errors="surrogateescape") as tar:
        members = {one.name: one for one in tar}
        odd = members["opt/same"] if members["opt/same"].isreg() else members["opt/ünïcode \udcff"]
        assert tar.extractfile(odd).read() == b"odd"  # type: ignore[union-attr]
        assert (odd.mode, odd.mtime) == (0o4755, 5)
    assert members["etc/.wh.gone"].size == 0
    assert ".wh.lib" in members
    assert members["opt/link"].linkname.startswith("a/long/")
    linked = [one for one in members.values() if one.islnk()]
    assert len(linked) == 1
    again = io.BytesIO()
    write_layer(again, find_changes(tree(base), tree(image)), compression)
    assert again.getvalue() == packed


def test_the_start_script_is_read_as_a_shell_would() -> None:
    settings = (
        Setting(name="FRONT", value="x y", way="prepend"),
        Setting(name="BACK", value="z", way="append"),
        Setting(name="OWN", value='d}"e$`\\', way="default"),
        Setting(name="TAKEN", value="never", way="default"),
        Setting(name="NEW", value="n", way="prepend"),
    )
    script = render_env_script({}, {"A": "it's\ntwo $lines", "EMPTY": ""}) + "\n".join(
        render_settings(settings)
    )
    before = {"PATH": "/bin", "FRONT": "old", "BACK": "old", "TAKEN": "kept"}
    assert read_exports(script, before) == {
        "PATH": "/opt/env/bin:/bin",
        "VIRTUAL_ENV": "/opt/env",
        "PYTHONNOUSERSITE": "1",
        "A": "it's\ntwo $lines",
        "FRONT": "x y:old",
        "BACK": "old:z",
        "OWN": 'd}"e$`\\',
        "NEW": "n",
    }
