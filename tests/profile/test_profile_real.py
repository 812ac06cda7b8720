"""Real builds with a profile, and every way in which one can go wrong."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from limpet.actions.assemble import open_root
from limpet.core import profile
from limpet.core.errors import HostError
from limpet.core.image import AHEAD_OBJECT, Ahead
from limpet.core.request import BuildRequest
from limpet.tools import process
from limpet.tools.images import read_named
from tests.build.conftest import copy_workshop
from tests.build.workshop import Workshop, check_refused
from tests.waiting import wait_until

pytestmark = pytest.mark.real

TREE = {
    "tree/__init__.py": "from tree import used\n",
    "tree/used.py": "answer = 42\n",
    **{f"tree/idle{i}.py": f"x = {'y' * 200 + str(i)!r}\n" for i in range(30)},
}
USED = "/opt/env/lib/python3.13/site-packages/tree/__pycache__/used.cpython-313.pyc"
IDLE = USED.replace("used", "idle7")


def hot(image: Path) -> Ahead:
    data = read_named(image, AHEAD_OBJECT)
    return msgspec.json.decode(data, type=Ahead) if data else Ahead()


def is_hot(image: Path, path: str) -> bool:
    """Whether a small file's block lies in the part that is read first."""
    with image.open("rb") as file:
        squashfs = open_root(file)
        node = squashfs.find(path)
        assert node
        at = squashfs.offset + squashfs.fragment_at(node.fragment)[0]
    return any(start <= at < start + length for start, length in hot(image).ranges)


def place_of(image: Path, path: str) -> int:
    """Where in the image a small file's block lies."""
    with image.open("rb") as file:
        squashfs = open_root(file)
        node = squashfs.find(path)
        assert node
        return squashfs.fragment_at(node.fragment)[0]


def forget(workshop: Workshop) -> None:
    """Remove what the account remembers of the order beside the lock."""
    key = (workshop.folder / "pylock.order").read_text().splitlines()[1].split()[-1]
    (workshop.cache / "orders" / f"{key}.order").unlink()


def paths_of(order: Path) -> list[str]:
    """The files of an order; which blocks of them were read may differ from run to run."""
    return [re.sub(r"^[\d,-]+ /", "/", line) for line in order.read_text().splitlines()]


def test_the_recipes_own_imports_serve_and_the_order_is_kept(workshop: Workshop) -> None:
    workshop.add_wheel("tree", TREE)
    workshop.require("tree")
    # The account's order is that of every recipe that asks for a `tree`: another test's, too.
    workshop = with_empty_pool(workshop)
    recipe = workshop.folder / "requirements.in"
    first = workshop.build(recipe, "--profile", "auto").read_bytes()
    assert is_hot(workshop.image, USED) and not is_hot(workshop.image, IDLE)
    assert workshop.python(workshop.image, "import tree; print(tree.used.answer)") == "42"
    order = workshop.folder / "pylock.order"
    assert order.read_text().splitlines().count(USED) == 1

    again = workshop.try_build(recipe, "--force")
    assert again.returncode == 0 and "profile: " not in again.stderr
    assert workshop.image.read_bytes() == first

    # Neither beside the lock nor in the cache: it is found anew, and is the same.
    text = paths_of(order)
    forget(workshop)
    order.unlink()
    bare = workshop.build(recipe, "--force")
    assert not order.exists() and not is_hot(bare, USED)  # nobody asked, so nobody waits
    found = workshop.try_build(recipe, "--force", "--profile", "auto")
    assert "profile: done" in found.stderr
    assert paths_of(order) == text and is_hot(workshop.image, USED)

    plain = workshop.build(recipe, "--force", "--no-profile")
    assert not hot(plain).ranges
    assert workshop.python(plain, "import tree; print(tree.used.answer)") == "42"


def test_without_a_profile_what_modules_import_comes_first(workshop: Workshop) -> None:
    workshop.add_wheel("tree", TREE)
    recipe = workshop.require("tree")
    done = workshop.try_build(recipe)
    image = workshop.image
    assert done.returncode == 0 and "profile: " not in done.stderr  # nothing was run
    first = image.read_bytes()
    assert place_of(image, USED) < place_of(image, IDLE)
    # It is behind what it imports first, and so is Python's own part of a start.
    encodings = "/usr/lib/python3.13/encodings/__pycache__/__init__.cpython-313.pyc"
    with image.open("rb") as file:
        squashfs = open_root(file)
        nodes = [squashfs.find(path) for path in (encodings, USED, IDLE)]
        places = [(node.fragment, node.offset) for node in nodes if node]
        assert places == sorted(places) and len(set(places)) == 3
    assert not hot(image).ranges and not (workshop.folder / "pylock.order").exists()
    assert workshop.python(image, "import tree; print(tree.used.answer)") == "42"

    assert workshop.build(recipe, "--force").read_bytes() == first
    plain = workshop.build(recipe, "--force", "--no-profile")
    assert plain.read_bytes() != first and place_of(plain, USED) == place_of(plain, IDLE)


def with_empty_pool(workshop: Workshop) -> Workshop:
    """The same description, and a cache with nothing but bases in it."""
    again = copy_workshop(workshop, "again", cache="again-cache")
    (again.cache / "bases").mkdir(parents=True)
    for path in (workshop.cache / "bases").glob("v*"):
        (again.cache / "bases" / path.name).symlink_to(path)
    return again


def test_the_same_order_comes_of_an_emptied_pool(workshop: Workshop) -> None:
    workshop.add_wheel("tree", {**TREE, "tree/used.py": "import json, email.mime.text\n"})
    recipe = workshop.require("tree")
    first = workshop.build(recipe).read_bytes()
    again = with_empty_pool(workshop)
    shutil.copy(workshop.folder / "pylock.toml", again.folder)
    assert again.build(again.folder / recipe.name).read_bytes() == first
    (known,) = (again.cache / "orders").glob("*.modules")
    told = known.read_bytes()
    assert b"email/mime/__pycache__/text." in told
    # Pieces that are all there ask the base's Python on their own.
    for damaged in (b"", b"[1"):
        known.write_bytes(damaged)
        assert again.build(again.folder / recipe.name, "--force").read_bytes() == first
        assert known.read_bytes() == told


def test_one_changed_byte_of_a_module_is_another_order(workshop: Workshop) -> None:
    workshop.add_wheel("tree", {**TREE, "tree/used.py": "import tree.idle7\n"})
    recipe = workshop.require("tree")
    image = workshop.build(recipe)
    other = IDLE.replace("idle7", "idle8")
    assert place_of(image, USED) == place_of(image, IDLE) < place_of(image, other)
    workshop.add_wheel("tree", {**TREE, "tree/used.py": "import tree.idle8\n"})
    (workshop.folder / "pylock.toml").unlink()
    image = workshop.build(recipe, "--force")
    assert place_of(image, USED) == place_of(image, other) < place_of(image, IDLE)


def test_the_bases_byte_code_is_not_held_against_its_source(workshop: Workshop) -> None:
    image = workshop.build(workshop.require("tiny"))
    code = (
        "import sys; seen = []\n"
        "def hook(event, given):\n"
        "    if event == 'open': seen.append(str(given[0]))\n"
        "sys.addaudithook(hook)\n"
        "import email.mime.text, json.tool, sqlite3, xml.dom.minidom\n"
        "print(sum(s.endswith('.pyc') for s in seen), sum(s.endswith('.py') for s in seen))"
    )
    compiled, sources = map(int, workshop.python(image, code).split())
    assert compiled > 20 and sources == 0


def test_an_entry_is_what_counts_and_its_children_do_too(workshop: Workshop) -> None:
    workshop.add_wheel("tree", TREE)
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import tree.idle7'])"
    recipe = workshop.describe(f'[warm]\nentry = """python -c "{code}" """\n', "tree")
    workshop.build(recipe)
    assert is_hot(workshop.image, IDLE)
    layered = workshop.build(recipe, "--force", "--layout", "layered")
    assert hot(layered).ranges


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("exit 3", "exit code 3"),
        ("no-such-program", "not found"),
        ("python -c 'import tree; tree.no'", "AttributeError"),
        ('python -c \'open("/opt/env/new", "w")\'', "Read-only file system"),
    ],
)
def test_a_profile_that_fails_is_told_of(workshop: Workshop, command: str, says: str) -> None:
    workshop.add_wheel("tree", TREE)
    done = workshop.try_build(workshop.require("tree"), "--profile", command)
    check_refused(done, 7, "The profile", says, "--no-profile")
    assert not workshop.image.exists() and not (workshop.folder / "pylock.order").exists()


def test_what_a_profile_writes_is_not_kept(workshop: Workshop) -> None:
    workshop.add_wheel("tree", TREE)
    recipe = workshop.require("tree")
    command = "python -c 'import tree'; echo x > /tmp/left; touch /opt/env/left || true"
    image = workshop.build(recipe, "--profile", command)
    assert is_hot(image, USED)
    with image.open("rb") as file:
        squashfs = open_root(file)
        assert squashfs.find("/tmp/left") is None and squashfs.find("/opt/env/left") is None


@pytest.mark.parametrize("command", ["true", "python -I -S -c pass"])
def test_a_profile_that_opens_nothing_leaves_the_usual_order(
    workshop: Workshop, command: str
) -> None:
    recipe = workshop.require("tiny")
    done = workshop.try_build(recipe, "--profile", command)
    assert done.returncode == 0
    assert "opened no file that Python tells of" in done.stderr
    assert not hot(workshop.image).ranges
    first = workshop.image.read_bytes()
    workshop.build(recipe, "--force", "--no-profile")
    assert workshop.image.read_bytes() == first


def test_a_profile_that_hangs_is_stopped_and_counts(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limpet.actions import profile as runs
    from limpet.actions.build import build

    monkeypatch.setattr(profile, "LIMIT_S", 10)  # it has to come to its reading
    monkeypatch.setattr(runs, "LOOK_EVERY_S", 0.5)
    workshop.add_wheel("tree", {**TREE, "tree/data.bin": TEXT})
    mark = f"limpet-hang-{time.time_ns()}"
    command = f"python -c '{READING}; import tree, time; time.sleep(600)' {mark}"
    said: list[str] = []
    request = BuildRequest(
        recipes=(str(workshop.require("tree")),),
        output=str(workshop.image),
        base=workshop.base,
        profile=command,
        cache_dir=str(workshop.cache),
    )
    build(request, lambda event: said.append(event.message))
    assert any("stopped after 10 s" in message for message in said)
    assert is_hot(workshop.image, USED)
    looks = ["pgrep", "-f", mark]  # what was killed may still be ending
    wait_until(
        lambda: not subprocess.run(looks, capture_output=True, check=False).stdout, timeout_s=30
    )
    read = read_of_data(workshop)
    assert 16 in read and 4 not in read and 30 not in read


def test_an_order_that_is_damaged_is_found_anew(workshop: Workshop) -> None:
    recipe = workshop.require("tiny")
    auto = ("--profile", "auto")
    workshop.build(recipe, *auto)
    order = workshop.folder / "pylock.order"
    kept = order.read_text()
    paths = paths_of(order)
    forget(workshop)
    for text in ("", "junk\n", kept.replace("# for ", "# for x")):
        order.write_text(text)
        workshop.build(recipe, "--force", *auto)
        assert paths_of(order) == paths
        forget(workshop)
    order.unlink()
    order.mkdir()  # it cannot be written: the image is built all the same
    assert "is not kept" in workshop.try_build(recipe, "--force", *auto).stderr


DATA = "/opt/env/lib/python3.13/site-packages/tree/data.bin"
TEXT = "".join(f"{i * i} {i:b}\n" for i in range(200_000)).encode()
BLOCK_BYTES = profile.BLOCK_BYTES
READING = f'file = open("{DATA}"); file.buffer.seek(2 << 20); file.buffer.read(9)'


def read_of_data(workshop: Workshop) -> set[int]:
    """The blocks of DATA that were read, as it is noted."""
    lines = (workshop.folder / "pylock.order").read_text().splitlines()
    (line,) = (one for one in lines if DATA in one)
    return {
        number
        for start, length in profile.parse_notes([DATA, line]).read[DATA]
        for number in range(start // BLOCK_BYTES, (start + length) // BLOCK_BYTES)
    }


def stored(image: Path, path: str) -> list[tuple[int, int]]:
    """Where each block of a file lies in the image's file, and how long it is."""
    with image.open("rb") as file:
        squashfs = open_root(file)
        node = squashfs.find(path)
        assert node
        sizes = [size & 0xFFFFFF for (size,) in struct.iter_unpack("<I", node.blocks)]
        places = itertools.accumulate(sizes, initial=squashfs.offset + node.start)
        return list(zip(places, sizes, strict=False))


@pytest.mark.parametrize("then", ["", "; import os; os.kill(os.getpid(), 9)"])
def test_of_a_large_file_only_what_was_read_counts(workshop: Workshop, then: str) -> None:
    """However the program ends."""
    assert len(TEXT) > 5 << 20
    workshop.add_wheel("tree", {**TREE, "tree/data.bin": TEXT})
    recipe = workshop.require("tree")
    plain = stored(workshop.build(recipe, "--no-profile"), DATA)
    workshop.build(recipe, "--force", "--profile", f"python -c '{READING}{then}' || true")
    read = read_of_data(workshop)
    assert 16 in read and 4 not in read and 30 not in read  # 2 MiB, and what the kernel reads on
    ahead = hot(workshop.image).ranges
    for number, (at, length) in enumerate(stored(workshop.image, DATA)):
        covered = any(start <= at and at + length <= start + size for start, size in ahead)
        assert covered is (number in read), number
        # What is read ahead is compressed harder, and nothing else is.
        assert length < plain[number][1] if number in read else length == plain[number][1]
    code = f"import hashlib; print(hashlib.sha256(open('{DATA}', 'rb').read()).hexdigest())"
    assert workshop.python(workshop.image, code) == hashlib.sha256(TEXT).hexdigest()


def test_harder_compressed_blocks_are_kept(workshop: Workshop) -> None:
    workshop.add_wheel("tree", TREE)
    workshop.require("tree")
    workshop = with_empty_pool(workshop)
    recipe = workshop.folder / "requirements.in"
    first = workshop.build(recipe, "--profile", "auto").read_bytes()
    (blocks,) = (workshop.cache / "orders").glob("*.blocks")
    kept = blocks.read_bytes()
    os.utime(blocks, (0, 0))
    assert workshop.build(recipe, "--force").read_bytes() == first
    assert blocks.stat().st_mtime > 0 and blocks.read_bytes() == kept  # it was taken from there
    for bent in (b"", kept[:-1], kept[:99] + bytes([kept[99] ^ 1]) + kept[100:]):
        blocks.write_bytes(bent)
        assert workshop.build(recipe, "--force").read_bytes() == first
        assert blocks.read_bytes() == kept
    blocks.unlink()
    blocks.mkdir()  # it cannot be written: the image is built all the same
    assert workshop.build(recipe, "--force").read_bytes() == first


def test_a_slow_uncached_image_is_read_ahead(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    slowfs = importlib.import_module("slowfs")
    workshop.add_wheel("tree", TREE)
    workshop.build(workshop.require("tree"), "--profile", "auto")
    program = slowfs.build_slowfs(tmp_path / "bench")
    with slowfs.slow_view(program, workshop.out, delay_ms=5) as view:
        slow = view.place / workshop.image.name

        def run(*flags: str) -> str:
            done = workshop.run(workshop.words("run", *flags, slow, "true"))
            assert done.returncode == 0, done.stderr
            return done.stdout

        # A page that is looked at may have come along with another.
        assert re.search(r"[345] of 5 pages on fuse.slowfs were not", run("--explain"))
        before = view.counted()
        run()
        wanted_bytes = hot(workshop.image).size_bytes
        wait_until(lambda: view.counted().read_bytes >= wanted_bytes)
        # More than a start of `true` reads, and all of it once.
        assert view.counted().read_bytes >= wanted_bytes > before.read_bytes
        assert "came at once" in run("--explain")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_is_stopped_takes_its_children_along(tmp_path: Path) -> None:
    begun_s = time.monotonic()
    child = f"sleep 60 & echo $! > '{tmp_path}/pid'; wait"
    assert process.run_limited(["/bin/sh", "-c", child], timeout_s=1) is None
    assert time.monotonic() - begun_s < 20
    pid = int((tmp_path / "pid").read_text())
    while is_alive(pid):
        assert time.monotonic() - begun_s < 20
        time.sleep(0.05)
    done = process.run_limited(["/bin/sh", "-c", "cat; exit 4"], timeout_s=20, input_bytes=b"in")
    assert done and (done.code, done.stdout) == (4, b"in")


def test_what_is_stopped_may_clear_up(tmp_path: Path) -> None:
    """A runtime that is killed at once leaves the process that serves the image."""
    cleared = tmp_path / "cleared"
    script = f"trap 'sleep 0.5; echo > {cleared}; exit 1' TERM; sleep 60 & wait"
    assert process.run_limited(["/bin/sh", "-c", script], timeout_s=1) is None
    assert cleared.exists()
    cleared.unlink()
    with pytest.raises(HostError, match="did not end within 1 s"):
        process.run(["/bin/sh", "-c", script], timeout_s=1)
    assert cleared.exists()


def test_what_is_detached_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from limpet.tools import process\n"
        "def work():\n"
        "    time.sleep(1)\n"
        f"    open({str(tmp_path / 'done')!r}, 'w').close()\n"
        "process.detached(work)\n"
        "print('said')\n"
    )
    begun_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True
    )
    assert done.stdout == "said\n"
    assert not (tmp_path / "done").exists() or time.monotonic() - begun_s > 1
    wait_until((tmp_path / "done").exists, timeout_s=20)
