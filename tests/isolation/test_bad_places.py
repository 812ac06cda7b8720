"""Machines and folders that a start cannot work with: a clear error, and nothing lost.

What only an administrator can forbid is forbidden in a user namespace of the test's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from limpet.formats.sif import SifWriter
from limpet.tools import host
from tests.launch.conftest import MACHINE, Person
from tests.launch.test_launch_real import tree

NAMESPACE = ("unshare", "--user", "--map-current-user", "--keep-caps", "--mount")
LOOK = ("cat", "/etc/the-image")
PLAIN = "exec setpriv --ambient-caps -all --inh-caps -all --"


def start_where(
    person: Person, forbidden: str, *words: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`limpet WORDS` after the script `forbidden` has run in a namespace where it may."""
    argv = [sys.executable, "-P", "-m", "limpet", *map(str, words)]
    return subprocess.run(
        [*NAMESPACE, "bash", "-c", f'set -e; {forbidden}; {PLAIN} "$@"', "-", *argv],
        env=person.environment() | (env or {}),
        cwd=person.home,
        capture_output=True,
        text=True,
        timeout=180,
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.real
def test_user_namespaces_are_forbidden(person: Person, foreign_sif: Path) -> None:
    forbid = "echo 0 > /proc/sys/user/max_user_namespaces"
    done = start_where(person, forbid, "run", foreign_sif, "true")
    refused(done, "no user namespaces", "apptainer-suid")


@pytest.mark.real
def test_fuse_cannot_be_used(person: Person, foreign_sif: Path) -> None:
    closed = person.home.parent / "closed"
    closed.touch(mode=0o000)
    forbid = f"mount --bind '{closed}' /dev/fuse"
    refused(start_where(person, forbid, "run", foreign_sif, "true"), "/dev/fuse", "mode 666")


@pytest.mark.real
def test_no_space_for_state(person: Person, foreign_sif: Path) -> None:
    full = person.home.parent / "full"
    full.mkdir()
    fill = f"mount -t tmpfs -o size=4k,nr_inodes=3 none '{full}'; touch '{full}/x'"
    env = {"LIMPET_STATE_DIR": f"{full}/state", "LIMPET_CACHE_DIR": f"{full}/cache"}
    done = start_where(person, fill, "run", foreign_sif, "true", env=env)
    refused(done, "cannot be made", "No space left", "LIMPET_STATE_DIR")


@pytest.mark.real
def test_a_full_cache_is_no_reason_not_to_start(person: Person, foreign_sif: Path) -> None:
    full = person.home.parent / "full"
    full.mkdir()
    fill = (
        f"mount -t tmpfs -o size=4k none '{full}'; dd if=/dev/zero of='{full}/x' 2>/dev/null || :"
    )
    env = {"LIMPET_CACHE_DIR": f"{full}/cache"}
    done = start_where(person, fill, "run", foreign_sif, *LOOK, env=env)
    assert (done.stdout, done.stderr) == ("yes\n", "")


@pytest.mark.real
def test_state_that_others_can_write(person: Person, foreign_sif: Path) -> None:
    state = person.home.parent / "state"
    state.mkdir()
    for mode in (0o770, 0o702, 0o1777):
        state.chmod(mode)
        refused(person.limpet("run", foreign_sif, "true"), "can be written by others", "chmod go-w")
    state.chmod(0o755)
    assert person.limpet("run", foreign_sif, "true").returncode == 0


@pytest.mark.real
def test_state_of_someone_else(person: Person, foreign_sif: Path) -> None:
    # /tmp is root's, and everybody may write there.
    done = person.limpet("run", foreign_sif, "true", env={"LIMPET_STATE_DIR": "/tmp"})
    refused(done, "/tmp belongs to someone else", "LIMPET_STATE_DIR")


@pytest.mark.real
def test_a_read_only_home_and_no_other_place(person: Person, foreign_sif: Path) -> None:
    (person.home / "notes").write_text("mine")
    person.home.chmod(0o555)
    before = tree(person.home)
    env = {"LIMPET_STATE_DIR": str(person.home / "state"), "TMPDIR": "/proc"}
    refused(
        person.limpet("run", foreign_sif, "true", env=env), "cannot be made", "LIMPET_STATE_DIR"
    )
    person.home.chmod(0o755)
    assert tree(person.home) == before


@pytest.mark.real
def test_an_image_of_another_architecture(person: Person) -> None:
    path = person.home / "other.sif"
    arch = "arm64" if MACHINE == "x86_64" else "amd64"
    with path.open("w+b") as file:
        writer = SifWriter(file, arch=arch, ident=b"0123456789abcdef")
        with writer.partition("root") as into:
            into.write(b"hsqs" + bytes(5000))
        writer.finish()
    other = "aarch64" if MACHINE == "x86_64" else "x86_64"
    refused(person.limpet("run", path, "true"), f"is for {other}; this machine is {MACHINE}")


def test_whether_namespaces_are_allowed(tmp_path: Path) -> None:
    assert host.probe_namespaces(tmp_path)
    for name, value in (
        ("user/max_user_namespaces", "100"),
        ("kernel/unprivileged_userns_clone", "0"),
    ):
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{value}\n")
    assert not host.probe_namespaces(tmp_path)


@pytest.mark.parametrize(
    "place", ["libexec/apptainer/bin", f"lib/{os.uname().machine}-linux-gnu/apptainer/bin"]
)
def test_whether_the_runtime_is_setuid(tmp_path: Path, place: str) -> None:
    runtime = tmp_path / "bin/apptainer"
    starter = tmp_path / place / "starter"
    for path in (runtime, starter):
        path.parent.mkdir(parents=True)
    runtime.touch()
    assert host.probe_setuid(runtime) is None
    starter.touch()
    assert host.probe_setuid(runtime) is False
    starter.with_name("starter-suid").touch(mode=0o755)
    assert host.probe_setuid(runtime) is False
    starter.with_name("starter-suid").chmod(0o4755)
    assert host.probe_setuid(runtime) is True
