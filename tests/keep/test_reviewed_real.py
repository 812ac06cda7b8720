"""Kept images: what happens beside them, on the real thing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.keep.test_keep_real import WHERE
from tests.keep.test_launchers_real import Launchers, launchers, on_terminal, records, shim
from tests.personal.conftest import User
from tests.waiting import wait_until

__all__ = ["launchers"]

pytestmark = pytest.mark.real


def test_who_makes_an_instance_is_not_killed_with_it(
    launchers: Launchers, kept_image: Path
) -> None:
    """It is noted down in the instance's place meanwhile, and its own program is yet to come."""
    user = launchers.user
    gate, slow = user.folder / "gate", user.folder / "slow"
    text = (
        f'case "$*" in "instance start "*) touch \'{slow}\'; '
        f"while ! [ -e '{gate}' ]; do sleep 0.1; done ;; esac\n"
        f'exec {shutil.which("apptainer")} "$@"'
    )
    env = user.env(PATH=shim(user, "apptainer", text), LIMPET_KEEP="1")
    argv = user.argv("wrap", kept_image, launchers.folder, "--folder", "/usr/bin")
    subprocess.run(argv, env=env, cwd=user.folder, check=True)
    running = subprocess.Popen(
        launchers.argv(*WHERE), env=env, cwd=user.folder, stdout=subprocess.PIPE, text=True
    )
    wait_until(slow.exists)
    user.said("kept", "end")
    gate.touch()
    said, _ = running.communicate(timeout=60)
    assert (running.returncode, said[:4]) == (0, "pid:")


def test_a_program_that_kills_what_waits_ends_no_other(user: User, kept_image: Path) -> None:
    words = ("run", "--keep-for", "100s", kept_image)
    running = user.start(*words, "python", "-c", "print('ready', flush=True); input()")
    assert running.stdout and running.stdout.readline() == "ready\n"
    code = """
import os, pathlib, signal, time
end = time.monotonic() + 60
for signum in (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP):
    found = None
    while not found:
        assert time.monotonic() < end
        for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
            if comm.read_text() == "sleep\\n":
                found = comm.parent.name
    os.kill(int(found), signum)
    while pathlib.Path("/proc", found).exists():
        time.sleep(0.1)
time.sleep(3)
print("done")
"""
    assert user.said(*words, "python", "-c", code) == "done\n"
    assert user.said(*words, *WHERE)
    running.communicate("\n", timeout=60)
    assert running.returncode == 0


def test_what_programs_have_closed_is_removed(user: User, kept_image: Path) -> None:
    code = "cd /.limpet/keep/keepers && mkdir -p closed/below && chmod 0 closed"
    user.said("run", "--keep", kept_image, "sh", "-c", code)
    user.said("kept", "end")
    assert list(user.state.glob(".kept/*/limpet-*")) == []


def test_kernels_of_other_languages_are_not_kept(launchers: Launchers) -> None:
    """They are known by their connection file: R -e IRkernel::main() --args FILE."""
    user = launchers.user
    for word in ("/run/user/1/jupyter/kernel-5a1f.json", "--f=/a b/kernel-v2-1.json"):
        launchers.start("sh", "-c", "exit", "--args", word)
        user.limpet("run", "own image.sif", "true", word, env={"LIMPET_KEEP": "1"})
        assert records(user) == []
    launchers.start("sh", "-c", "exit", "kernel-5a1f.json.txt")
    assert len(records(user)) == 1


def test_by_hand_whatever_it_reads_and_in_the_background(launchers: Launchers) -> None:
    """Ctrl-C reaches what is in the foreground, also with its input from a file."""
    user = launchers.user
    env = user.env(LIMPET_KEEP="1")
    starts = (launchers.argv(*WHERE), user.argv("run", "own image.sif", *WHERE))
    for argv in starts:
        code = 'exec "$@" </dev/null 2>/dev/null'
        on_terminal(["/bin/sh", "-c", code, "sh", *argv], env, user.folder)
        assert records(user) == []
    for count, argv in enumerate(starts, 1):
        code = 'set -m; "$@" & wait'
        on_terminal(["/bin/sh", "-c", code, "sh", *argv], env, user.folder)
        assert len(records(user)) == count
