"""What a wheel's files become in an image."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from limpet.core.errors import BuildError
from limpet.core.facts import Interpreter
from limpet.core.piece import plan_layout
from limpet.formats.squashfs import Entry
from limpet.tools.wheels import lay_out

PYTHON = Interpreter(path="/usr/bin/python3", version="3.13.5", prefix="/usr", magic="f30d0d0a")
LAYOUT = plan_layout(PYTHON)
SITE = "opt/env/lib/python3.13/site-packages"
MakeWheel = Callable[..., Path]


def content_of(entry: Entry) -> bytes:
    if not callable(entry.content):
        return entry.content or b""
    with entry.content() as stream:
        blocks = []
        while block := stream.read(1000):
            blocks.append(block)
    return b"".join(blocks)


def read_wheel(path: Path, **options: str) -> dict[str, tuple[int, bytes]]:
    """Path → mode and content, RECORD included."""
    with lay_out(path, LAYOUT, **options) as laid:  # type: ignore[arg-type]
        entries = [*laid.entries, laid.record(["demo/__pycache__/a.cpython-313.pyc"])]
        return {entry.path: (entry.mode, content_of(entry)) for entry in entries}


def test_each_scheme_has_its_place(make_wheel: MakeWheel) -> None:
    found = read_wheel(
        make_wheel(
            {
                "demo/a.py": b"A = 1\n",
                "demo-1.0.data/purelib/pure.py": b"P = 1\n",
                "demo-1.0.data/platlib/plat.so": b"\x7fELF",
                "demo-1.0.data/scripts/tool": b"#!python -u\nprint()\n",
                "demo-1.0.data/scripts/binary": b"\x7fELF",
                "demo-1.0.data/headers/demo.h": b"#define D\n",
                "demo-1.0.data/data/share/demo/x.txt": b"x",
                "demo-1.0.data/data/lib64/pkgconfig/demo.pc": b"pc",
            },
            executable=("demo-1.0.data/data/share/demo/x.txt",),
        )
    )
    assert found[f"{SITE}/demo/a.py"] == (0o644, b"A = 1\n")
    assert found[f"{SITE}/pure.py"] == (0o644, b"P = 1\n")
    assert found[f"{SITE}/plat.so"] == (0o644, b"\x7fELF")
    assert found["opt/env/bin/tool"] == (0o755, b"#!/opt/env/bin/python\nprint()\n")
    assert found["opt/env/bin/binary"] == (0o755, b"\x7fELF")
    assert found["opt/env/include/site/python3.13/demo/demo.h"] == (0o644, b"#define D\n")
    assert found["opt/env/share/demo/x.txt"] == (0o755, b"x")
    assert found["opt/env/lib/pkgconfig/demo.pc"] == (0o644, b"pc")


def test_entry_points_become_scripts(make_wheel: MakeWheel) -> None:
    text = (
        b"[console_scripts]\nrun = demo.a:main\n[gui_scripts]\nshow = demo.a:gui.main\n[x]\ny=z\n"
    )
    found = read_wheel(make_wheel({"demo-1.0.dist-info/entry_points.txt": text}))
    mode, run = found["opt/env/bin/run"]
    assert mode == 0o755
    assert run.startswith(b"#!/opt/env/bin/python\n")
    assert b"from demo.a import main" in run
    assert b"gui.main()" in found["opt/env/bin/show"][1]
    assert "opt/env/bin/y" not in found


def test_record_names_every_file_once(make_wheel: MakeWheel) -> None:
    found = read_wheel(
        make_wheel(
            {
                "demo/a.py": b"A = 1\n",
                "demo/odd, name.txt": b"",
                "demo/__pycache__/a.cpython-313.pyc": b"planted",
                "demo-1.0.dist-info/INSTALLER": b"somebody\n",
                "demo-1.0.data/scripts/tool": b"#!python\n",
            }
        )
    )
    rows = list(csv.reader(found[f"{SITE}/demo-1.0.dist-info/RECORD"][1].decode().splitlines()))
    named = {os.path.normpath(f"{SITE}/{row[0]}"): row[1:] for row in rows}
    pyc = f"{SITE}/demo/__pycache__/a.cpython-313.pyc"
    assert len(named) == len(rows)
    assert named.keys() == found.keys() | {pyc}
    assert pyc not in found
    assert named[pyc] == ["", ""]
    digest = "Bu289DNhZaJx5lJAJaZDnDyqMkb9B5bxFncieXB6UyU"
    assert named[f"{SITE}/demo/a.py"] == [f"sha256={digest}", "6"]
    assert found[f"{SITE}/demo-1.0.dist-info/INSTALLER"][1] == b"limpet\n"


def test_byte_code_of_tests_comes_last(make_wheel: MakeWheel) -> None:
    names = ("demo/a.py", "demo/tests/b.py", "demo/tests.py", "demo/test/c.py", "demo/z.py")
    with lay_out(make_wheel(dict.fromkeys(names, b"1")), LAYOUT) as laid:
        assert [module.path for module in laid.modules] == [
            "demo/a.py",
            "demo/tests.py",
            "demo/z.py",
            "demo/test/c.py",
            "demo/tests/b.py",
        ]


def test_modules_are_those_of_site_packages(make_wheel: MakeWheel) -> None:
    wheel = make_wheel(
        {
            "z.py": b"",
            "demo/a.py": b"A = 1\n",
            "demo/a.txt": b"",
            "demo-1.0.data/platlib/b.py": b"",
            "demo-1.0.data/scripts/c.py": b"",
            "demo-1.0.data/data/share/d.py": b"",
        }
    )
    with lay_out(wheel, LAYOUT) as laid:
        assert [module.path for module in laid.modules] == ["b.py", "demo/a.py", "z.py"]


def test_a_large_member_is_streamed(make_wheel: MakeWheel) -> None:
    large = os.urandom(100_000) * 30 + b"end"
    wheel = make_wheel({"demo/large.bin": large})
    with lay_out(wheel, LAYOUT) as laid:
        entry = next(entry for entry in laid.entries if entry.path.endswith("large.bin"))
        assert not isinstance(entry.content, bytes)
        assert content_of(entry) == large


def test_a_file_that_record_forgot_gets_its_hash(make_wheel: MakeWheel) -> None:
    wheel = make_wheel({"demo/a.py": b"A = 1\n"}, record={"demo/a.py": ""})
    with lay_out(wheel, LAYOUT) as laid:
        record = content_of(laid.record([])).decode()
    assert "demo/a.py,sha256=" in record


@pytest.mark.parametrize(
    "member",
    [
        "../evil.py",
        "/etc/evil",
        "demo/../../evil.py",
        "demo-1.0.data/scripts/../../../evil",
        "a//b",
    ],
)
def test_members_that_lead_outside_are_refused(make_wheel: MakeWheel, member: str) -> None:
    with pytest.raises(BuildError, match="no valid wheel"):
        read_wheel(make_wheel({member: b"evil"}))


def test_scripts_that_lead_outside_are_refused(make_wheel: MakeWheel) -> None:
    text = b"[console_scripts]\n../../etc/evil = demo.a:main\n"
    with pytest.raises(BuildError, match="points outside"):
        read_wheel(make_wheel({"demo-1.0.dist-info/entry_points.txt": text}))


@pytest.mark.parametrize("recorded", ["sha256=wrong", "md5=1B2M2Y8AsgTpgAmY7PhCfg"])
def test_a_wrong_hash_in_record_is_found(make_wheel: MakeWheel, recorded: str) -> None:
    wheel = make_wheel({"demo/a.py": b""}, record={"demo/a.py": f"demo/a.py,{recorded},0\n"})
    with pytest.raises(BuildError, match="RECORD"):
        read_wheel(wheel)


def test_damaged_data_are_found(make_wheel: MakeWheel) -> None:
    wheel = make_wheel({"demo/large.bin": os.urandom(50_000)})
    with wheel.open("r+b") as file:
        file.seek(20_000)
        file.write(bytes(64))
    with pytest.raises(BuildError, match="no valid wheel"):
        read_wheel(wheel)


def test_what_is_no_wheel_is_refused(tmp_path: Path, make_wheel: MakeWheel) -> None:
    text = tmp_path / "demo-1.0-py3-none-any.whl"
    text.write_bytes(b"not a zip")
    with pytest.raises(BuildError, match="no valid wheel"):
        read_wheel(text)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"name": "other"}, "the lock says other"),
        ({"name": "demo", "version": "2.0"}, "the lock says 2.0"),
    ],
)
def test_another_package_than_was_locked_is_refused(
    make_wheel: MakeWheel, options: dict[str, str], why: str
) -> None:
    with pytest.raises(BuildError) as caught:
        read_wheel(make_wheel({}), **options)
    assert why in caught.value.why


def test_names_are_compared_normalised(make_wheel: MakeWheel) -> None:
    wheel = make_wheel({"a.py": b""}, name="Demo_Pkg", version="1.0.0")
    assert read_wheel(wheel, name="demo-pkg", version="1.0")
