"""Launchers that read ahead: at a job's first start on a node, where the image is slow to come."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.slowfs import SlowView, build_slowfs, slow_view
from limpet.tools.images import read_image
from tests.waiting import wait_until
from tests.wrap.conftest import Person

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("wrap")]

SHELLS = [words for words in (["dash"], ["bash"], ["busybox", "sh"]) if shutil.which(words[0])]
in_all_shells = pytest.mark.parametrize("shell", SHELLS, ids=" ".join)

DD = """#!/bin/sh
printf '%s\\n' "$*" >>"{log}"
{does}
"""


@pytest.fixture
def slow_image(profiled_image: Path, tmp_path: Path) -> Iterator[SlowView]:
    """The image's folder on a file system of which each read takes long, until it is seen."""
    with slow_view(build_slowfs(tmp_path), profiled_image.parent, delay_ms=5) as view:
        yield view


@dataclass
class Starter:
    """Starts a launcher in jobs, with a dd that writes down what it is asked for."""

    person: Person
    shell: list[str]

    @property
    def log(self) -> Path:
        return self.person.home / "dd.log"

    @property
    def launchers(self) -> Path:
        return self.person.home / "env"

    def take(self, does: str) -> None:
        tools = self.person.home / "tools"
        tools.mkdir()
        (tools / "dd").write_text(DD.format(log=self.log, does=does))
        (tools / "dd").chmod(0o755)
        self.log.touch()

    def start(self, job: str) -> list[str]:
        """What dd had been asked for when one start of the job was over."""
        before = len(self.asked())
        temporary = self.person.home / f"job {job}"
        temporary.mkdir(exist_ok=True)
        env = {"PATH": f"{self.person.home}/tools:{self.person.environment()['PATH']}"}
        env |= {"SLURM_JOB_ID": job, "TMPDIR": str(temporary)} if job else {}
        done = self.person.run(*self.shell, self.launchers / "bin/python", "-c", "pass", env=env)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return self.asked()[before:]

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()

    def looks(self) -> int:
        """How many pages were looked at."""
        return sum("skip_bytes" not in line for line in self.asked())

    def ranges(self) -> dict[int, int]:
        """Which ranges were read."""
        found = re.findall(r"skip_bytes,count_bytes skip=(\d+) count=(\d+)", self.log.read_text())
        return {int(at): int(length) for at, length in found}


@pytest.fixture
def starter(person: Person, shell: list[str]) -> Starter:
    return Starter(person=person, shell=shell)


@in_all_shells
def test_the_first_start_in_a_job_reads_ahead(
    profiled_image: Path, slow_image: SlowView, starter: Starter
) -> None:
    starter.take('exec /bin/dd "$@"')
    starter.person.wrap(slow_image.place / profiled_image.name, starter.launchers)
    wanted = dict(read_image(str(profiled_image)).ahead.ranges)
    starter.start("1")
    text = (starter.launchers / ".limpet/current/ahead.sh").read_text()
    parts = {int(at): int(length) for at, length in re.findall(r"(\d+):(\d+)", text)}
    wait_until(lambda: starter.ranges() == parts)
    read = starter.ranges()
    assert all(any(a <= at < a + n for a, n in read.items()) for at in wanted)
    wait_until(lambda: slow_image.counted().read_bytes >= sum(wanted.values()))
    assert starter.looks() == 3
    assert starter.start("1") == []  # once for each job and node
    starter.start("2")
    wait_until(lambda: starter.looks() == 6)
    time.sleep(1)
    assert len(starter.asked()) == 6 + len(read)  # at hand now
    assert starter.start("") == []


@pytest.mark.skipif(["busybox", "sh"] not in SHELLS, reason="needs busybox")
@pytest.mark.parametrize("shell", [["busybox", "sh"]], ids=" ".join)
def test_where_dd_does_not_tell_nothing_is_read(
    profiled_image: Path, slow_image: SlowView, starter: Starter
) -> None:
    """As Debian's busybox does not."""
    starter.take('exec busybox dd "$@"')
    starter.person.wrap(slow_image.place / profiled_image.name, starter.launchers)
    starter.start("1")
    wait_until(lambda: starter.looks() == 3)
    time.sleep(1)
    assert len(starter.asked()) == 3


SAID = {
    "": False,
    "dd: 'im age.sif': Input/output error": False,
    "4096 bytes (4.1 kB, 4.0 KiB) copied, 1.8557e-05 s, 221 MB/s": False,
    "4096 bytes (4.1 kB, 4.0 KiB) copied, 0.000285 s, 14.4 MB/s": False,
    "4096 bytes (4.1 kB, 4.0 KiB) copied, 0.000321 s, 12.8 MB/s": True,
    "4096 bytes (4.1 kB, 4.0 KiB) copied, 0.0517 s, 79.2 kB/s": True,
    "4096 bytes (4.1 kB, 4.0 KiB) copied, 1.50217 s, 2.7 kB/s": True,
    "4096 bytes (4.0KB) copied, 0.000021 seconds, 186.0MB/s": False,
    "4096 bytes (4.0KB) copied, 0.005170 seconds, 773.7KB/s": True,
}


def test_what_dd_says_of_a_page(
    profiled_image: Path, slow_image: SlowView, person: Person, tmp_path: Path
) -> None:
    """GNU's, and busybox's where it tells the time."""
    person.wrap(slow_image.place / profiled_image.name, person.home / "env")
    text = (person.home / "env/.limpet/current/ahead.sh").read_text()
    (tmp_path / "ahead.sh").write_text(f"_limpet_local=$PWD/local\n{text}")
    (tmp_path / "dd").write_text(DD.format(log="log", does='echo "$SAID" >&2'))
    (tmp_path / "dd").chmod(0o755)
    folders: dict[str, Path] = {}
    for number, shell in enumerate(SHELLS):
        for line in SAID:
            folder = tmp_path / str(len(folders))
            folder.mkdir()
            folders[f"{number} {line}"] = folder
            env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": line}
            subprocess.run([*shell, "../ahead.sh"], cwd=folder, env=env, check=True)
    wanted = {f"{number} {line}": SAID[line] for number in range(len(SHELLS)) for line in SAID}

    def read() -> dict[str, bool]:
        return {line: "skip_bytes" in (at / "log").read_text() for line, at in folders.items()}

    wait_until(lambda: all((at / "log").exists() for at in folders.values()))
    wait_until(lambda: read() == wanted)
    time.sleep(1)
    assert read() == wanted


def test_a_local_image_is_not_read_ahead(profiled_image: Path, person: Person) -> None:
    envs = person.home / "env"
    person.wrap(profiled_image, envs, "--only", "python")
    assert not (envs / ".limpet/current/ahead.sh").exists()
