"""Folders packed by the command, and used from their image after they have gone."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from limpet.core.pylock import parse_lock
from limpet.tools.files import hash_file, hash_tree
from tests.conda.conftest import channel  # noqa: F401 - a fixture
from tests.conftest import Base, Limpet
from tests.pack.conftest import install_conda, make_tool, make_venv
from tests.pieces.conftest import MakeWheel

pytestmark = pytest.mark.real

Packed = Callable[..., "dict[str, object]"]


@pytest.fixture
def packed(limpet: Limpet, debian_base: Base) -> Packed:
    """`packed(prefix, image, *flags)`: the command's result, as its JSON says it."""

    def pack(prefix: Path, image: Path, *flags: str | Path) -> dict[str, object]:
        words = ["pack", prefix, "-o", image, "--base", debian_base.reference, "--json", *flags]
        done = limpet(*words)
        assert done.returncode == 0, done.stderr
        result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])["result"]
        return result

    return pack


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """The folder is not at its place for a while."""
    elsewhere = folder.with_name(f"{folder.name} away")
    folder.rename(elsewhere)
    try:
        yield
    finally:
        if folder.exists():  # where an image was mounted
            folder.rmdir()
        elsewhere.rename(folder)


def codes(result: dict[str, object]) -> set[str]:
    return {finding["code"] for finding in result["findings"]}  # type: ignore[attr-defined]


def out_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_conda_environment(
    conda_original: Path,
    packed: Packed,
    limpet: Limpet,
    make_wheel: MakeWheel,
    tmp_path: Path,
) -> None:
    prefix = tmp_path / "env ä"
    image = tmp_path / "conda.sif"
    # At another place than it was made for, as conda's own tools would not: links and texts are
    # as they are, and Python finds itself.
    shutil.copytree(conda_original, prefix, symlinks=True)
    changed = prefix / "lib/python3.13/site-packages/greeter/__init__.py"
    changed.write_text(changed.read_text("utf-8") + "\nCHANGED = 1\n", encoding="utf-8")
    before = hash_tree(prefix)
    result = packed(prefix, image, "--wrap", tmp_path / "launchers", "-e", "OWN=of the image")
    assert hash_tree(prefix) == before
    assert codes(result) >= {"pack/changed-file"}
    (finding,) = (f for f in result["findings"] if f["code"] == "pack/changed-file")  # type: ignore[attr-defined]
    assert finding["evidence"] == [str(changed)]
    script = (
        "import greeter, os, sys\n"
        "print(sys.prefix, greeter.CHANGED, os.environ['CONDA_PREFIX'], os.environ['OWN'])\n"
        "print(os.environ['ACTIVATED_HOME'])\n"
        "print(open(greeter.__cached__, 'rb').read(8)[4:])"
    )
    with away(prefix):
        said = out_of(limpet("run", image, "python", "-c", script)).splitlines()
        launcher = tmp_path / "launchers/bin/python"
        home = {**os.environ, "HOME": str(tmp_path / "home")}
        again = subprocess.run(
            [launcher, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=home
        )
        out_of(limpet("pip", image, "install", make_wheel({"demo.py": b""})))
        out_of(limpet("run", image, "python", "-c", "import demo, greeter"))
    assert said[0] == f"{prefix} 1 {prefix} of the image"
    assert said[1] == f"{prefix}/share/activated"
    assert said[2] == r"b'\x01\x00\x00\x00'"
    assert out_of(again).splitlines() == said
    out_of(limpet("lock", "--freeze", image, "-o", tmp_path / "pylock.toml"))
    lock = parse_lock((tmp_path / "pylock.toml").read_text("utf-8"), "it")
    assert {one.name for one in lock.conda} >= {"python", "greeter", "openssl"}
    assert all(one.sha256 for one in lock.conda)
    built = limpet("build", tmp_path / "pylock.toml", "-o", tmp_path / "again.sif")
    assert built.returncode == 4
    assert "Nothing can be built from this lock" in built.stderr


def test_a_whole_miniconda(
    channel: Path,  # noqa: F811
    packed: Packed,
    limpet: Limpet,
    tmp_path: Path,
) -> None:
    """Two environments, and the package cache whose files they share, at the same place."""
    prefix, image = tmp_path / "miniconda3", tmp_path / "conda.sif"
    cache = prefix / "pkgs"
    second = prefix / "envs" / "sécond"
    install_conda(channel, prefix, cache)
    install_conda(channel, second, cache, ["python", "greeter"])
    (prefix / "condabin").mkdir()
    (prefix / "condabin/conda").write_text("#!/bin/sh\necho of the base\n", encoding="utf-8")
    (prefix / "condabin/conda").chmod(0o755)
    there: dict[int, list[str]] = {}
    for folder, _, names in os.walk(prefix):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                there.setdefault(path.stat().st_ino, []).append(str(path))
    shared = next(
        paths for paths in there.values() if sum(not p.startswith(str(cache)) for p in paths) == 2
    )
    assert any(path.startswith(str(cache)) for path in shared)
    result = packed(prefix, image, "--wrap", tmp_path / "launchers")
    assert codes(result) >= {"pack/package-cache"}
    assert not codes(result) & {"pack/changed-file", "pack/missing-file"}
    script = "import greeter, os, sys; print(sys.prefix, os.environ['CONDA_DEFAULT_ENV'])"
    same = f"import os, sys; print(len({{os.stat(path).st_ino for path in {shared!r}}}))"
    with away(prefix):
        assert out_of(limpet("run", image, "python", "-c", script)) == f"{prefix} base\n"
        inner = out_of(limpet("run", image, second / "bin/python", "-c", script))
        assert inner.split()[0] == str(second)
        assert out_of(limpet("run", image, prefix / "condabin/conda")) == "of the base\n"
        assert out_of(limpet("run", image, "python", "-c", same)) == "1\n"
        home = {**os.environ, "HOME": str(tmp_path / "home")}
        launcher = tmp_path / "launchers/bin/python"
        done = subprocess.run(
            [launcher, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=home
        )
        assert out_of(done) == f"{prefix} base\n"
    lock = limpet("lock", "--freeze", image, "-o", tmp_path / "pylock.toml")
    out_of(lock)
    found = parse_lock((tmp_path / "pylock.toml").read_text("utf-8"), "it")
    places = {one.place for one in found.found}
    assert str(second) in places
    assert not any(place.startswith(str(cache)) for place in places)


def test_a_virtual_environment_and_its_python(
    own_python: Path,
    make_wheel: MakeWheel,
    packed: Packed,
    limpet: Limpet,
    tmp_path: Path,
) -> None:
    current = tmp_path / "current"
    current.symlink_to(own_python)
    venv, image = tmp_path / "my venv", tmp_path / "venv.sif"
    wheel = make_wheel({"demo/__init__.py": b"VALUE = 1\n", "demo/other.py": b"VALUE = 2\n"})
    known = make_wheel({"known.py": b""}, name="known")
    make_venv(current / "bin/python", venv, wheel, known)
    (site,) = venv.glob("lib/python3.*/site-packages")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([venv / "bin/python", "-c", "import demo.other"], check=True, env=env)
    changed = site / "demo/other.py"
    changed.write_text("VALUE = 33\n", encoding="utf-8")  # its byte code is stale now
    info = site / "demo-1.0.dist-info"
    direct = {"url": (tmp_path / "sources").as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(direct), encoding="utf-8")
    # What pip notes of a wheel that it is given by its path; uv leaves the hash out.
    noted = {"url": known.as_uri(), "archive_info": {"hashes": {"sha256": hash_file(known)}}}
    (site / "known-1.0.dist-info/direct_url.json").write_text(json.dumps(noted), encoding="utf-8")
    (tmp_path / "sources").mkdir()
    with (info / "RECORD").open(encoding="utf-8", newline="") as file:
        assert any(row[0] == "demo/other.py" for row in csv.reader(file))
    result = packed(venv, image, "--layout", "layered")
    assert codes(result) >= {"pack/changed-file", "pack/editable", "pack/unlocked"}
    assert result["byte_code"]["rewritten"] >= 1  # type: ignore[index]
    assert result["byte_code"]["stale"] == 1  # type: ignore[index]
    trees = [tree["place"] for tree in result["plan"]["trees"]]  # type: ignore[index]
    assert trees == [str(venv), str(own_python)]
    script = (
        "import os, sys, demo.other; print(sys.prefix); print(demo.VALUE, demo.other.VALUE)\n"
        "print(sys.base_prefix, os.environ['VIRTUAL_ENV'])\n"
        "print(open(demo.__cached__, 'rb').read(8)[4:], os.path.exists(demo.other.__cached__))"
    )
    with away(venv), away(own_python):
        said = out_of(limpet("run", image, "python", "-c", script)).splitlines()
    assert said[:2] == [str(venv), "1 33"]
    assert said[2].split(" /")[0] in (str(own_python), str(current))
    assert said[2].endswith(str(venv))
    assert said[3] == r"b'\x01\x00\x00\x00' True"
    listed = out_of(limpet("inspect", image))
    assert re.search(r"demo +1\.0", listed)
    lock = parse_lock(out_of(limpet("inspect", "--lock", image)), "it")
    found = {one.name: one for one in lock.found}
    assert (found["known"].sha256, found["known"].installer) == (hash_file(known), "uv")
    assert (found["known"].url, found["demo"].sha256) == ("", "")
    assert hash_file(known) in out_of(limpet("inspect", "--sbom", image))
    (unlocked,) = (f for f in result["findings"] if f["code"] == "pack/unlocked")  # type: ignore[attr-defined]
    assert unlocked["evidence"] == ["demo 1.0 (pypi)"]


def test_a_tool_without_python(packed: Packed, limpet: Limpet, tmp_path: Path) -> None:
    folder, image = make_tool(tmp_path / "spack, ä/a tool's"), tmp_path / "tool.sif"
    os.mkfifo(folder / "pipe")
    (folder / "nowhere").symlink_to("does/not/exist")
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("of the other\n", encoding="utf-8")
    (folder / "outside").symlink_to(other / "file")
    result = packed(folder, image)
    assert codes(result) == {
        *("pack/special-file", "pack/dangling-link", "pack/outside-link", "pack/unlocked"),
        *("pack/sparse", "pack/modes"),
    }
    assert "pack/outside-link" not in codes(packed(folder, image, "--force", "--also", other))
    wrapped = tmp_path / "launchers"
    out_of(limpet("wrap", image, wrapped))
    assert sorted(path.name for path in (wrapped / "bin").iterdir()) == ["same", "tool"]
    home = {**os.environ, "HOME": str(tmp_path / "home")}
    with away(folder), away(other):
        assert out_of(limpet("run", image, "tool")) == "said by the tool\n"
        assert out_of(limpet("run", image, "cat", folder / "outside")) == "of the other\n"
        done = subprocess.run(
            [wrapped / "bin/tool"], capture_output=True, text=True, cwd=tmp_path, env=home
        )
        assert out_of(done) == "said by the tool\n"
    bill = json.loads(out_of(limpet("inspect", image, "--sbom")))
    assert "pkg:generic/greeting@1.3" in {one.get("purl") for one in bill["components"]}


def test_the_same_folder_gives_the_same_image(packed: Packed, tmp_path: Path) -> None:
    folder = make_tool(tmp_path / "tool")
    packed(folder, tmp_path / "one.sif", "--name", "it")
    packed(folder, tmp_path / "two.sif", "--name", "it")
    assert (tmp_path / "one.sif").read_bytes() == (tmp_path / "two.sif").read_bytes()


def test_a_plan_changes_nothing(packed: Packed, tmp_path: Path) -> None:
    folder = make_tool(tmp_path / "tool")
    result = packed(folder, tmp_path / "image.sif", "--dry-run")
    assert result["size_bytes"] == 0
    assert result["plan"]["trees"][0]["files"] == 7  # type: ignore[index]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "tool"]


def test_what_the_import_check_sees(
    conda_original: Path, packed: Packed, limpet: Limpet, tmp_path: Path
) -> None:
    image = tmp_path / "conda.sif"
    packed(conda_original, image)
    assert "all work" in out_of(limpet("check", image, "--imports", "greeter"))
