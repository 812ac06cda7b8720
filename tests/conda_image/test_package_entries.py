"""Conda packages become entries: the right place, the right bytes, or a clear refusal."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from limpet.core.conda import CondaPackage
from limpet.core.conda_install import (
    PathEntry,
    conda_key,
    is_replaced,
    parse_old_paths,
    place_link,
    plan_conda_layout,
    sort_packages,
    with_prefix,
)
from limpet.core.errors import BuildError
from limpet.formats.squashfs import Squashfs, write_squashfs
from limpet.tools.conda_package import open_package
from tests.conda.channel import PLACEHOLDER, SUBDIR, Link, Package
from tests.conda_image.locks import package_of

Written = Callable[[Package], tuple[Path, CondaPackage]]
PYTHON = CondaPackage(
    name="python",
    version="3.13.5",
    build="h1_0_cp313",
    subdir=SUBDIR,
    channel="c",
    filename="python-3.13.5-h1_0_cp313.conda",
    sha256="0",
)
LAYOUT = plan_conda_layout(PYTHON)


def laid_out(path: Path, package: CondaPackage) -> Squashfs:
    """The package as an image."""
    out = io.BytesIO()
    with open_package(path, package, LAYOUT) as entries:
        write_squashfs(out, entries)
    return Squashfs(out)


def paths_in(image: Squashfs) -> list[str]:
    return [path for path, node in image.walk() if not node.is_dir]


# ---- the prefix ----------------------------------------------------------------------------------


def binary(text: str = PLACEHOLDER) -> PathEntry:
    return PathEntry(path="lib/a.so", placeholder=text, file_mode="binary")


def test_a_binary_keeps_its_length_and_each_string_its_end() -> None:
    old = PLACEHOLDER.encode()
    data = b"\x7fELF" + old + b"/lib:" + old + b"/lib64\0next\0" + old + b"/share\0" + b"tail"
    done = with_prefix(data, binary(), "/opt/env")
    spare = len(old) - len("/opt/env")
    assert len(done) == len(data)
    assert done == (
        b"\x7fELF/opt/env/lib:/opt/env/lib64\0" + bytes(2 * spare) + b"next\0/opt/env/share\0"
        b"" + bytes(spare) + b"tail"
    )


def test_in_a_binary_what_no_nul_ends_is_left_alone() -> None:
    data = b"\0" + PLACEHOLDER.encode()
    assert with_prefix(data, binary(), "/opt/env") == data


def test_a_prefix_longer_than_the_placeholder_is_refused() -> None:
    with pytest.raises(
        BuildError, match=r"lib/a\.so of a package cannot be installed at /opt/env"
    ) as caught:
        with_prefix(b"/old\0", binary("/old"), "/opt/env")
    assert "4 characters" in caught.value.why


def test_a_text_may_change_its_length() -> None:
    entry = PathEntry(path="bin/x", placeholder="/old")
    assert with_prefix(b"#!/old/bin/python\n/old", entry, "/opt/env") == (
        b"#!/opt/env/bin/python\n/opt/env"
    )


def test_the_older_lists_say_the_same() -> None:
    paths = parse_old_paths(
        "bin/a\nlib/b c.so\nplain\nbare\n", "/p/laceholder binary lib/b c.so\n/q text bin/a\nbare\n"
    )
    assert paths["lib/b c.so"] == PathEntry(
        path="lib/b c.so", placeholder="/p/laceholder", file_mode="binary"
    )
    assert paths["bin/a"].placeholder == "/q"
    assert paths["bare"].placeholder == "/opt/anaconda1anaconda2anaconda3"
    assert paths["plain"].placeholder == ""


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("lib/a.so", "a.so.1"),
        ("lib/deep/a", "../../bin/a"),
        ("lib/a", "/opt/env/bin/a"),
        ("lib/a", f"{PLACEHOLDER}/bin/a"),
        ("lib/dangling", "nowhere/at/all"),
    ],
)
def test_links_within_the_prefix_stay(path: str, target: str) -> None:
    assert place_link(path, target, PLACEHOLDER, "/opt/env") == target.replace(
        PLACEHOLDER, "/opt/env"
    )


@pytest.mark.parametrize(
    ("path", "target"),
    [("lib/a", "../../x"), ("a", "/etc/passwd"), ("a", "../environment/x"), ("a/b", "../../../..")],
)
def test_links_out_of_the_prefix_are_refused(path: str, target: str) -> None:
    with pytest.raises(ValueError, match="leads out of the prefix"):
        place_link(path, target, PLACEHOLDER, "/opt/env")


# ---- packages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".conda", ".tar.bz2"])
def test_a_package_lies_at_its_place(written: Written, extension: Any) -> None:
    package = Package(
        name="demo",
        extension=extension,
        files={
            "bin/demo": f"#!{PLACEHOLDER}/bin/python\n",
            "bin/program": b"\x7fELF" + PLACEHOLDER.encode() + b"/lib\0",
            "lib/big": bytes(range(256)) * 4000,
            "lib/link": Link("big"),
            "share/with spaces é": "x",
        },
    )
    image = laid_out(*written(package))
    assert image.read("opt/env/bin/demo") == b"#!/opt/env/bin/python\n"
    assert image.read("opt/env/bin/program")[:17] == b"\x7fELF/opt/env/lib\0"
    assert image.read("opt/env/lib/big") == bytes(range(256)) * 4000
    assert image.read("opt/env/share/with spaces é") == b"x"
    nodes = dict(image.walk())
    assert nodes["opt/env/lib/link"].target == "big"
    assert (nodes["opt/env/bin/demo"].mode, nodes["opt/env/lib/big"].mode) == (0o755, 0o644)
    assert {node.mtime for node in nodes.values()} == {0}


def test_a_noarch_python_package_goes_where_python_looks(written: Written) -> None:
    package = Package(
        name="pure",
        noarch="python",
        depends=("python",),
        entry_points=("pure-run = pure.cli:main", "other=pure:Thing.run"),
        files={
            "site-packages/pure/__init__.py": "",
            "site-packages/pure/__pycache__/__init__.cpython-312.pyc": b"stale",
            "python-scripts/pure-script": f"#!{PLACEHOLDER}/bin/python\n",
            "etc/pure.conf": "x",
        },
    )
    image = laid_out(*written(package))
    assert paths_in(image) == [
        "opt/env/bin/other",
        "opt/env/bin/pure-run",
        "opt/env/bin/pure-script",
        "opt/env/conda-meta/pure-1.0-0.json",
        "opt/env/etc/pure.conf",
        "opt/env/lib/python3.13/site-packages/pure/__init__.py",
    ]
    script = image.read("opt/env/bin/pure-run").decode()
    assert script.startswith("#!/opt/env/bin/python\n")
    assert "from pure.cli import main" in script
    compile(script, "pure-run", "exec")


def test_a_free_threaded_python_has_a_place_of_its_own(written: Written) -> None:
    python = msgspec.structs.replace(
        PYTHON, python_site_packages_path="lib/python3.13t/site-packages"
    )
    path, package = written(
        Package(name="pure", noarch="python", files={"site-packages/pure.py": ""})
    )
    layout = plan_conda_layout(python)
    out = io.BytesIO()
    with open_package(path, package, layout) as entries:
        write_squashfs(out, entries)
    assert "opt/env/lib/python3.13t/site-packages/pure.py" in paths_in(Squashfs(out))
    keys = {conda_key(package, layout=one, compressor="zstd") for one in (layout, LAYOUT)}
    assert len(keys) == 2


def test_only_byte_code_of_own_modules_is_replaced() -> None:
    paths = {"a/b.py": PathEntry(path="a/b.py"), "c.py": PathEntry(path="c.py")}
    assert is_replaced("a/__pycache__/b.cpython-313.pyc", paths)
    assert is_replaced("a/__pycache__/b.cpython-313.opt-1.pyc", paths)
    assert is_replaced("__pycache__/c.cpython-313.pyc", paths)
    assert not is_replaced("a/__pycache__/other.cpython-313.pyc", paths)
    assert not is_replaced("a/sourceless.pyc", paths)


def test_conda_and_rattler_read_what_is_recorded(written: Written, tmp_path: Path) -> None:
    from rattler import PrefixRecord

    path, package = written(
        Package(
            name="demo",
            depends=("python >=3.9",),
            files={"bin/demo": f"#!{PLACEHOLDER}/x\n", "lib/l": Link("../bin/demo")},
        )
    )
    text = laid_out(path, package).read("opt/env/conda-meta/demo-1.0-0.json")
    assert PLACEHOLDER.encode() not in text and str(tmp_path).encode() not in text
    kept = tmp_path / "demo-1.0-0.json"
    kept.write_bytes(text)
    record = PrefixRecord.from_path(kept)
    assert (record.name.normalized, str(record.version), str(record.build)) == ("demo", "1.0", "0")
    assert [str(file) for file in record.files] == ["bin/demo", "lib/l"]
    rows = {row["_path"]: row for row in json.loads(text)["paths_data"]["paths"]}
    done = hashlib.sha256(b"#!/opt/env/x\n").hexdigest()
    assert rows["bin/demo"]["sha256_in_prefix"] == done
    assert rows["lib/l"]["path_type"] == "softlink"


def test_packages_come_after_what_they_need_even_in_circles() -> None:
    def one(name: str, *depends: str) -> CondaPackage:
        return msgspec.structs.replace(PYTHON, name=name, depends=depends)

    packages = (one("a", "python >=3"), one("python", "pip", "z"), one("pip", "python"), one("z"))
    for order in (packages, packages[::-1]):
        assert [p.name for p in sort_packages(order)] == ["pip", "z", "python", "a"]


# ---- bad archives --------------------------------------------------------------------------------


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(name: str, data: bytes = b"", *, kind: bytes = b"", link: str = "") -> Any:
    info = tarfile.TarInfo(name)
    if kind:
        info.type, info.linkname = kind, link
    return info, data


def bad_package(folder: Path, *members: Any, listed: list[str]) -> tuple[Path, CondaPackage]:
    package = Package(name="bad", extension=".tar.bz2")
    index = {"name": "bad", "version": "1.0", "build": "0", "subdir": SUBDIR}
    paths = [{"_path": path, "path_type": "hardlink"} for path in listed]
    path = folder / SUBDIR / "bad-1.0-0.tar.bz2"
    path.parent.mkdir()
    path.write_bytes(
        bz2.compress(
            tar_of(
                member("info/index.json", json.dumps(index).encode()),
                member(
                    "info/paths.json", json.dumps({"paths_version": 1, "paths": paths}).encode()
                ),
                *members,
            )
        )
    )
    return path, package_of(path, package)


@pytest.mark.parametrize(
    ("members", "listed", "why"),
    [
        ([member("../evil", b"x")], [], "'../evil' points outside"),
        ([member("/etc/evil", b"x")], [], "'/etc/evil' points outside"),
        ([member("ok", b"x")], ["ok", "lib/../../evil"], "points outside"),
        ([member("l", kind=tarfile.SYMTYPE, link="../../etc")], ["l"], "leads out of the prefix"),
        ([member("l", kind=tarfile.SYMTYPE, link="/etc/passwd")], ["l"], "leads out of the prefix"),
        ([member("l", kind=tarfile.LNKTYPE, link="../../x")], ["l"], "leads to '../../x'"),
        ([member("d", kind=tarfile.CHRTYPE)], ["d"], "neither a file"),
        ([], ["bin/absent"], "does not hold 'bin/absent'"),
    ],
)
def test_hostile_and_broken_packages_are_refused(
    tmp_path: Path, members: list[Any], listed: list[str], why: str
) -> None:
    with pytest.raises(BuildError, match=r"bad-1\.0-0\.tar\.bz2 is no valid conda") as caught:
        laid_out(*bad_package(tmp_path, *members, listed=listed))
    assert why in caught.value.why


def test_a_hard_link_is_the_same_file(tmp_path: Path) -> None:
    image = laid_out(
        *bad_package(
            tmp_path,
            member("bin/a", b"data"),
            member("bin/b", kind=tarfile.LNKTYPE, link="bin/a"),
            listed=["bin/a", "bin/b"],
        )
    )
    assert image.find("opt/env/bin/a") is image.find("opt/env/bin/b")


@pytest.mark.parametrize("extension", [".conda", ".tar.bz2"])
@pytest.mark.parametrize("part", [0.2, 0.7, 0.99])
def test_a_package_that_was_published_truncated_is_refused(
    written: Written, extension: Any, part: float
) -> None:
    path, package = written(
        Package(
            name="cut",
            extension=extension,
            files={"lib/big": hashlib.shake_128(b"").digest(200_000)},
        )
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(BuildError, match=r"cut-1\.0-0.* is no valid conda package"):
        laid_out(path, package)


def test_damaged_data_in_a_sound_zip_are_refused(written: Written) -> None:
    path, package = written(Package(name="cut", files={"lib/big": b"x" * 9000}))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data[:-9] if name.startswith("pkg-") else data)
    with pytest.raises(BuildError, match="no valid conda package"):
        laid_out(path, package)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"name": "other"}, "holds name demo, but the lock says other"),
        ({"version": "2.0"}, "holds version 1.0, but the lock says 2.0"),
        ({"subdir": "linux-ppc64le"}, "but the lock says linux-ppc64le"),
    ],
)
def test_another_package_than_the_locked_one_is_refused(
    written: Written, changed: dict[str, str], why: str
) -> None:
    path, package = written(Package(name="demo", files={"x": "x"}))
    with pytest.raises(BuildError) as caught:
        laid_out(path, msgspec.structs.replace(package, **changed))
    assert why in caught.value.why
