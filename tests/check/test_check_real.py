"""`limpet check` as users start it: real images, a really missing library, exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.check.images import SITE, environment, package, sandbox, squashfs
from tests.conftest import Base, Limpet
from tests.doctor.conftest import dead_folder

__all__ = ["dead_folder"]  # a fixture

pytestmark = pytest.mark.real


def checked(limpet: Limpet, image: Path, *words: str) -> dict[str, Any]:
    done = limpet("check", image, "--json", *words)
    assert done.returncode in (0, 1), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    errors = [f for f in report["findings"] if f["severity"] == "error"]
    assert done.returncode == bool(errors)
    return report


def codes(report: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in report["findings"]]


def test_a_base_of_debian(limpet: Limpet, debian_base: Base) -> None:
    report = checked(limpet, debian_base.sif)
    assert report["libc"] == "2.41"
    assert report["files"] > 1000
    assert not {"LMP601", "LMP604", "LMP732"} & set(codes(report))
    assert "LMP704" in codes(report)
    told = limpet("check", debian_base.sif).stdout
    assert "note: The image is not signed. [LMP704]\n  Cure:\n    apptainer sign " in told


def test_an_image_of_limpets_own(limpet: Limpet, tmp_path: Path) -> None:
    words = ("build", "--pip", "six", "--base", "debian:trixie", "-o", "env ä.sif")
    built = limpet(*words)
    assert built.returncode == 0, built.stderr
    image = tmp_path / "env ä.sif"
    report = checked(limpet, image)
    assert "six" in {package["name"] for package in report["packages"]}
    assert set(codes(report)) == {"LMP704"}
    database = tmp_path / "osv.json"
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
    affected = [{"package": {"ecosystem": "PyPI", "name": "six"}, "ranges": ranges}]
    database.write_text(json.dumps({"id": "X-1", "affected": affected}))
    known = checked(limpet, image, "--advisories", str(database), "--only", "lmp711")
    assert codes(known) == ["LMP711"]
    imports = checked(limpet, image, "--imports")
    assert imports["modules"] == ["six"] and codes(imports) == ["LMP704"]
    image.chmod(0o777)
    assert "LMP705" in codes(checked(limpet, image))
    mended = checked(limpet, image, "--fix")
    assert "LMP705" not in codes(mended) and len(mended["fixed"]) == 1
    assert image.stat().st_mode & 0o777 == 0o755


def test_a_module_with_a_library_that_is_not_there(limpet: Limpet, tmp_path: Path) -> None:
    """ldd, in the same place, misses the same."""
    (tmp_path / "x.c").write_text("int f(void); int g(void) { return f(); }\n")
    (tmp_path / "lib.c").write_text("int f(void) { return 1; }\n")
    for output, source, *more in (
        ("libnothere.so.3", "lib.c", "-Wl,-soname,libnothere.so.3"),
        ("_c.cpython-313-x86_64-linux-gnu.so", "x.c", "./libnothere.so.3"),
        ("_r.cpython-313-x86_64-linux-gnu.so", "x.c", "./libnothere.so.3", "-Wl,-rpath,$ORIGIN/l"),
    ):
        argv = ["gcc", "-shared", "-fPIC", "-o", output, source, *more]
        subprocess.run(argv, cwd=tmp_path, check=True)
    tree = environment() | package("pkg", "1.0")
    for name in ("_c", "_r"):
        file = f"{name}.cpython-313-x86_64-linux-gnu.so"
        tree[f"{SITE}/pkg/{file}"] = (tmp_path / file).read_bytes()
    image = squashfs(tmp_path / "missing.sqfs", tree)
    (found,) = checked(limpet, image, "--only", "LMP601")["findings"]
    assert found["what"] == "libnothere.so.3 is not in the image."
    assert len([line for line in found["evidence"] if "/pkg/_" in line]) == 2
    ldd = subprocess.run(
        ["ldd", "_c.cpython-313-x86_64-linux-gnu.so"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "libnothere.so.3 => not found" in ldd.stdout
    tree[f"{SITE}/pkg/l/libnothere.so.3"] = (tmp_path / "libnothere.so.3").read_bytes()
    cured = checked(limpet, squashfs(tmp_path / "cured.sqfs", tree))
    (left,) = [f for f in cured["findings"] if "libnothere" in f["what"]]
    assert left["code"] == "LMP602" and "_c." in left["evidence"][0]
    assert not any("_r." in line for line in left["evidence"])


def test_a_folder(limpet: Limpet, tmp_path: Path) -> None:
    root = sandbox(tmp_path / "box", environment() | package("a", "1.0", "gone"))
    report = checked(limpet, root)
    assert "LMP501" in codes(report)


def test_bad_input(limpet: Limpet, tmp_path: Path) -> None:
    bad = tmp_path / "bad.sif"
    bad.write_bytes(b"hsqs" + b"\xff" * 200)
    damaged = limpet("check", bad)
    assert damaged.returncode == 8 and "Traceback" not in damaged.stderr
    assert limpet("check", tmp_path / "none.sif").returncode == 8
    image = squashfs(tmp_path / "i.sqfs", environment())
    assert limpet("check", image, "--only", "LMP999").returncode == 2
    assert limpet("check", image, "--advisories", tmp_path / "none").returncode == 2
    assert limpet("check", image, "six").returncode == 2
    cut = tmp_path / "cut.sqfs"
    cut.write_bytes(image.read_bytes()[:300])
    assert limpet("check", cut).returncode == 8


def test_names_of_hostile_images_on_the_terminal(limpet: Limpet, tmp_path: Path) -> None:
    image = squashfs(tmp_path / "i\x1b[2J.sqfs", environment() | {"opt/\x9b\u202e": ""})
    done = limpet("check", image)
    assert "LMP731" in done.stdout
    assert all(letter == "\n" or letter.isprintable() for letter in done.stdout + done.stderr)


def test_an_image_on_a_file_system_that_hangs(limpet: Limpet, dead_folder: Path) -> None:
    done = limpet("check", dead_folder / "i.sif", "--timeout", "1")
    assert done.returncode == 9
    assert "could not be read within 1 s" in done.stderr
