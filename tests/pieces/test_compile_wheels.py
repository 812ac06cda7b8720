"""The script that compiles in a base, run by this Python."""

from __future__ import annotations

import json
import marshal
import struct
import subprocess
import sys
import zipfile
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path
from typing import Any

import pytest

from limpet.tools.bytecode import SCRIPTS

pytestmark = pytest.mark.real
SCRIPT = next(path for path in SCRIPTS if path.name == "compile_wheels.py")
MODULE = b"""
def pick(word):
    return word in {"one", "two", "three", "four", "five", "six", "seven", "eight"}
"""


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    return path


def request(number: int, wheel: Path, out: Path, names: list[str]) -> dict[str, Any]:
    with zipfile.ZipFile(wheel) as archive:
        infos = [archive.getinfo(name) for name in names]
    files = [(f"/x/{i.filename}", i.header_offset, i.compress_size, i.compress_type) for i in infos]
    return {"job": number, "wheel": str(wheel), "out": str(out), "files": files}


def compile_all(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(
        [sys.executable, "-I", "-S", SCRIPT], input=lines.encode(), capture_output=True, check=True
    )
    hello, *answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert hello == {"cache_tag": sys.implementation.cache_tag, "magic": MAGIC_NUMBER.hex()}
    return sorted(answers, key=lambda answer: int(answer["job"]))


def frames(data: bytes) -> list[bytes]:
    """Byte code and imports in turn."""
    found = []
    while data:
        (size,) = struct.unpack_from("<I", data)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_byte_code_is_complete_and_unchecked(tmp_path: Path, method: int) -> None:
    wheel = make_zip(
        tmp_path / "a.whl",
        {"a.py": MODULE, "bad.py": b"print 1\n", "nul.py": b"a\0b", "latin.py": b"A = '\xe9'\n"},
        method,
    )
    out = tmp_path / "out"
    names = ["a.py", "bad.py", "nul.py", "latin.py"]
    assert compile_all([request(7, wheel, out, names)]) == [{"job": 7, "status": 0}]
    good, imports, *bad = frames(out.read_bytes())
    assert imports == b"" and bad == [b""] * 6
    assert good[:16] == MAGIC_NUMBER + struct.pack("<I", 1) + source_hash(MODULE)
    code = marshal.loads(good[16:])
    assert code.co_filename == "/x/a.py"
    names_there: dict[str, Any] = {}
    exec(code, names_there)
    assert names_there["pick"]("two")


def test_a_job_that_fails_is_told_of(tmp_path: Path) -> None:
    wheel = make_zip(tmp_path / "a.whl", {"a.py": MODULE})
    lost = request(1, wheel, tmp_path / "none" / "out", ["a.py"])
    fine = request(2, wheel, tmp_path / "out", ["a.py"])
    first, second = compile_all([lost, fine])
    assert first["status"] != 0
    assert second["status"] == 0


def test_what_modules_import_comes_with_their_byte_code(tmp_path: Path) -> None:
    source = b"import json.tool, os\nfrom .x import y\ndef later():\n    import never\n"
    wheel = make_zip(tmp_path / "a.whl", {"a.py": source, "b.py": MODULE})
    out = tmp_path / "out"
    compile_all([request(1, wheel, out, ["a.py", "b.py"])])
    assert frames(out.read_bytes())[1::2] == [b"json.tool:\nos:\n.x:y", b""]


def test_the_pythons_own_modules_are_told_of(tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = {"job": 3, "out": str(out), "names": {"json": [], "no_such": []}, "packages": False}
    assert compile_all([asked]) == [{"job": 3, "status": 0}]
    told = json.loads(out.read_text())
    path, imports, holds = told["json"]
    assert Path(path).suffix == ".pyc" and ".decoder:JSONDecoder,JSONDecodeError" in imports
    assert "scanner" in holds and "json.scanner" in told
    assert told["no_such"] is None and "compile_wheels" not in told
