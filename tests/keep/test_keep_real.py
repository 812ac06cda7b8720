"""One mount for many starts, which goes away by itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.personal.conftest import User
from tests.waiting import wait_until

pytestmark = pytest.mark.real

# The process namespace that a program is in.
WHERE = ("readlink", "/proc/self/ns/pid")


@pytest.fixture(autouse=True)
def nothing_left(user: User) -> Iterator[None]:
    """Whatever a test keeps is ended with it."""
    yield
    user.limpet("kept", "end")


def kept(user: User) -> list[str]:
    return [one["name"] for one in json.loads(user.said("kept", "list", "--json"))["kept"]]


def mounts_of(image: Path) -> int:
    """How many processes of this machine serve an image over FUSE."""
    return len(servers_of(image))


def servers_of(image: Path) -> list[int]:
    """Those processes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
            # Not followed: it may lead into a file system of another test's that does not answer.
            held = any(str(fd.readlink()) == str(image) for fd in folder.glob("fd/*"))
        except OSError:
            continue  # it has ended meanwhile
        if "squashfuse" in words and (str(image) in words or held):
            found.append(int(folder.name))
    return found


def wait_for_end(pid: int) -> None:
    """Of a process that was killed."""
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def wait_until_gone(image: Path) -> None:
    wait_until(lambda: not mounts_of(image))


def test_many_starts_share_one_mount(user: User, kept_image: Path) -> None:
    first = user.said("run", "--keep", kept_image, *WHERE)
    words = ("run", "--keep", kept_image, "sh", "-c", "readlink /proc/self/ns/pid; cat")
    running = [user.start(*words) for _ in range(8)]
    assert mounts_of(kept_image) == 1
    said = [process.communicate("in", timeout=300)[0] for process in running]
    assert set(said) == {f"{first}in"}
    assert len(kept(user)) == 1
    # Without --keep, nothing is shared.
    assert user.said("run", kept_image, *WHERE) != first


def test_a_start_in_it_is_like_any_other(user: User, kept_image: Path) -> None:
    elsewhere = user.folder.parent.parent / "elsewhere ä"
    elsewhere.mkdir()
    code = (
        "import os, sys; print(os.getcwd(), os.environ['GIVEN'], sys.argv[1:], sys.prefix); "
        "import framework; open('written', 'w'); sys.exit(7)"
    )
    words = ("python", "-c", code, "a b", "--", "$z")
    for _ in range(2):
        done = subprocess.run(
            user.argv("run", "--keep", "-e", "GIVEN=$(x) `y`", kept_image, *words),
            env=user.env(PYTHONHOME="", VIRTUAL_ENV="/nowhere"),
            cwd=elsewhere,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 7, done.stderr
        assert done.stdout == f"{elsewhere} $(x) `y` ['a b', '--', '$z'] /opt/env\n"
        assert (elsewhere / "written").exists()
    user.said("pip", kept_image, "install", "-q", "pluginone")
    assert user.said("run", "--keep", kept_image, "plugin") == "pluginone 1.0\n"


def test_two_first_starts_at_once_make_one(user: User, kept_image: Path) -> None:
    both = [user.start("run", "--keep", kept_image, *WHERE) for _ in range(3)]
    assert len({process.communicate(timeout=300)[0] for process in both}) == 1
    assert len(kept(user)) == 1


def test_it_ends_by_itself_but_not_under_a_program(user: User, kept_image: Path) -> None:
    words = ("run", "--keep-for", "1s", kept_image)
    assert user.said(*words, "sh", "-c", "sleep 6; echo done") == "done\n"
    wait_until_gone(kept_image)
    assert kept(user) == []
    assert user.said(*words, "echo", "again") == "again\n"


def test_an_image_that_was_replaced_is_another_one(
    user: User, kept_image: Path, images: dict[str, Path]
) -> None:
    assert user.said("run", "--keep", kept_image, "framework") == "framework 1.0\n"
    newer = user.folder / "newer.sif"
    newer.write_bytes(images["two"].read_bytes())
    newer.chmod(0o755)
    newer.replace(kept_image)
    assert user.said("run", "--keep", kept_image, "framework") == "framework 2.0\n"
    assert len(kept(user)) == 2


def test_an_image_that_was_written_over_is_another_one(
    user: User, kept_image: Path, images: dict[str, Path]
) -> None:
    words = ("run", "--keep", kept_image)
    before = user.said(*words, *WHERE)
    assert user.said(*words, *WHERE) == before
    with kept_image.open("r+b") as file:  # in its place, as `cp` does
        file.write(images["two"].read_bytes())
        file.truncate()
    assert user.said(*words, "sh", "-c", "readlink /proc/self/ns/pid; framework").splitlines()[
        1:
    ] == ["framework 2.0"]
    assert user.said(*words, *WHERE) != before


Start = Callable[[Path, str, dict[str, str]], subprocess.CompletedProcess[str]]


def check_made_anew(outside: Path, start: Start) -> None:
    """What is mounted is what is there now; the same path does not say that."""
    names = ('a "b", c', "temporary", "bound")
    folder, temporary, bound = (outside / name for name in names)
    config = outside / "pip.conf"
    env = {
        "TMPDIR": str(temporary),
        "APPTAINER_BIND": f"/usr/share,{bound}:/data:ro",
        "PIP_CONFIG_FILE": str(config),
    }
    code = 'ls . "$TMPDIR" /data; cat "$PIP_CONFIG_FILE"'
    for word in ("first", "second"):
        for one in (folder, temporary, bound):
            if one.exists():
                shutil.rmtree(one)
            one.mkdir()
            (one / word).touch()
        newer = outside / "newer"
        newer.write_text(f"# {word}\n")
        newer.replace(config)
        for _ in range(2):
            done = start(folder, code, env)
            listed = f".:\n{word}\n\n/data:\n{word}\n\n{temporary}:\n{word}\n# {word}\n"
            assert (done.stdout, done.stderr) == (listed, "")


def test_what_is_made_anew_is_what_is_seen(user: User, kept_image: Path) -> None:
    def start(folder: Path, code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            user.argv("run", "--keep", kept_image, "sh", "-c", code),
            env=user.env(**env),
            cwd=folder,
            capture_output=True,
            text=True,
        )

    with tempfile.TemporaryDirectory(dir=Path.home()) as outside:  # /tmp is seen anyway
        check_made_anew(Path(outside), start)
    assert len(kept(user)) == 2


def test_the_sessions_own_settings(user: User, kept_image: Path) -> None:
    words = ("run", "--keep", kept_image)
    first = user.said(*words, *WHERE)
    name = user.limpet(*words, "uname", "-n", env={"APPTAINER_HOSTNAME": "there"})
    assert name.stdout == "there\n"
    done = user.limpet(*words, *WHERE, env={"APPTAINER_WRITABLE_TMPFS": "1"})
    assert done.stdout not in ("", first)
    assert "APPTAINER_WRITABLE_TMPFS is set" in done.stderr
    quiet = {"APPTAINER_WRITABLE_TMPFS": "1", "LIMPET_KEEP": "1"}
    assert user.limpet("run", kept_image, "true", env=quiet).stderr == ""
    assert len(kept(user)) == 2


def test_it_is_ended_when_asked(user: User, kept_image: Path) -> None:
    running = user.start("run", "--keep", kept_image, "sh", "-c", "echo ready; exec sleep 60")
    assert running.stdout and running.stdout.readline() == "ready\n"
    assert str(kept_image) in user.said("kept", "list")
    other = user.said("kept", "end", user.folder / "other.sif")
    assert other == "There was nothing to end.\n"
    assert user.said("kept", "end", kept_image) == f"Ended: {kept_image}\n"
    assert running.wait(60) != 0
    wait_until_gone(kept_image)
    assert kept(user) == []
    user.said("run", "--keep", kept_image, "true")
    assert len(kept(user)) == 1


def test_where_it_cannot_be_kept_it_runs_all_the_same(user: User, kept_image: Path) -> None:
    closed = user.folder / "a file and no folder"
    closed.touch()
    done = user.limpet(
        "run", "--keep", kept_image, "framework", env={"APPTAINER_CONFIGDIR": str(closed)}
    )
    assert done.stdout == "framework 1.0\n", done.stderr
    assert "cannot be kept mounted: the runtime started no instance." in done.stderr
    assert kept(user) == []
    (folder,) = (user.state / ".kept").iterdir()
    (folder / ".lock").unlink()
    folder.chmod(0o500)
    done = user.limpet("run", "--keep", kept_image, "framework")
    folder.chmod(0o700)
    assert done.stdout == "framework 1.0\n", done.stderr
    assert f"cannot be kept mounted: The folder {folder} cannot be written." in done.stderr


def test_what_is_refused(user: User, kept_image: Path) -> None:
    done = user.limpet("run", "--keep-for", "soon", kept_image, "true")
    assert done.returncode == 125 and "--keep-for soon" in done.stderr
    user.said("overlay", "create", kept_image, "layer2", "--dir")
    done = user.limpet("run", "--keep", "--overlay", "layer2", kept_image, "true")
    assert done.returncode == 125 and "--overlay" in done.stderr
    done = user.limpet("run", "--keep", "--writable-tmpfs", kept_image, "true")
    assert done.returncode == 125 and "--writable-tmpfs" in done.stderr
