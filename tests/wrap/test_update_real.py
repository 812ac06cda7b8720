"""Launchers made again: after a rebuild, by two at once, back again, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Base
from tests.wrap.conftest import SCRIPTS, SOURCE, Person, build, write_wheel

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("wrap")]


@pytest.fixture(scope="module")
def rebuilt(work: Path, cache_dir: Path, debian_base: Base) -> Path:
    """The image of a newer wheel: one script gone, one new, one changed."""
    folder = work / "rebuilt"
    folder.mkdir()
    module = "import sys\ndef leave(): sys.exit(40 + int(sys.argv[1]))\ndef new(): print('new')\n"
    wheel = write_wheel(folder, {"limpet-leave": "leave", "limpet-new": "new"}, module)
    packages = (f"limpetsay @ {wheel.as_uri()}", "pip")
    return Path(build(folder, cache_dir, debian_base.reference, *packages, output="say.sif"))


def programs(folder: Path) -> set[str]:
    return {path.name for path in (folder / "bin").iterdir()}


def test_after_a_rebuild_and_back_again(say_image: Path, rebuilt: Path, person: Person) -> None:
    image, folder = person.home / "now.sif", person.home / "env"
    image.hardlink_to(say_image)
    person.wrap(image, folder, "--copy", "--except", "pip*", "--env", "GREETING=hello")
    assert person.run(folder / "bin/limpet-leave", "2").returncode == 2
    running = subprocess.Popen(
        [folder / "bin/limpet-wait"],
        env=person.environment(),
        cwd=person.home,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    assert running.stdout.readline() == "ready\n"

    newer = person.home / "newer.sif"
    newer.hardlink_to(rebuilt)
    newer.replace(image)
    told = json.loads(person.limpet("update", folder, "--dry-run", "--json").stdout)
    assert told["added"] == ["limpet-new"]
    assert "limpet-new" not in programs(folder)
    told = json.loads(person.limpet("update", folder, "--json").stdout)
    assert (told["version"], told["added"]) == (2, ["limpet-new"])
    assert told["removed"] == sorted(set(SCRIPTS) - {"limpet-leave"})
    assert {"limpet-new", "limpet-leave"} <= programs(folder)
    assert not {"limpet-say", "pip"} & programs(folder)
    assert person.run(folder / "bin/limpet-leave", "2").returncode == 42
    say = ("-c", "import os; print(os.environ['GREETING'])")
    assert person.run(folder / "bin/python", *say).stdout == "hello\n"

    running.terminate()
    assert running.stdout.read() == "told SIGTERM\n"
    assert running.wait(30) == 7

    back = person.limpet("update", folder, "--back")
    assert back.returncode == 0, back.stderr
    assert "limpet-say" in programs(folder)
    assert person.run(folder / "bin/limpet-leave", "2").returncode == 2  # the kept copy
    again = person.limpet("update", folder, "--back")
    assert again.returncode == 2
    assert "no version before 1" in again.stderr
    told = json.loads(person.limpet("update", folder, "--json").stdout)
    assert told["version"] == 3


def test_for_another_image(say_image: Path, rebuilt: Path, person: Person) -> None:
    folder = person.home / "env"
    person.wrap(say_image, folder)
    done = person.limpet("update", folder, rebuilt)
    assert done.returncode == 0, done.stderr
    assert person.run(folder / "bin/limpet-leave", "2").returncode == 42


def test_two_at_once_and_what_a_killed_one_left(say_image: Path, person: Person) -> None:
    folder = person.home / "env"
    person.wrap(say_image, folder)
    left = folder / ".limpet/versions/.9.limpet-partial-00"
    (left / "bin").mkdir(parents=True)
    words = ["-P", "-m", "limpet", "update", str(folder)]
    env = person.environment({"PYTHONPATH": str(SOURCE)})
    both = [subprocess.Popen([sys.executable, *words], env=env, cwd=person.home) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert sorted(p.name for p in (folder / ".limpet/versions").iterdir()) == ["1", "2", "3"]
    assert person.run(folder / "bin/limpet-leave", "2").returncode == 2


def test_what_is_refused(say_image: Path, person: Person) -> None:
    other = person.home / "other"
    (other / "bin").mkdir(parents=True)
    (other / "bin/mine").touch()
    done = person.limpet("wrap", say_image, other)
    assert done.returncode == 11
    assert "did not put there" in done.stderr
    assert person.limpet("wrap", say_image, other, "--force").returncode == 0
    assert (other / "bin.old/mine").exists()
    assert "limpet-say" in programs(other)

    locked = person.home / "locked"
    locked.mkdir(mode=0o500)
    assert person.limpet("wrap", say_image, locked / "env").returncode == 10
    assert person.limpet("wrap", say_image, locked).returncode == 10
    missing = person.limpet("wrap", person.home / "no.sif", person.home / "env")
    assert missing.returncode == 8
    unknown = person.limpet("wrap", say_image, person.home / "env", "--only", "limpet-sy")
    assert unknown.returncode == 2
    assert "limpet-say" in unknown.stderr
    assert person.limpet("update", person.home).returncode == 2
    assert not (person.home / "env").exists()


def test_a_dry_run_makes_nothing(say_image: Path, person: Person) -> None:
    done = person.limpet("wrap", say_image, person.home / "env", "--dry-run")
    assert done.returncode == 0
    assert "limpet-say" in done.stdout
    assert not (person.home / "env").exists()


def test_a_kernel_that_cannot_start_is_told(say_image: Path, person: Person) -> None:
    words = ("wrap", say_image, person.home / "env", "--kernel", "say", "--dry-run")
    assert "which the image does not have" in person.limpet(*words).stdout


def test_a_shared_folder_can_be_used_by_others_and_is_not_written(
    say_image: Path, person: Person
) -> None:
    folder = person.home / "env"
    person.wrap(say_image, folder)
    before = sorted(folder.rglob("*"))
    for path in before:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    other = Person(home=person.home / "someone else", cache=person.cache)
    other.home.mkdir()
    assert other.run(folder / "bin/limpet-leave", "2").returncode == 2
    assert sorted(folder.rglob("*")) == before
    for path in before:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def test_an_overlay_by_its_name_and_the_record_of_state(say_image: Path, person: Person) -> None:
    made = person.limpet("overlay", "create", say_image, "extra", "--dir")
    assert made.returncode == 0, made.stderr
    folder = person.home / "env"
    person.wrap(say_image, folder, "--only", "python", "--overlay", "extra")
    person.wrap(say_image, person.home / "plain", "--only", "python")
    program = "import pathlib; pathlib.Path('/opt/env/written').touch()"
    done = person.run(folder / "bin/python", "-c", program)
    assert done.returncode == 0, done.stderr
    look = "import os; print(os.path.exists('/opt/env/written'))"
    assert person.run(folder / "bin/python", "-c", look).stdout == "True\n"
    assert person.run(person.home / "plain/bin/python", "-c", look).stdout == "False\n"
    listed = person.limpet("state", "list")
    assert str(say_image) in listed.stdout or say_image.stem in listed.stdout, listed
    unknown = person.limpet("wrap", say_image, person.home / "none", "--overlay", "missing")
    assert unknown.returncode != 0
    assert "missing" in unknown.stderr
    assert not (person.home / "none").exists()


def test_flags_that_the_session_has_too(say_image: Path, person: Person) -> None:
    folder = person.home / "env"
    person.wrap(say_image, folder, "--only", "python", "--env", "PYTENSOR_FLAGS=device=cpu")
    look = "import os; print(os.environ['PYTENSOR_FLAGS'])"
    flags = person.run(folder / "bin/python", "-c", look).stdout
    assert flags.startswith("device=cpu,base_compiledir=/.limpet/home/.cache/")
