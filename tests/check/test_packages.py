"""Packages of an image: requirements, versions, byte code, what leaks in and what nobody needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.core.image_env import parse_variables
from limpet.core.package_files import Metadata
from limpet.tools.conda_check import judge_conda
from tests.check.images import SITE, contents, environment, findings, package, squashfs

DEBIAN = "usr/lib/python3/dist-packages"


def test_a_good_image(tmp_path: Path) -> None:
    tree = (
        environment() | package("a", "1.0", "b>=2", "c; python_version < '3'") | package("b", "2.1")
    )
    path = squashfs(tmp_path / "i.sqfs", tree)
    assert findings(path) == {}
    (env,) = [env for env in contents(path).environments if env.virtual]
    assert (env.prefix, env.python, env.folders) == ("/opt/env", "3.13", (f"/{SITE}",))
    assert {package.name for package in env.packages} == {"a", "b"}


def test_requirements_as_pip_check_sees_them(tmp_path: Path) -> None:
    tree = environment() | package(
        "a",
        "1.0",
        "Missing_Thing>=1",
        "b<2",
        "extra-thing; extra == 'x'",
        "windows-thing; sys_platform == 'win32'",
        "not a requirement at all",
    )
    found = findings(squashfs(tmp_path / "i.sqfs", tree | package("b", "2.1")))
    assert set(found) == {"LMP501", "LMP502"}
    assert found["LMP501"].what == "a 1.0 needs Missing_Thing, which is not installed."
    assert found["LMP502"].what == "a 1.0 needs b<2, and 2.1 is installed."
    assert found["LMP502"].cure == "Add to the description: b<2"


@pytest.mark.parametrize(("system", "codes"), [(False, {"LMP501"}), (True, {"LMP503"})])
def test_an_environment_on_top_of_the_systems(
    system: bool, codes: set[str], tmp_path: Path
) -> None:
    tree = environment(system=system) | package("a", "1.0", "numpy") | package("twice", "2.0")
    tree |= package("numpy", "1.0", site=DEBIAN) | package("twice", "1.0", site=DEBIAN)
    found = findings(squashfs(tmp_path / "i.sqfs", tree))
    assert set(found) == codes
    if system:
        assert found["LMP503"].what == "twice is there twice; 2.0 is used."


def test_byte_code(tmp_path: Path) -> None:
    modules = {f"m{number}": "x = 1\n" for number in range(30)}
    tree = environment() | package("a", "1.0", **modules)
    bare = findings(squashfs(tmp_path / "bare.sqfs", tree))
    assert bare["LMP505"].what == "30 of 30 modules of Python 3.13 have no byte code."
    # PEP 552: flags 0, then the time and size of the source, which has another time here
    timed = b"\xf3\r\r\n" + bytes(4) + (12345).to_bytes(4, "little") + (6).to_bytes(4, "little")
    hashed = b"\xf3\r\r\n" + b"\x01\0\0\0" + bytes(8)
    for data, codes in ((timed, {"LMP506"}), (hashed, set())):
        for name in modules:
            tree[f"{SITE}/a/__pycache__/{name}.cpython-313.pyc"] = data
        assert set(findings(squashfs(tmp_path / "i.sqfs", tree))) == codes
    # of another Python
    other = {name.replace("-313", "-312"): data for name, data in tree.items()}
    assert set(findings(squashfs(tmp_path / "i.sqfs", other))) == {"LMP505"}


def test_what_leaks_in(tmp_path: Path) -> None:
    tree = {"usr/bin/python3.13": b"", **package("a", "1", site=DEBIAN)}
    assert set(findings(squashfs(tmp_path / "i.sqfs", dict(tree)))) == {"LMP508"}
    script = 'export PYTHONNOUSERSITE="1"\nexport PYTHONPATH="${PYTHONPATH:-"/opt/x"}"\n'
    tree[".singularity.d/env/90-environment.sh"] = script
    found = findings(squashfs(tmp_path / "i.sqfs", dict(tree)))
    assert set(found) == {"LMP507"}
    assert found["LMP507"].evidence == ("PYTHONPATH=/opt/x",)


def test_variables_as_apptainer_writes_them() -> None:
    found = parse_variables(['export A="${A:-"1"}"\nB=two\n  export C=\'3\'\n# D=4', "B=5"])
    assert found == {"A": "1", "B": "5", "C": "3"}


def test_what_nobody_needs(tmp_path: Path) -> None:
    library = bytes(range(256)) * 400
    tree = environment() | {
        f"{SITE}/a/tests/test_a.py": "x" * 1000,
        f"{SITE}/a/libx.a": "y" * 2000,
        f"{SITE}/a.libs/libz.so.1": library,
        f"{SITE}/b.libs/libz.so.1": library,
        f"{SITE}/c.libs/libz.so.1": library[::-1],
        "root/.cache/pip/http/1": "z" * 3000,
        "opt/conda/pkgs/numpy/x": "z" * 4000,
        "var/lib/apt/lists/deb": "z" * 500,
    }
    seen = contents(squashfs(tmp_path / "i.sqfs", tree))
    heaps = {heap.kind: heap for heap in seen.heaps}
    assert {kind: heap.size_bytes for kind, heap in heaps.items()} == {
        "tests": 1000,
        "static": 2000,
        "twins": len(library),
        "caches": 7500,
    }
    assert heaps["twins"].largest == ((f"/{SITE}/b.libs/libz.so.1", len(library)),)
    assert {"/opt/conda/pkgs", "/root/.cache/pip", "/var/lib/apt/lists"} == {
        folder for folder, _ in heaps["caches"].largest
    }


def test_sizes_by_package(tmp_path: Path) -> None:
    tree = environment() | package("a", "1.0", one="x" * 100)
    record = f"{SITE}/a-1.0.dist-info/RECORD"
    tree[f"{SITE}/a/tests/t.py"] = "y" * 50
    tree["opt/env/bin/tool"] = "z" * 10
    tree[record] = f"{tree[record]!s}a/tests/t.py,,\n../../../bin/tool,,\n../../../../../etc/x,,\n"
    (env,) = [env for env in contents(squashfs(tmp_path / "i", tree)).environments if env.virtual]
    (one,) = env.packages
    notes = sum(len(str(text)) for path, text in tree.items() if ".dist-info/" in path)
    assert (one.size_bytes, one.files, one.useless_bytes) == (160 + notes, 5, 50)


def test_conda(tmp_path: Path) -> None:
    def conda(name: str, version: str, *depends: str, build: str = "h1_0") -> Metadata:
        return Metadata(
            name=name, version=version, build=build, folder="opt/conda", requires=depends
        )

    found = list(
        judge_conda(
            [
                conda(
                    "numpy", "2.1.0", "python >=3.12,<3.13.0a0", "libblas >=3.9,<4.0a0", "__glibc"
                ),
                conda("python", "3.11.4"),
                conda("libblas", "3.9.0", "missing-thing", "conda-forge::python *"),
            ]
        )
    )
    assert [(finding.code, finding.what) for finding in found] == [
        ("LMP504", "numpy 2.1.0 needs python >=3.12,<3.13.0a0, and 3.11.4 is installed."),
        ("LMP504", "libblas 3.9.0 needs missing-thing, which is not installed."),
    ]
    tree: dict[str, str | bytes] = {
        "opt/conda/conda-meta/a.json": '{"name": "a", "version": "1", "depends": ["b >=2"]}',
        "opt/conda/conda-meta/bad.json": "[1, 2",
        "opt/conda/conda-meta/odd.json": '["a"]',
    }
    seen = contents(squashfs(tmp_path / "i.sqfs", tree))
    assert [package.name for package in seen.conda] == ["a"]
    assert len(seen.troubles) == 2
