"""Launchers that start in a kept image: asked for by `LIMPET_KEEP`."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.keep.test_keep_real import (
    WHERE,
    check_made_anew,
    kept,
    servers_of,
    wait_for_end,
    wait_until_gone,
)
from tests.personal.conftest import User

pytestmark = pytest.mark.real

SHELLS = (("dash",), ("bash",), ("busybox", "sh"))


@dataclass
class Launchers:
    """A folder of launchers and who starts them, with the session's word for kept images."""

    user: User
    folder: Path

    def argv(self, *words: str | Path, shell: tuple[str, ...] = ()) -> list[str]:
        name, *rest = map(str, words)
        return [*shell, str(self.folder / "bin" / name), *rest]

    def start(
        self,
        *words: str | Path,
        shell: tuple[str, ...] = (),
        stdin: str = "",
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words, shell=shell),
            env=self.user.env(**{"LIMPET_KEEP": "15m", **(env or {})}),
            cwd=cwd or self.user.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def said(self, *words: str | Path, shell: tuple[str, ...] = (), **env: str) -> str:
        done = self.start(*words, shell=shell, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def wrap(self, image: Path, *words: str | Path) -> None:
        folders = ("--folder", "/usr/bin", "--folder", "/opt/env/bin")
        only = [
            word for name in ("readlink", "sh", "python", "framework") for word in ("--only", name)
        ]
        self.user.said("wrap", image, self.folder, *folders, *only, *words)


@pytest.fixture
def launchers(user: User, kept_image: Path) -> Iterator[Launchers]:
    made = Launchers(user=user, folder=user.folder / "launchers, it's ä")
    made.wrap(kept_image)
    yield made
    end_all(user)


def end_all(user: User) -> None:
    """What a test keeps is ended with it; `instance stop` takes more than a second for each."""
    for record in records(user):
        with contextlib.suppress(ProcessLookupError):
            os.kill(record["pid"], signal.SIGKILL)


def records(user: User) -> list[dict[str, Any]]:
    found = user.state.glob(".kept/*/limpet-*/kept.json")
    return [json.loads(path.read_text()) for path in found]


def test_launchers_share_one_mount(launchers: Launchers, kept_image: Path) -> None:
    user = launchers.user
    code = (
        "import os, sys; print(os.readlink('/proc/self/ns/pid')); "
        "print(sys.argv[1:], sys.stdin.read(), os.environ.get('LIMPET_KEEP'), os.getcwd()); "
        "print(os.environ['HOME'], os.listdir(os.environ['HOME'] + '/.local')); "
        "sys.exit(7)"
    )
    below = user.folder / "below"
    below.mkdir()
    words = ("a b", "$z", "*", "it's")
    for count, shell in enumerate(SHELLS, 1):
        env = {"APPTAINER_BIND": f"{below}:/{shell[0]}"}  # so that each shell makes one of its own
        first = launchers.said(*WHERE, shell=shell, **env)
        assert len(records(user)) == count
        done = launchers.start(
            "python", "-c", code, *words, shell=shell, stdin="i", cwd=below, env=env
        )
        assert (done.returncode, done.stderr) == (7, "")
        assert done.stdout == f"{first}{list(words)} i None {below}\n{user.home} []\n"
        assert launchers.said("framework", shell=shell, **env) == "framework 1.0\n"
        assert launchers.said(*WHERE, shell=shell, **env | {"LIMPET_KEEP": "0"}) != first
    assert len(records(user)) == len(SHELLS)


def test_limpet_lists_and_ends_it(launchers: Launchers, kept_image: Path) -> None:
    user = launchers.user
    launchers.said(*WHERE, LIMPET_KEEP="2h")
    assert f"{kept_image}  for 7200 s" in user.said("kept", "list")
    assert user.said("kept", "end", kept_image) == f"Ended: {kept_image}\n"
    wait_until_gone(kept_image)
    assert kept(user) == []
    assert launchers.said(*WHERE) == launchers.said(*WHERE) != ""
    assert len(kept(user)) == 1


def test_first_starts_at_once_make_one(launchers: Launchers) -> None:
    began = time.monotonic()
    running = [
        subprocess.Popen(
            launchers.argv(*WHERE, shell=shell),
            env=launchers.user.env(LIMPET_KEEP="yes"),
            cwd=launchers.user.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        for shell in (*SHELLS, *SHELLS)
    ]
    said = {process.communicate(timeout=300)[0] for process in running}
    # On a busy machine some have waited for long enough, and start alone.
    assert len(said) == 1 or time.monotonic() - began > 5
    assert len(kept(launchers.user)) == 1
    assert not [p for p in folder_of(launchers.user).iterdir() if p.name.startswith(".")]


def folder_of(user: User) -> Path:
    (folder,) = (user.state / ".kept").iterdir()
    return folder


def test_what_is_not_the_same_is_apart(
    launchers: Launchers,
    kept_image: Path,
    images: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    user = launchers.user
    first = launchers.said(*WHERE)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with tempfile.TemporaryDirectory(dir=Path.home()) as outside:  # /tmp is seen anyway
        assert launchers.start(*WHERE, cwd=Path(outside)).stdout not in ("", first)
    assert launchers.said(*WHERE, APPTAINER_BIND=f"{elsewhere}:/data") != first
    assert launchers.said(*WHERE, PBS_JOBID="7", TMPDIR="/tmp") != first
    assert launchers.said("sh", "-c", "uname -n", APPTAINER_HOSTNAME="there") == "there\n"
    assert launchers.said(*WHERE, APPTAINER_WRITABLE_TMPFS="1") != first
    newer = user.folder / "newer.sif"
    shutil.copy(images["two"], newer)
    status = kept_image.stat()
    os.utime(newer, ns=(status.st_atime_ns, status.st_mtime_ns))
    newer.replace(kept_image)
    assert launchers.said("framework") == "framework 2.0\n"
    assert len(kept(user)) == 6
    user.said("run", "--keep", kept_image, "true")
    assert len(kept(user)) == 7  # what launchers keep is left alone
    assert launchers.said("framework") == "framework 2.0\n"
    launchers.wrap(kept_image, "--bind", elsewhere)
    assert launchers.said("sh", "-c", f"ls -d {elsewhere}") == f"{elsewhere}\n"


def test_one_that_was_killed_and_a_lock_that_was_left(launchers: Launchers) -> None:
    user = launchers.user
    assert launchers.said(*WHERE)
    folder = folder_of(user)
    (record,) = records(user)
    name = record["name"]
    os.kill(record["pid"], signal.SIGKILL)
    wait_for_end(record["pid"])
    lock = f".{name.rsplit('-', 2)[0]}"
    for left in (lock, ".limpet-other-17"):
        (folder / left).symlink_to(f"{record['pid']} {record['begun']}")
    (folder / f"{lock}-{record['pid']}-{record['begun']}").mkdir()
    assert launchers.said(*WHERE)
    assert len(kept(user)) == 1
    assert [p.name for p in folder.iterdir()] == kept(user)


def test_what_a_first_start_has_open_is_not_held(launchers: Launchers) -> None:
    reading, writing = os.pipe()
    script = f'exec 9>&{writing} 77>&{writing} {writing}>&-; "$@"; true'
    inside = "echo x >/proc/self/fd/77; echo y >&9"
    subprocess.run(
        ["bash", "-c", script, "x", *launchers.argv("sh", "-c", inside, shell=("dash",))],
        env=launchers.user.env(LIMPET_KEEP="1"),
        cwd=launchers.user.folder,
        pass_fds=(writing,),
        check=True,
    )
    os.close(writing)
    assert len(records(launchers.user)) == 1
    os.set_blocking(reading, False)
    assert os.read(reading, 100) == b"x\ny\n"
    assert os.read(reading, 100) == b""  # nobody can write any more
    os.close(reading)


def test_where_it_cannot_be_kept_it_starts_all_the_same(launchers: Launchers) -> None:
    user = launchers.user
    closed = user.folder / "a file and no folder"
    closed.touch()
    done = launchers.start("framework", env={"APPTAINER_CONFIGDIR": str(closed)})
    assert (done.returncode, done.stdout) == (0, "framework 1.0\n")
    assert done.stderr.startswith(
        "limpet: The image cannot be kept mounted: the runtime started no instance. FATAL"
    )
    folder = folder_of(user)
    folder.chmod(0o500)
    done = launchers.start("framework")
    assert (done.stdout, done.stderr) == (
        "framework 1.0\n",
        f"limpet: The image cannot be kept mounted: {folder} cannot be written.\n",
    )
    folder.chmod(0o700)
    assert not list(folder.iterdir())
    done = launchers.start("framework", env={"LIMPET_KEEP": "soon"})
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "limpet: LIMPET_KEEP=soon: it must be a time such as 90s, 15m or 2h.\n"
    assert kept(user) == []


def shim(user: User, name: str, text: str) -> str:
    """A PATH with that command in front."""
    folder = user.folder / "shims"
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_a_lock_that_another_start_takes_over_is_left_alone(launchers: Launchers) -> None:
    user = launchers.user
    launchers.said(*WHERE)
    (record,) = records(user)
    end_all(user)
    wait_for_end(record["pid"])
    lock = folder_of(user) / f".{record['name'].rsplit('-', 2)[0]}"
    lock.symlink_to("1 0")
    # Between the look and the deed, this process comes in between.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    other = f"{os.getpid()} {fields[19]}"
    path = shim(
        user,
        "readlink",
        f'/usr/bin/readlink "$@" || exit\n[ -e "$0.done" ] && exit\n: >"$0.done"\n'
        f'/usr/bin/ln -sfn "{other}" "$1"',
    )
    launchers.said("framework", PATH=path)
    assert str(lock.readlink()) == other
    assert [p.name for p in folder_of(user).glob(".*")] == [lock.name]
    lock.unlink()


def test_an_instance_that_is_not_noted_down_is_in_nobodys_way(launchers: Launchers) -> None:
    user = launchers.user
    for argv in (launchers.argv(*WHERE), user.argv("run", "own image.sif", *WHERE)):

        def start(argv: list[str] = argv) -> str:
            env = user.env(LIMPET_KEEP="1")
            return subprocess.check_output(argv, env=env, cwd=user.folder, text=True)

        first = start()
        (record,) = records(user)
        shutil.rmtree(folder_of(user) / record["name"])
        assert start() not in ("", first)
        (other,) = records(user)
        end_all(user)
        os.kill(record["pid"], signal.SIGKILL)
        shutil.rmtree(folder_of(user) / other["name"])


def test_a_keeper_that_does_not_run_keeps_nothing(launchers: Launchers) -> None:
    user = launchers.user
    (keeper,) = launchers.folder.glob(".limpet/versions/*/keeper.sh")
    keeper.write_text("#!/bin/sh\n")  # as where what is in the state cannot be executed
    done = launchers.start("framework")
    assert (done.returncode, done.stdout) == (0, "framework 1.0\n")
    assert done.stderr.startswith("limpet: The image cannot be kept mounted: its keeper")
    assert not list(folder_of(user).iterdir())
    listed = ["apptainer", "instance", "list", "--json"]
    assert json.loads(subprocess.check_output(listed, env=user.env()))["instances"] == []


def test_what_others_may_have_written_is_not_read(launchers: Launchers) -> None:
    user = launchers.user
    first = launchers.said(*WHERE)
    (record,) = records(user)
    folder = folder_of(user)
    same = folder / record["name"] / "same.sh"
    other = user.folder / "other.sh"
    other.write_text(f"echo read; {same.read_text()}")
    same.unlink()
    same.symlink_to(other)
    assert "read" not in launchers.said(*WHERE)
    end_all(user)
    shutil.rmtree(folder)
    folder.symlink_to("/usr")  # somebody else's
    assert launchers.said(*WHERE) != first


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_made_anew_is_what_is_seen(launchers: Launchers, shell: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(dir=Path.home()) as outside:  # /tmp is seen anyway
        check_made_anew(
            Path(outside),
            lambda folder, code, env: launchers.start(
                "sh", "-c", code, cwd=folder, env=env, shell=shell
            ),
        )
    assert len(records(launchers.user)) == 2


def test_an_image_by_a_name_that_cannot_be_noted_down(
    launchers: Launchers, kept_image: Path
) -> None:
    user = launchers.user
    launchers.wrap(kept_image.rename(user.folder / "own\timage.sif"))
    assert launchers.said("framework") == "framework 1.0\n"
    assert not records(user)


def test_a_shell_that_ends_at_the_first_failure(launchers: Launchers) -> None:
    path = shim(launchers.user, "stat", "exit 1")
    for shell in SHELLS:
        said = launchers.said("framework", shell=(*shell, "-e"), PATH=path)
        assert said == "framework 1.0\n"


def test_limpet_run_hears_the_same_word(user: User, kept_image: Path) -> None:
    where = ("run", kept_image, *WHERE)
    keeping = {"LIMPET_KEEP": "20m"}
    try:
        first = user.limpet(*where, env=keeping)
        assert user.limpet(*where, env=keeping).stdout == first.stdout != user.said(*where)
        assert f"{kept_image}  for 1200 s" in user.said("kept", "list")
        done = user.limpet("run", "--writable-tmpfs", *where[1:], env=keeping)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout != first.stdout
        done = user.limpet(*where, env={"LIMPET_KEEP": "soon"})
        assert (done.returncode, done.stdout) == (125, "")
        assert "LIMPET_KEEP=soon: it must be" in done.stderr
    finally:
        end_all(user)


def on_terminal(argv: list[str], env: dict[str, str], cwd: Path) -> str:
    """What a program says that is started on a terminal, as a job of its own."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(cwd)
        os.execve(argv[0], argv, env)
    said = b""
    with contextlib.suppress(OSError):  # it has ended
        while more := os.read(terminal, 1024):
            said += more
    os.close(terminal)
    os.waitpid(pid, 0)
    return said.decode().replace("\r\n", "\n")


def test_what_is_started_by_hand_is_not_kept(launchers: Launchers) -> None:
    user = launchers.user
    env = user.env(LIMPET_KEEP="1")
    starts = (launchers.argv(*WHERE), user.argv("run", "own image.sif", *WHERE))
    for argv in starts:
        assert on_terminal(argv, env, user.folder).startswith("pid:")
        assert records(user) == []
    for count, argv in enumerate(starts, 1):
        said = on_terminal(["/bin/sh", "-c", '"$@"; "$@"', "sh", *argv], env, user.folder)
        assert len(set(said.split())) == 1
        assert len(records(user)) == count


def test_a_kernel_is_not_kept(launchers: Launchers) -> None:
    user = launchers.user
    connection = user.folder / "runtime" / "kernel-1.json"
    connection.parent.mkdir()
    connection.touch()
    code = "import sys; print(sys.argv[1:])"
    launched = ("python", "-c", code, "-m", "ipykernel_launcher", "-f", connection)
    launchers.start("python", "-m", "ipykernel_launcher", "-f", connection)
    assert records(user) == []
    user.limpet("run", "own image.sif", *launched, env={"LIMPET_KEEP": "1"})
    assert records(user) == []


def test_a_server_that_was_killed(launchers: Launchers, kept_image: Path) -> None:
    user = launchers.user
    for argv in (launchers.argv(*WHERE), user.argv("run", kept_image, *WHERE)):

        def start(argv: list[str] = argv) -> str:
            env = user.env(LIMPET_KEEP="10s")
            done = subprocess.run(argv, env=env, cwd=user.folder, capture_output=True, text=True)
            return done.stdout

        first = start()
        for pid in servers_of(kept_image):
            os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 30
        while not (said := start()) and time.monotonic() < end:
            time.sleep(0.2)
        assert said not in ("", first)
        assert user.said("kept", "end")
        assert records(user) == []


def test_what_the_runtime_notes_down_elsewhere(launchers: Launchers, kept_image: Path) -> None:
    user = launchers.user
    elsewhere = {"SINGULARITY_CONFIGDIR": str(user.folder / "elsewhere")}
    first = launchers.said(*WHERE)
    assert launchers.start(*WHERE, env=elsewhere).stdout not in ("", first)
    argv = launchers.argv("sh", "-c", "echo ready; exec sleep 60")
    running = subprocess.Popen(
        argv,
        env=user.env(LIMPET_KEEP="1", **elsewhere),
        cwd=user.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert running.stdout and running.stdout.readline() == "ready\n"
    user.said("kept", "end")
    assert running.wait(60) != 0
    launchers.wrap(kept_image, "--home", "none")
    other = user.folder / "other home"
    other.mkdir()
    state = str(user.folder / "state")
    for home in (user.home, other):
        assert launchers.said(*WHERE, LIMPET_STATE_DIR=state, HOME=str(home))
    user.limpet("kept", "end", env={"LIMPET_STATE_DIR": state})


def test_another_user_namespace(launchers: Launchers) -> None:
    first = launchers.said(*WHERE)
    inside = ["unshare", "--user", "--map-current-user"]
    for argv in (launchers.argv(*WHERE), launchers.user.argv("run", "own image.sif", *WHERE)):
        env = launchers.user.env(LIMPET_KEEP="1")
        said = subprocess.check_output([*inside, *argv], env=env, cwd=launchers.user.folder)
        assert said.decode() not in ("", first)


def test_no_instance_is_moved_to_another_control_group(launchers: Launchers) -> None:
    """The runtime would do so over the session's bus."""
    user = launchers.user
    text = f'echo "$*:$DBUS_SESSION_BUS_ADDRESS" >>"$0.told"\nexec {shutil.which("apptainer")} "$@"'
    env = user.env(
        DBUS_SESSION_BUS_ADDRESS="unix:path=/nowhere",
        PATH=shim(user, "apptainer", text),
        LIMPET_KEEP="1",
    )
    passed = ("--env", "DBUS_SESSION_BUS_ADDRESS")
    for argv in (
        user.argv("wrap", *passed, "own image.sif", launchers.folder, "--folder", "/usr/bin"),
        launchers.argv(*WHERE),
        user.argv("run", *passed, "own image.sif", *WHERE),
    ):
        subprocess.run(argv, env=env, cwd=user.folder, check=True)
    lines = (user.folder / "shims" / "apptainer.told").read_text().splitlines()
    started = [line for line in lines if line.startswith("instance start ")]
    assert len(started) == 2
    assert all(line.endswith(":") for line in started)


def test_nothing_is_left_of_what_was_killed(launchers: Launchers, kept_image: Path) -> None:
    user = launchers.user
    for argv in (launchers.argv(*WHERE), user.argv("run", "own image.sif", *WHERE)):
        for _ in range(2):
            env = user.env(LIMPET_KEEP="1")
            subprocess.run(argv, env=env, cwd=user.folder, check=True)
            (record,) = records(user)
            parent = int(
                Path(f"/proc/{record['pid']}/stat").read_text().rpartition(")")[2].split()[1]
            )
            # As with a control group that is killed.
            for pid in (parent, record["pid"], *servers_of(kept_image)):
                os.kill(pid, signal.SIGKILL)
            wait_for_end(record["pid"])
        left = [path for path in (user.home / ".apptainer").rglob("limpet-*") if path.is_file()]
        assert [path.suffix for path in left] == [".json"]
        shutil.rmtree(folder_of(user))


def test_a_shell_that_writes_over_nothing(launchers: Launchers) -> None:
    launchers.said(*WHERE)
    (record,) = records(launchers.user)
    last = folder_of(launchers.user) / record["name"] / "last"
    for shell in SHELLS:
        os.utime(last, (0, 0))
        launchers.said(*WHERE, shell=(*shell, "-C"))
        assert last.stat().st_mtime > 0


def test_programs_write_nothing_that_is_read_outside(launchers: Launchers) -> None:
    user = launchers.user
    inside = "/.limpet/keep"
    code = f"for f in {inside} {inside}/*; do if [ -w $f ]; then echo $f; fi; done"
    said = launchers.said("sh", "-c", code)
    assert said == f"{inside}/keepers\n"
    done = user.limpet("run", "own image.sif", "sh", "-c", code, env={"LIMPET_KEEP": "1"})
    assert (done.stdout, done.stderr) == (said, "")
    assert len(records(user)) == 2
