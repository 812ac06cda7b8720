"""`limpet bench` of a small virtual environment and a small image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.keep.test_keep_real import wait_until_gone
from tests.personal.conftest import User, images, user, wheels

__all__ = ["images", "user", "wheels"]

pytestmark = pytest.mark.real

MODULES = 40


@pytest.fixture
def venv(user: User) -> Path:
    """With a package of so many modules, of which the first imports all."""
    place = user.folder / "env ä"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    [site] = place.glob("lib/python*/site-packages")
    package = site / "many"
    package.mkdir()
    names = [f"m{number}" for number in range(MODULES)]
    for name in names:
        (package / f"{name}.py").write_text(f"value = {name!r}\n")
    (package / "__init__.py").write_text("".join(f"from . import {name}\n" for name in names))
    return place


def told(user: User, *words: str | Path, **more: str) -> dict[str, Any]:
    done = user.limpet("bench", *words, "--json", env=more)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_an_image_and_a_folder_are_counted_and_timed(
    user: User, venv: Path, images: dict[str, Path]
) -> None:
    picture = user.folder / "picture.svg"
    words = ("--import", "json", "--rounds", "2", "--processes", "2", "-o", picture)
    cache = user.folder / "cache"
    found = told(user, images["one"], venv, *words, LIMPET_CACHE_DIR=str(cache))
    image, folder = found["targets"]
    assert (image["kind"], folder["kind"]) == ("image", "folder")
    assert image["counted"]["files"] == 1
    assert 1 <= image["counted"]["metadata"] <= 20
    # Python and what it imports lie in the image, and are read through FUSE where it is mounted so.
    size_bytes = images["one"].stat().st_size
    assert image["counted"]["reads"] is None or image["counted"]["reads"] > 20
    assert image["counted"]["reads"] is None or image["counted"]["read_bytes"] < 2 * size_bytes
    ways = {(one["way"], one["state"], one["processes"]) for one in found["starts"]}
    names = ("runtime", "limpet run", "launcher", "folder")
    assert ways == {(way, s, n) for way in names for s in ("cold", "warm") for n in (1, 2)} | {
        ("kept", "warm", 1),
        ("kept", "warm", 2),
    }
    assert all(one["taken"]["rounds"] == 2 for one in found["starts"])
    assert all(one["taken"]["least_s"] > 0 for one in found["starts"])
    assert image["dropped"]["size_bytes"] == size_bytes
    assert image["dropped"]["left_bytes"] < size_bytes
    ET.fromstring(picture.read_text())
    # Nothing is left over: no mount, no launchers, and what kept the image is let go.
    wait_until_gone(images["one"])
    assert json.loads(user.said("kept", "list", "--json")) == {"kept": []}
    assert not [path for path in (cache / "tmp").glob("*") if path.name != ".lock"]


def test_without_a_word_the_packages_that_were_asked_for_are_imported(
    user: User, venv: Path, images: dict[str, Path]
) -> None:
    pip = [sys.executable, "-m", "pip", "-q", "--python", str(venv / "bin/python"), "install"]
    subprocess.run([*pip, "framework==1.0", "plain==1.0"], check=True, env=user.env())
    few = ("--rounds", "1", "--processes", "1")
    alone = told(user, venv, *few)
    assert alone["imports"] == ["framework", "plain"]  # and not helper, which they brought
    assert alone["chosen_from"] == str(venv)
    # The image has framework and helper by name; the folder has these too.
    both = told(user, images["one"], venv, *few)
    assert both["imports"] == ["framework", "helper"]
    text = user.said("bench", images["one"], *few)
    assert "import framework, helper" in text
    assert f"what {images['one']} was made for" in text


def test_what_was_kept_before_is_still_kept(user: User, images: dict[str, Path]) -> None:
    user.said("run", "--keep", images["one"], "true")
    before = json.loads(user.said("kept", "list", "--json"))
    words = ("--import", "json", "--rounds", "1", "--processes", "1")
    found = told(user, images["one"], *words)
    assert "kept" in {one["way"] for one in found["starts"]}
    assert json.loads(user.said("kept", "list", "--json")) == before
    user.said("kept", "end")


def test_a_folders_start_is_counted_with_strace_and_without(user: User, venv: Path) -> None:
    words = (venv, "--import", "many", "--rounds", "1", "--processes", "16")
    [by_strace] = told(user, *words)["targets"]
    [by_python] = (answer := told(user, *words, PATH="/nowhere"))["targets"]
    assert by_strace["counted"]["means"] == "strace"
    assert by_python["counted"]["means"] == "python"
    for counted in (by_strace["counted"], by_python["counted"]):
        assert counted["files"] > MODULES
        # A look for each module's source, and its byte code opened.
        assert counted["metadata"] > 2 * MODULES
    assert any("strace is not here" in note for note in by_python["notes"])
    [saving] = answer["savings"]
    assert saving["processes"] == 16
    assert saving["folder_operations"] == 16 * by_python["counted"]["metadata"]
    assert saving["command"] == ["limpet", "pack", str(venv), "-o", f"{venv}.sif"]


def test_the_table_says_what_one_file_would_save(user: User, venv: Path) -> None:
    text = user.said("bench", venv, "--import", "json", "--rounds", "1", "--processes", "1")
    assert "for one start" in text
    assert "only root can drop these" in text
    assert f"limpet pack '{venv}'" in text


def test_what_an_import_prints_is_in_nobodys_way(user: User, venv: Path) -> None:
    [package] = venv.glob("lib/python*/site-packages/many")
    loud = "import sys\nprint('{}')\nsys.stderr.write('x' * 300_000)\n"
    (package.parent / "loud.py").write_text(loud)
    words = ("--import", "loud", "--rounds", "1", "--processes", "2")
    [target] = told(user, venv, *words)["targets"]
    assert target["counted"]["files"] >= 1


@pytest.mark.parametrize("kind", ["image", "folder"])
def test_an_import_that_fails_ends_it(
    kind: str, user: User, venv: Path, images: dict[str, Path]
) -> None:
    place = images["one"] if kind == "image" else venv
    done = user.limpet("bench", place, "--import", "no_such_module")
    assert done.returncode == (8 if kind == "image" else 9)
    assert "No module named 'no_such_module'" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_targets_are_refused(user: User, images: dict[str, Path]) -> None:
    empty = user.folder / "empty"
    empty.mkdir()
    done = user.limpet("bench", empty, "--import", "json")
    assert done.returncode == 2
    assert "has no Python of its own" in done.stderr
    done = user.limpet("bench", user.folder / "none.sif", "--import", "json")
    assert (done.returncode, "There is no image" in done.stderr) == (8, True)
    done = user.limpet("bench", images["foreign"])
    assert (done.returncode, "nothing to import" in done.stderr) == (2, True)
    (user.folder / "there.svg").touch()
    done = user.limpet("bench", images["one"], "--import", "json", "-o", "there.svg")
    assert done.returncode == 11


def test_an_image_of_another_architecture_is_refused(user: User, images: dict[str, Path]) -> None:
    other = user.folder / "other.sif"
    data = bytearray(images["one"].read_bytes())
    ours = {"x86_64": b"02", "aarch64": b"04"}[os.uname().machine]
    theirs = b"04" if ours == b"02" else b"02"
    assert data[45:47] == ours  # the header: 32 bytes to start it, 10 of magic, 3 of version
    data[45:47] = theirs
    other.write_bytes(data)
    done = user.limpet("bench", other, "--import", "json")
    assert done.returncode == 8, done.stderr
    assert "this machine is" in done.stderr
