"""What is decided of a packed folder's things, as values."""

from __future__ import annotations

import importlib.util
import py_compile
import stat
from pathlib import Path

import msgspec
import pytest

from limpet.core import prefix
from limpet.core.errors import BaseError, UsageError
from limpet.core.facts import BaseFacts, Libc
from limpet.core.pack import Needs, check_needs, check_place, is_covered
from limpet.core.prefix import Seen
from limpet.tools.prefix_scan import scan_tree

FACTS = BaseFacts(digest="sha256:1", arch="x86_64", libc=Libc(family="glibc", version="2.36"))


def seen_of(path: Path, name: str) -> Seen:
    return next(one for one in scan_tree(path) if one.path == name)


@pytest.mark.parametrize(
    ("byte_code", "source"),
    [
        ("a/__pycache__/b.cpython-313.pyc", "a/b.py"),
        ("a/__pycache__/b.cpython-313.opt-1.pyc", "a/b.py"),
        ("__pycache__/b.c.pypy310.pyc", "b.c.py"),
        ("a/b.pyc", "a/b.py"),
        ("a/__pycache__/odd.pyc", ""),
    ],
)
def test_the_source_of_byte_code(byte_code: str, source: str) -> None:
    assert prefix.source_of(byte_code) == source


def test_byte_code_by_time_holds_without_it(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("x = 1\n", encoding="utf-8")
    code = Path(py_compile.compile(str(tmp_path / "m.py"), doraise=True) or "").read_bytes()
    settled = prefix.settle_byte_code(code, seen_of(tmp_path, "m.py"))
    assert settled is not None
    assert settled[4:8] == b"\1\0\0\0"  # PEP 552: by hash, and never compared
    assert settled[16:] == code[16:]
    assert settled[:4] == importlib.util.MAGIC_NUMBER
    assert prefix.settle_byte_code(settled, seen_of(tmp_path, "m.py")) is settled
    (tmp_path / "m.py").write_text("x = 12\n", encoding="utf-8")
    assert prefix.settle_byte_code(code, seen_of(tmp_path, "m.py")) is None
    assert prefix.settle_byte_code(code, None) is code


@pytest.mark.parametrize("magic", [3379, 62211])  # Python 3.6 and 2.7, which have no flags
def test_older_byte_code_gets_the_time_that_its_source_has(tmp_path: Path, magic: int) -> None:
    (tmp_path / "m.py").write_text("x = 1\n", encoding="utf-8")
    source = seen_of(tmp_path, "m.py")
    time = (source.mtime_ns // 10**9).to_bytes(4, "little")
    head = magic.to_bytes(2, "little") + b"\r\n" + time
    rest = source.size_bytes.to_bytes(4, "little") + b"code of it"
    assert prefix.settle_byte_code(head + rest, source) == head[:4] + bytes(4) + rest


@pytest.mark.parametrize(
    ("mode", "inside"),
    [(0o600, 0o644), (0o700, 0o755), (0o644, 0o644), (0o4755, 0o755), (0o664, 0o664)],
)
def test_modes_in_an_image(mode: int, inside: int) -> None:
    assert prefix.image_mode(stat.S_IFREG | mode) == inside


def test_every_kind_of_change_is_seen(tmp_path: Path) -> None:
    for name in ("same", "longer", "gone", "other"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    before = scan_tree(tmp_path)
    (tmp_path / "longer").write_text("much longer", encoding="utf-8")
    (tmp_path / "gone").unlink()
    (tmp_path / "new").touch()
    (tmp_path / "other2").write_text("other", encoding="utf-8")
    (tmp_path / "other2").rename(tmp_path / "other")
    assert prefix.find_changes(before, scan_tree(tmp_path)) == ("gone", "longer", "new", "other")
    assert prefix.find_changes(before, before) == ()


@pytest.mark.parametrize("place", ["/", "/usr", "/opt", "/proc/1", "/a:b", "/tmp", "/home"])
def test_places_that_cannot_be_served(place: str) -> None:
    with pytest.raises(UsageError, match="cannot be packed"):
        check_place(place)


@pytest.mark.parametrize(
    ("place", "covered"),
    [("/home/me/env", True), ("/opt/env", False), ("/opt/site/env", True), ("/usr/x/y", False)],
)
def test_places_that_the_host_may_cover(place: str, covered: bool) -> None:
    check_place(place)
    assert is_covered(place) is covered


def test_needs_that_a_base_does_not_meet() -> None:
    check_needs(Needs(glibc="2.36", of="a", machines={"x86_64": "a", "aarch64": "b"}), FACTS, "it")
    with pytest.raises(BaseError, match=r"needs glibc 2\.100, and the base it has 2\.36"):
        check_needs(Needs(glibc="2.100", of="a"), FACTS, "it")
    with pytest.raises(BaseError, match="programs for aarch64"):
        check_needs(Needs(machines={"aarch64": "a"}), FACTS, "it")
    musl = msgspec.structs.replace(FACTS, libc=Libc(family="musl", version="1.2"))
    with pytest.raises(BaseError, match="has musl"):
        check_needs(Needs(glibc="2.17", of="a"), musl, "it")
