"""Real images whose Python imports from the module archive, and when it must not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from limpet.actions.assemble import open_root
from limpet.core.module_archive import ARCHIVE, INDEX
from tests.build.conftest import copy_workshop
from tests.build.workshop import Workshop

pytestmark = pytest.mark.real

SITE = "/opt/env/lib/python3.13/site-packages"
TREE = {
    "tree/__init__.py": "from tree import used\n",
    "tree/used.py": "import json\n\nanswer = 42\n",
    "tree/data.txt": "text\n",
    **{f"tree/part{i}.py": f"x = {i}\n" for i in range(20)},
    **{f"tree/idle{i}.py": f"x = {i}\n" for i in range(5)},
}
TREE["tree/__init__.py"] += "".join(f"from tree import part{i}\n" for i in range(20))
# How many modules were opened one by one, and how many came from the archive.
COUNT = """
import sys
opened = []
def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith((".pyc", ".py")):
        opened.append(arguments[0])
sys.addaudithook(note)
import tree
ours = ["get_code" in vars(m.__loader__) for n, m in sys.modules.items() if n.startswith("tree")]
print(len(opened), ours.count(True), tree.used.answer)
"""
SHOW = "import tree; print(tree.used.answer, 'get_code' in vars(tree.used.__loader__))"


@pytest.fixture
def image(workshop: Workshop) -> Path:
    workshop.add_wheel("tree", TREE)
    return workshop.build(workshop.require("tree"))


def start(workshop: Workshop, image: Path, code: str, *words: str | Path, **env: str) -> str:
    """`limpet run` of a program in Python."""
    state = workshop.folder / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    argv = workshop.words("run", *words, image, "python", "-c", code)
    done = workshop.run(argv, cwd=None, LIMPET_STATE_DIR=str(state), **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_start_opens_no_module(workshop: Workshop, image: Path) -> None:
    assert start(workshop, image, COUNT) == "0 22 42"
    with image.open("rb") as file:
        squashfs = open_root(file)
        found = squashfs.find(f"{SITE}/tree/__pycache__/used.cpython-313.pyc")
        archive = squashfs.find(ARCHIVE)
        assert found and archive and squashfs.read(found) in squashfs.read(archive)


def test_a_bare_start_gives_the_image_as_it_was_built(workshop: Workshop, image: Path) -> None:
    opened, from_archive, answer = workshop.python(image, COUNT).split()
    assert int(opened) >= 22 and (from_archive, answer) == ("0", "42")


def test_launchers_and_what_programs_start_use_it(workshop: Workshop, image: Path) -> None:
    state = workshop.folder / "state"
    state.mkdir(mode=0o700)
    folder = workshop.folder / "launchers"
    done = workshop.run(workshop.words("wrap", image, folder), LIMPET_STATE_DIR=str(state))
    assert done.returncode == 0, done.stderr
    code = (
        "import subprocess, sys; "
        f"print(subprocess.run([sys.executable, '-I', '-c', {SHOW!r}], capture_output=True, "
        "text=True).stdout)"
    )
    done = workshop.run([folder / "bin/python", "-c", code], LIMPET_STATE_DIR=str(state))
    assert done.stdout.strip() == "42 True", done.stderr
    code = (
        "import multiprocessing as m, operator\n"
        "if __name__ == '__main__':\n"
        "    with m.get_context('spawn').Pool(1) as pool:\n"
        "        import tree\n"
        "        print(pool.map(tree.used.json.loads, ['[1]']))\n"
    )
    script = workshop.write("spawn.py", code)
    done = workshop.run([folder / "bin/python", script], LIMPET_STATE_DIR=str(state))
    assert done.stdout.strip() == "[[1]]", done.stderr


def test_what_lies_over_a_module_is_seen(workshop: Workshop, image: Path, tmp_path: Path) -> None:
    changed = workshop.write("changed.py", "answer = 43\n")
    bind = f"{changed}:{SITE}/tree/used.py"
    # The byte code beside it is never checked, so it is covered as well.
    empty = workshop.folder / "empty"
    empty.mkdir()
    cover = f"{empty}:{SITE}/tree/__pycache__"
    wanted = "43 False"
    assert start(workshop, image, SHOW, "--bind", bind, "--bind", cover) == wanted
    assert start(workshop, image, SHOW, APPTAINER_BIND=f"{bind},{cover}") == wanted
    assert start(workshop, image, SHOW) == "42 True"


def test_what_an_overlay_changes_is_seen(workshop: Workshop, image: Path) -> None:
    overlay = workshop.folder / "over"
    done = workshop.run(workshop.words("overlay", "create", image, overlay, "--dir"))
    assert done.returncode == 0, done.stderr
    change = f"open('{SITE}/tree/new.py', 'w').write('x = 1')"
    start(workshop, image, change, "--overlay", overlay)
    assert start(workshop, image, "import tree.new; print(tree.new.x)", "--overlay", overlay) == "1"
    done = workshop.run(workshop.words("run", image, "python", "-c", "import tree.new"))
    assert "ModuleNotFoundError" in done.stderr


def test_tools_see_an_installation_like_any_other(workshop: Workshop, image: Path) -> None:
    code = """
import importlib.metadata, importlib.resources, inspect, pkgutil, runpy, tree, tree.used
print(len(list(pkgutil.iter_modules(tree.__path__))))
print(inspect.getsource(tree.used).splitlines()[-1])
print(importlib.resources.files("tree").joinpath("data.txt").read_text().strip())
print(importlib.metadata.version("tree"))
print(runpy.run_module("tree.used")["answer"])
print(tree.used.__file__, tree.used.__cached__, type(tree.used.__loader__))
"""
    lines = start(workshop, image, code).splitlines()
    bare = workshop.python(image, code).splitlines()
    assert lines == bare
    assert lines[:3] == ["26", "answer = 42", "text"]


def test_an_image_without_an_order_has_none(workshop: Workshop) -> None:
    workshop.add_wheel("tree", TREE)
    recipe = workshop.require("tree")
    for flag in ("--no-profile", "--small"):
        image = workshop.build(recipe, flag, "--force")
        with image.open("rb") as file:
            squashfs = open_root(file)
            assert not squashfs.find(ARCHIVE) and not squashfs.find(INDEX)
        assert start(workshop, image, SHOW) == "42 False"


def test_the_same_lock_gives_the_same_archive(workshop: Workshop, image: Path) -> None:
    first = image.read_bytes()
    again = copy_workshop(workshop, "again", cache="elsewhere")
    assert again.build(again.require("tree")).read_bytes() == first


def test_it_takes_no_room_where_files_are_counted(workshop: Workshop, image: Path) -> None:
    bare = workshop.out / "bare.sif"
    workshop.build(workshop.require("tree"), "--no-profile", "-o", str(bare))
    with image.open("rb") as file:
        archive = open_root(file).find(ARCHIVE)
        assert archive
    sizes = []
    for one in (image, bare):
        told = workshop.run(workshop.words("inspect", "--json", one))
        software = json.loads(told.stdout)["contents"]["software"]
        sizes.append(sum(package["size_bytes"] for package in software))
    assert 0 <= sizes[0] - sizes[1] < min(archive.size_bytes, 100_000)  # index and hook


def test_it_is_no_part_of_a_container_layer(workshop: Workshop, image: Path) -> None:
    layout = workshop.folder / "layout"
    done = workshop.run(workshop.words("export", image, "--to", "oci", "-o", layout))
    assert done.returncode == 0, done.stderr
    names = subprocess.run(
        f"for f in {layout}/blobs/sha256/*; do tar -tf $f 2>/dev/null; done",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert f"{SITE}/tree/used.py".lstrip("/") in names
    assert "/.limpet/modules" not in names
