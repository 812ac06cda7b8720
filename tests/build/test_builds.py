"""Builds that are the same twice, that are killed, that meet, and that work where it is awkward."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from tests.build.conftest import copy_workshop
from tests.build.loopback import add_simple_index, served
from tests.build.workshop import Workshop, check_refused, find_leftovers, read_tree, unchanged
from tests.conftest import Base
from tests.waiting import wait_until

pytestmark = pytest.mark.real

ANSWER = "import tiny; print(tiny.answer)"


@pytest.mark.parametrize("layout", ["merged", "layered"])
def test_same_description_same_bytes(fresh: Workshop, layout: str) -> None:
    """In two folders, at two times, with two caches of which neither has seen anything."""
    many = {f"many/m{number}.py": f"x = {{{number}, 'a', 'b'}}\n" for number in range(40)}
    fresh.add_wheel("many", many)
    fresh.write("data/b.txt", "b")
    fresh.write("data/a.txt", "a")
    text = f"""
    [image]
    layout = "{layout}"
    [env]
    B = "2"
    A = "1"
    [files]
    "data" = "/opt/data/here"
    [warm]
    commands = ["echo warm > /opt/env/warm.txt"]
    """
    fresh.describe(text, "tiny", "many")
    other = copy_workshop(fresh, "another folder", cache="another cache")
    time.sleep(1.1)
    for path in other.folder.rglob("*.txt"):
        os.utime(path, (1, 1))
    first = fresh.build("limpet.toml", "-j", "1", TZ="UTC")
    second = other.build("limpet.toml", "-j", "4", TZ="Asia/Tokyo", PYTHONHASHSEED="7", LANG="C")
    assert first.read_bytes() == second.read_bytes()
    assert stat.S_IMODE(first.stat().st_mode) & 0o100


def test_a_source_built_in_the_base_gives_the_same_bytes(fresh: Workshop) -> None:
    """A project of two files with a build backend of its own, so that nothing is fetched."""
    backend = """if True:
        import sys, zipfile
        def build_wheel(folder, config_settings=None, metadata_directory=None):
            name = f"homemade-1.0-py3-none-any.whl"
            with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
                for member, text in {
                    "homemade.py": f"answer = {sys.version_info[:2]!r}",
                    "homemade-1.0.dist-info/METADATA": META,
                    "homemade-1.0.dist-info/WHEEL": WHEEL,
                    "homemade-1.0.dist-info/RECORD": "",
                }.items():
                    wheel.writestr(zipfile.ZipInfo(member), text)
            return name
        META = "Metadata-Version: 2.1\\nName: homemade\\nVersion: 1.0\\n"
        WHEEL = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    """
    fresh.write("source/backend.py", backend)
    fresh.write(
        "source/pyproject.toml",
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "homemade"\nversion = "1.0"\n',
    )
    recipe = fresh.require("./source")
    with unchanged(fresh.folder / "source"):
        first = fresh.build(recipe)
    other = copy_workshop(fresh, "another folder", cache="another cache")
    second = other.build("requirements.in")
    assert fresh.python(first, "import homemade; print(homemade.answer)") == "(3, 13)"
    assert first.read_bytes() == second.read_bytes()


def test_bounds_of_memory_and_disk(fresh: Workshop, tmp_path: Path) -> None:
    """At most 512 MB of memory, and on the disk 2.2 times the environment and the image."""
    noise = random.Random(1)
    big = {f"big/part{number}": noise.randbytes(15 << 20) for number in range(8)}
    fresh.add_wheel("big", {"big/__init__.py": "", **big}, compression=zipfile.ZIP_STORED)
    environment_bytes = sum(map(len, big.values()))
    recipe = fresh.write("requirements.in", "big\n")
    fresh.build(fresh.require("tiny", name="first.in"), "-o", tmp_path / "first.sif")
    (tmp_path / "first.sif").unlink()

    def used_bytes() -> int:
        found = 0
        for folder in (fresh.cache, fresh.out):
            for path in folder.rglob("*"):
                try:
                    found += path.stat().st_blocks * 512
                except FileNotFoundError:
                    continue
        return found

    before, peak = used_bytes(), 0
    add_simple_index(fresh, tmp_path / "site", "big")

    def watch() -> None:
        nonlocal peak
        while running.returncode is None:
            peak = max(peak, used_bytes())
            time.sleep(0.02)

    with served(tmp_path / "site") as url:
        running = fresh.start_build(recipe, "--index-url", f"{url}/simple")
        watching = threading.Thread(target=watch)
        watching.start()
        assert running.stderr
        said = running.stderr.read()
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
        watching.join()
    assert running.returncode == 0, said
    assert usage.ru_maxrss * 1024 < 512e6
    image_bytes = fresh.image.stat().st_size
    assert image_bytes > environment_bytes
    assert peak - before <= 2.2 * environment_bytes + image_bytes


# ---- killed, and two at once ---------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["base", "lock", "wheels", "warm", "image"])
def test_killed_and_built_again(fresh: Workshop, python_slim: str, moment: str) -> None:
    """The old image stays, the next build works, and nothing is left of the first."""
    if moment == "base":
        fresh.base = python_slim
    noise = random.Random(2).randbytes(8 << 20)
    fresh.add_wheel("noisy", {"noisy/__init__.py": "", "noisy/data": noise})
    recipe = fresh.describe('[warm]\ncommands = ["sleep 0.3"]\n', "tiny", "noisy")
    fresh.image.write_text("the old image")
    words = fresh.build_words(recipe, "--json", "--force")
    running = subprocess.Popen(
        words,
        cwd=fresh.folder,
        env=fresh.variables({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,
    )
    assert running.stdout
    for line in running.stdout:
        event = json.loads(line)
        if event["stage"] == moment and not event["message"].startswith("Resolving docker:"):
            break
    else:
        pytest.fail(f"no event of {moment}")
    time.sleep(0.3 if moment == "base" else 0.03)
    os.kill(running.pid, signal.SIGKILL)
    running.wait(10)
    running.stdout.close()
    assert fresh.image.read_text() == "the old image"
    _wait_for_group(running.pid)
    fresh.build(recipe, "--force")
    assert fresh.python(fresh.image, ANSWER) == "42"
    assert find_leftovers(fresh.cache) == []
    assert [path.name for path in fresh.out.iterdir()] == ["image.sif"]


@pytest.mark.parametrize(
    ("key", "stage", "told", "code"),
    [
        ("commands", "warm", signal.SIGINT, 130),
        ("entry", "profile", signal.SIGTERM, 143),
        ("entry", "profile", signal.SIGHUP, 129),
    ],
)
def test_interrupted_leaves_nothing(
    fresh: Workshop, key: str, stage: str, told: signal.Signals, code: int
) -> None:
    """Ctrl-C reaches limpet and all that it has started; what `kill` sends, limpet alone."""
    nap = f"sleep {120 + os.getpid() / 10**8}"  # known by its words
    recipe = fresh.describe(
        f"[warm]\n{key} = {[nap] if key == 'commands' else repr(nap)}\n", "tiny"
    )
    running = subprocess.Popen(
        fresh.build_words(recipe, "--json"),
        cwd=fresh.folder,
        env=fresh.variables({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert running.stdout
    with unchanged(fresh.folder):
        while json.loads(running.stdout.readline())["stage"] != stage:
            pass
        wait_until(lambda: _processes(nap))
        (os.killpg if told == signal.SIGINT else os.kill)(running.pid, told)
        _, said = running.communicate(timeout=60)
    assert running.returncode == code, said
    wait_until(lambda: not _processes(nap))
    assert "Traceback" not in said
    assert find_leftovers(fresh.cache) == []


def _processes(words: str) -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if _words(path) == words]


def _words(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _wait_for_group(group: int) -> None:
    """Whatever the killed one had started ends by itself."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)


def test_two_builds_at_once(fresh: Workshop) -> None:
    """Into the same empty cache and onto the same output; then without --force, one is refused."""
    recipe = fresh.require("tiny")
    builds = [fresh.start_build(recipe, "--force") for _ in range(3)]
    for build in builds:
        _, said = build.communicate(timeout=300)
        assert build.returncode == 0, said
    assert fresh.python(fresh.image, ANSWER) == "42"
    assert [path.name for path in fresh.out.iterdir()] == ["image.sif"]
    assert find_leftovers(fresh.cache) == []
    fresh.image.unlink()
    builds = [fresh.start_build(recipe) for _ in range(3)]
    codes = []
    for build in builds:
        build.communicate(timeout=300)
        codes.append(build.returncode)
    assert sorted(set(codes)) in ([0, 11], [0]) and codes.count(0) == 1
    assert fresh.python(fresh.image, ANSWER) == "42"


# ---- awkward places ------------------------------------------------------------------------------


def test_umask_077(fresh: Workshop) -> None:
    """The files are the user's own, and what is inside is for everybody all the same."""
    fresh.write("data/x.txt", "x").chmod(0o600)
    recipe = fresh.describe('[files]\n"data" = "/opt/data/here"\n', "tiny")
    before = os.umask(0o077)
    try:
        image = fresh.build(recipe)
    finally:
        os.umask(before)
    assert stat.S_IMODE(image.stat().st_mode) == 0o700
    code = "import os, tiny; print(*(oct(os.stat(p).st_mode & 0o777) for p in "
    code += "(tiny.__file__, '/opt/env', '/opt/data/here', '/opt/data/here/x.txt')))"
    assert fresh.python(image, code) == "0o644 0o755 0o755 0o644"


@pytest.mark.parametrize("layout", ["merged", "layered"])
def test_spaces_and_letters_of_all_kinds_in_paths(fresh: Workshop, layout: str) -> None:
    name = "ein Ordner, 文件 $(touch x) 'y' \"z\" & ü:ö"
    odd = copy_workshop(fresh, name, cache=f"cache {name}")
    born = "import pathlib\nborn = pathlib.Path(__file__).with_name('born')\n"
    born += "born.exists() or born.touch()\n"
    odd.add_wheel("born", {"born/__init__.py": born})
    odd.write("dätä file.txt", "x")
    recipe = odd.describe(
        '[files]\n"dätä file.txt" = "/opt/dätä/a file.txt"\n[warm]\nimports = ["born"]\n',
        "tiny",
        "born",
    )
    image = odd.build(recipe, "--layout", layout, "-o", odd.out / "ein Bild — 图像.sif")
    started = odd.run(odd.words("run", image, "python", "-c", ANSWER))
    assert started.stdout.strip() == "42", started.stderr
    code = "import born, os; print(open('/opt/dätä/a file.txt').read(), "
    code += "os.listdir(os.path.dirname(born.__file__)))"
    said = odd.run(odd.words("run", image, "python", "-c", code))
    assert said.stdout.startswith("x ") and "'born'" in said.stdout, said.stderr
    assert not (fresh.folder.parent / "x").exists()
    assert not (odd.folder / "x").exists()


def test_output_named_with_a_newline(workshop: Workshop) -> None:
    recipe = workshop.require("tiny")
    image = workshop.build(recipe, "-o", workshop.out / "a\nb;c.sif")
    assert [path.name for path in workshop.out.iterdir()] == ["a\nb;c.sif"]
    started = workshop.run(workshop.words("run", image, "python", "-c", ANSWER))
    assert started.stdout.strip() == "42", started.stderr


def test_the_users_runtime_settings_do_not_reach_a_build(fresh: Workshop, tmp_path: Path) -> None:
    """Neither a bind over the environment, nor variables, nor a bind that does not exist."""
    cover = tmp_path / "cover"
    cover.mkdir()
    recipe = fresh.describe('[warm]\ncommands = ["env > /opt/env/env.txt"]\n', "tiny")
    settings = {
        "APPTAINER_BIND": f"{cover}:/opt,/no/such/place",
        "SINGULARITY_BINDPATH": f"{cover}:/usr/lib",
        "APPTAINERENV_PYTHONPATH": "/leak",
        "SINGULARITYENV_LEAKED": "yes",
        "APPTAINER_CONTAINALL": "1",
        "APPTAINER_WORKDIR": "/no/such/place",
        "APPTAINER_OVERLAY": "/no/such/overlay",
        "SINGULARITY_NV": "1",
    }
    image = fresh.build(recipe, cwd=None, **settings)
    seen = fresh.python(image, "import tiny; print(open('/opt/env/env.txt').read())")
    assert "leak" not in seen.lower()
    assert list(cover.iterdir()) == []


def test_home_that_cannot_be_written(fresh: Workshop, home: Path) -> None:
    home.chmod(0o555)
    try:
        image = fresh.build(fresh.describe('[warm]\nimports = ["tiny"]\n', "tiny"))
        started = fresh.run(fresh.words("run", image, "python", "-c", ANSWER))
    finally:
        home.chmod(0o755)
    assert started.stdout.strip() == "42", started.stderr
    assert list(home.iterdir()) == []


def test_no_tmp_to_speak_of(fresh: Workshop) -> None:
    """TMPDIR leads nowhere, and /tmp is a full disk: nothing is put there, not even by tools."""
    place = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        elsewhere = copy_workshop(fresh, str(place / "project"), cache=str(place / "cache"))
        base = place / "base.sif"
        base.write_bytes(Path(fresh.base).read_bytes())
        recipe = elsewhere.describe('[warm]\nimports = ["tiny"]\n', "tiny")
        words = elsewhere.build_words(recipe, "--base", base)
        full = "mount -t tmpfs -o size=4k,nr_inodes=1 none /tmp && ! touch /tmp/x 2>/dev/null && "
        shut = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", full + 'exec "$@"']
        done = elsewhere.run([*shut, "sh", *words], cwd=None, TMPDIR="/no/such/folder")
        assert done.returncode == 0, done.stderr
        assert elsewhere.python(elsewhere.image, ANSWER) == "42"
    finally:
        shutil.rmtree(place)


# ---- flags ---------------------------------------------------------------------------------------


def test_dry_run_changes_nothing(fresh: Workshop) -> None:
    recipe = fresh.require("tiny")
    with unchanged(fresh.folder):
        done = fresh.try_build(recipe, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "tiny" in done.stdout or "packages" in done.stdout
    assert find_leftovers(fresh.cache) == []
    assert not list(fresh.cache.rglob("*.sqfs"))


def test_force_replaces_and_a_running_job_keeps_its_file(workshop: Workshop) -> None:
    recipe = workshop.require("tiny")
    image = workshop.build(recipe)
    with image.open("rb") as held:
        before = held.read()
        workshop.describe('[env]\nNEW = "1"\n', "tiny")
        workshop.build("limpet.toml", "--force")
        held.seek(0)
        assert held.read() == before
    assert image.read_bytes() != before


def test_force_through_a_link_replaces_the_link(workshop: Workshop) -> None:
    recipe = workshop.require("tiny")
    target = workshop.write("out/other.sif", "not to be touched")
    workshop.image.symlink_to(target.name)
    check_refused(workshop.try_build(recipe), 11, "image.sif")
    workshop.build(recipe, "--force")
    assert target.read_text() == "not to be touched"
    assert not workshop.image.is_symlink()


def test_frozen_takes_the_lock_and_nothing_else(workshop: Workshop) -> None:
    recipe = workshop.require("tiny")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe, "--frozen")
    check_refused(done, 4, "no lock")
    workshop.build(recipe)
    workshop.add_wheel("tiny", {"tiny/__init__.py": "answer = 'new'\n"}, version="2.0")
    workshop.build(recipe, "--frozen", "--force")
    assert workshop.python(workshop.image, ANSWER) == "42"
    workshop.require("tiny", "# a comment changes nothing")
    workshop.build(recipe, "--frozen", "--force")
    workshop.require("tiny>=2")
    before = read_tree(workshop.folder)
    done = workshop.try_build(recipe, "--frozen", "--force")
    check_refused(done, 4, "The lock does not fit", "changed")
    assert read_tree(workshop.folder) == before
    workshop.build(recipe, "--force")
    assert workshop.python(workshop.image, ANSWER) == "new"


def test_offline(fresh: Workshop) -> None:
    """From the cache, even with the wheels gone; else all that is missing is named."""
    fresh.add_wheel("second", {"second.py": ""})
    fresh.add_wheel("third", {"third.py": ""})
    recipe = fresh.require("tiny", "second", "third")
    fresh.build(recipe)
    stored = {path.name: path.read_bytes() for path in fresh.wheels.iterdir()}
    for path in fresh.wheels.iterdir():
        path.unlink()
    fresh.build(recipe, "--offline", "--force")
    assert fresh.python(fresh.image, ANSWER) == "42"
    other = Workshop(fresh.folder, cache=fresh.folder.with_name("empty"), base=fresh.base)
    with unchanged(fresh.folder):
        done = other.try_build(recipe, "--offline", "--force")
    check_refused(done, 6, "Offline", *stored)


def test_offline_base_that_was_never_seen(fresh: Workshop, tmp_path: Path) -> None:
    recipe = fresh.require("tiny")
    with unchanged(fresh.folder):
        done = fresh.try_build(recipe, "--offline", "--base", "debian:trixie")
    check_refused(done, 6, "debian:trixie", "offline")


def test_build_dir(fresh: Workshop, tmp_path: Path, debian_base: Base) -> None:
    """Passing files go where they are sent, and are gone afterwards."""
    place = tmp_path / "a place"
    fresh.build(fresh.describe('[warm]\nimports = ["tiny"]\n', "tiny"), "--build-dir", place)
    assert [path.name for path in place.iterdir() if path.is_dir()] == []
    assert fresh.python(fresh.image, ANSWER) == "42"
