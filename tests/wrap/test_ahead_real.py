"""Launchers that read ahead: at a job's first start on a node, where the image is slow to come."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from limpet.core.image import AHEAD_OBJECT, Ahead
from limpet.tools.images import read_named
from tests.conftest import Base, SharedOnce
from tests.wrap.conftest import SCRIPTS, Person, write_wheel

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("wrap")]

SHIM = """#!/bin/sh
printf '%s\\n' "$*" >>"$DD_LOG"
exec /bin/dd "$@"
"""


@pytest.fixture
def slowfs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    return importlib.import_module("slowfs")


@pytest.fixture(scope="module")
def image(work: Path, cache_dir: Path, debian_base: Base, shared_once: SharedOnce) -> Path:
    """An image with a profile, in a folder of its own."""
    folder = work / "ahead"
    folder.mkdir()
    wheel = write_wheel(folder, SCRIPTS)
    person = Person(home=folder, cache=cache_dir)
    wanted = ("--base", debian_base.reference, "--pip", f"limpetsay @ {wheel.as_uri()}")
    made = folder / "im age.sif"
    done = person.limpet("build", *wanted, "--profile", "auto", "-o", made)
    assert done.returncode == 0, done.stderr
    return made


def wait_until(holds: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return holds()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_first_start_in_a_job_reads_ahead(
    image: Path, person: Person, slowfs: ModuleType, tmp_path: Path, shell: str
) -> None:
    log, tools = person.home / "dd.log", person.home / "tools"
    tools.mkdir()
    (tools / "dd").write_text(SHIM)
    (tools / "dd").chmod(0o755)
    own = person.environment()
    path = {"PATH": f"{tools}:{own['PATH']}", "DD_LOG": str(log)}
    envs = person.home / "env"

    def start(job: str) -> list[str]:
        """What dd had been asked for when one start of the job was over."""
        before = len(log.read_text().splitlines()) if log.exists() else 0
        temporary = person.home / f"job {job}"
        temporary.mkdir(exist_ok=True)
        session = {"SLURM_JOB_ID": job, "TMPDIR": str(temporary)} if job else {}
        done = person.run(shell, envs / "bin/python", "-c", "pass", env=path | session)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return log.read_text().splitlines()[before:] if log.exists() else []

    with slowfs.slow_view(slowfs.build_slowfs(tmp_path), image.parent, delay_ms=5) as view:
        person.wrap(view.place / image.name, envs, "--only", "python")
        data = read_named(image, AHEAD_OBJECT)
        assert data
        wanted = dict(msgspec.json.decode(data, type=Ahead).ranges)
        start("1")
        assert wait_until(lambda: sum(ranges_in(log).values()) >= sum(wanted.values()))
        assert all(any(a <= at < a + n for a, n in ranges_in(log).items()) for at in wanted)
        assert wait_until(lambda: view.counted().read_bytes >= sum(wanted.values()))
        assert looks_in(log) == 3
        reads = len(ranges_in(log))
        assert start("1") == []  # once for each job and node
        start("2")
        assert wait_until(lambda: looks_in(log) == 6)
        time.sleep(1)
        assert len(ranges_in(log)) == reads == log.read_text().count("skip_bytes")  # at hand now
        assert start("") == []


def looks_in(log: Path) -> int:
    """How many pages were looked at."""
    return sum("iflag" not in line for line in log.read_text().splitlines())


def ranges_in(log: Path) -> dict[int, int]:
    """Which ranges were read."""
    text = log.read_text() if log.exists() else ""
    return {int(a): int(n) for a, n in re.findall(r"skip=(\d+) count=(\d{2,})", text)}


def test_a_local_image_is_not_read_ahead(image: Path, person: Person) -> None:
    envs = person.home / "env"
    person.wrap(image, envs, "--only", "python")
    assert not (envs / ".limpet/current/ahead.sh").exists()
