"""A base whose Python was shipped without byte code, as the official `python` images are."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from limpet.actions.assemble import open_root
from limpet.formats.sif import SifWriter, read_sif
from limpet.formats.squashfs import Entry, Source, Squashfs, compose, write_squashfs
from tests.build.workshop import Workshop
from tests.conftest import Base

pytestmark = pytest.mark.real

BARE = """
[image]
post = "find /usr/lib/python3.13 -name '*.pyc' -delete"
"""
CODE = "usr/lib/python3.13/json/__pycache__/decoder.cpython-313.pyc"
# What was opened of the standard library to import it, and how many modules of it there are.
COUNT = """
import sys
opened = []
def note(event, arguments):
    if event == "open" and str(arguments[0]).startswith("/usr/lib/python3"):
        opened.append(arguments[0])
sys.addaudithook(note)
import json, argparse, decimal, email.message, tree
print(sum(path.endswith(".py") for path in opened), json.__cached__, tree.answer)
"""


def test_byte_code_that_a_base_lacks_is_compiled_once(workshop: Workshop) -> None:
    workshop.add_wheel("tree", {"tree/__init__.py": "import json\nanswer = 42\n"})
    recipe = workshop.describe(BARE, "tree")
    image = workshop.build(recipe)
    with image.open("rb") as file:
        root = open_root(file)
        node = root.find(CODE)
        assert node and root.read(node)[4:8] == b"\1\0\0\0"
        tests = root.find("usr/lib/python3.13/test/__pycache__")
        assert not (tests and tests.children)
        assert root.find("usr/lib/python3.13/json").mode == 0o755  # type: ignore[union-attr]
    assert workshop.python(image, COUNT) == f"0 /{CODE.replace('decoder', '__init__')} 42"

    again = workshop.try_build(recipe, "--force")
    assert again.returncode == 0, again.stderr
    assert "byte code" not in again.stderr


def test_it_is_imported_from_the_archive(workshop: Workshop) -> None:
    workshop.add_wheel("tree", {"tree/__init__.py": "import json\nanswer = 42\n"})
    image = workshop.build(workshop.describe(BARE, "tree"))
    code = "import tree, json.decoder as d; print('get_code' in vars(d.__loader__))"
    state = workshop.folder / "state"
    state.mkdir(mode=0o700)
    words = workshop.words("run", image, "python", "-c", code)
    done = workshop.run(words, LIMPET_STATE_DIR=str(state))
    assert done.stdout.strip() == "True", done.stderr


def hold_against_source(base: Path, target: Path) -> None:
    """The same base with a module's byte code as Debian ships it: held against its source."""
    with base.open("rb") as file, target.open("w+b") as out:
        root = open_root(file)
        node = root.find(CODE)
        assert node
        data = root.read(node)
        checked = BytesIO()
        write_squashfs(checked, [Entry(CODE, "file", content=data[:4] + b"\3\0\0\0" + data[8:])])
        writer = SifWriter(out, arch=read_sif(file).arch, ident=bytes(16))
        with writer.partition("root") as partition:
            compose(partition, [Source(root), Source(Squashfs(checked))])
        writer.finish()


def test_byte_code_that_is_held_against_its_source_is_compiled_too(
    workshop: Workshop, debian_base: Base
) -> None:
    base = workshop.folder / "base.sif"
    hold_against_source(debian_base.sif, base)
    workshop.base, workshop.cache = str(base), workshop.folder / "cache"
    workshop.add_wheel("tree", {"tree/__init__.py": "import json\nanswer = 42\n"})
    recipe = workshop.require("tree")
    assert "once for this base (modules: 1)" in workshop.try_build(recipe).stderr
    assert "once for this base" not in workshop.try_build(recipe, "--force").stderr
    image = workshop.image
    with base.open("rb") as before, image.open("rb") as after:
        old, new = open_root(before), open_root(after)
        assert old.read(CODE)[4:8] == b"\3\0\0\0" and new.read(CODE)[4:8] == b"\1\0\0\0"
        other = CODE.replace("decoder", "encoder")
        assert old.read(other) == new.read(other)
    assert workshop.python(image, COUNT).startswith("0 ")


def test_a_base_that_lacks_nothing_gets_nothing(workshop: Workshop, debian_base: Base) -> None:
    workshop.add_wheel("tree", {"tree/__init__.py": "answer = 42\n"})
    image = workshop.build(workshop.require("tree"))
    names = []
    for path in (image, debian_base.sif):
        with path.open("rb") as file:
            found = open_root(file).walk()
            names.append({name for name, _ in found if name.startswith("usr/lib/python3.13")})
    assert names[0] == names[1]
