"""`limpet doctor` as a user starts it, on a machine where things hang or are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.core.machine import Trouble
from limpet.tools import bounded
from tests.cluster import Cluster
from tests.conftest import Limpet
from tests.waiting import wait_until

pytestmark = pytest.mark.real


def examined(limpet: Limpet, *words: str, **env: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The report, and its findings by code."""
    if "--timeout" not in words:
        words = (*words, "--timeout", "60")  # nothing hangs: no look is to be given up
    done = limpet("doctor", "--json", *words, env=env)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    findings = {finding["code"]: finding for finding in report["findings"]}
    errors = [f for f in report["findings"] if f["severity"] == "error"]
    assert done.returncode == bool(errors)
    return report, findings


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_this_machine(limpet: Limpet, home: Path) -> None:
    (home / ".bashrc").write_text("# >>> conda initialize >>>\n")
    site = home / ".local/lib/python3.13/site-packages/six-1.0.dist-info"
    site.mkdir(parents=True)
    report, found = examined(limpet, PYTHONHOME="", HTTP_PROXY="http://u:pw@p:1")
    machine = report["machine"]
    assert machine["container"]["kind"] in ("apptainer", "singularity-ce")
    assert {"home", "cache", "build", "state", "temporary", "working"} == {
        place["role"] for place in machine["places"]
    }
    assert machine["troubles"] == []
    assert found["LMP301"]["evidence"] == [f"{home}/.bashrc:1"]
    assert found["LMP302"]["what"] == "~/.local has 1 packages for Python 3.13."
    assert "pw" not in json.dumps(report)
    told = limpet("doctor").stdout
    assert "Your shell starts conda at each start. [LMP301]" in told
    assert "  Cure:\n    conda init --reverse\n" in told


def test_a_file_system_that_hangs_is_named(limpet: Limpet, dead_folder: Path) -> None:
    begun = time.monotonic()
    report, found = examined(
        limpet,
        "--timeout",
        "5",
        LIMPET_CACHE_DIR=str(dead_folder / "cache"),
        TMPDIR=str(dead_folder),
    )
    assert time.monotonic() - begun < 60
    hung = [trouble for trouble in report["machine"]["troubles"] if trouble["hung"]]
    assert f"The cache folder {dead_folder}/cache" in {trouble["subject"] for trouble in hung}
    assert any("It is on fuse" in trouble["why"] for trouble in hung)
    assert found["LMP001"]["severity"] == "error"
    roles = {place["role"] for place in report["machine"]["places"]}
    assert {"home", "state", "working"} <= roles  # the rest was seen all the same


def test_a_home_that_hangs(limpet: Limpet, dead_folder: Path) -> None:
    report, _ = examined(limpet, "--timeout", "5", HOME=str(dead_folder))
    subjects = {trouble["subject"] for trouble in report["machine"]["troubles"]}
    assert "The start-up files of the shell" in subjects
    assert report["machine"]["container"]["version"]


def test_commands_that_hang_or_fail(limpet: Limpet, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    program(programs, "quota", "exec sleep 600")
    program(programs, "srun", "exit 3")
    program(programs, "mpirun", "head -c 100 /dev/urandom; kill -9 $$")
    program(programs, "mksquashfs", "printf '\\033[2J'")
    report, _ = examined(limpet, "--timeout", "5", PATH=f"{programs}:{os.environ['PATH']}")
    subjects = {trouble["subject"]: trouble for trouble in report["machine"]["troubles"]}
    assert set(subjects) == {"The quota"}
    assert "quota did not end within" in subjects["The quota"]["why"]
    # What a look started dies with it.
    wait_until(lambda: not _sleepers(str(programs)), timeout_s=30)


def _sleepers(place: str) -> list[str]:
    found = subprocess.run(["pgrep", "-f", "sleep 600"], capture_output=True, text=True)
    return [pid for pid in found.stdout.split() if place in _environment(pid)]


def _environment(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def test_nothing_there_at_all(limpet: Limpet, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    _, found = examined(
        limpet,
        PATH=str(empty),
        TMPDIR=str(tmp_path / "gone"),
        PIP_CERT="/no/such",
        HOME="/no/such/home",
        LIMPET_STATE_DIR="/proc/nothing",
    )
    assert {"LMP101", "LMP204", "LMP206", "LMP304"} <= set(found)


def test_a_configuration_that_is_broken_is_said(limpet: Limpet, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("cache_dir = [")
    report, _ = examined(limpet, LIMPET_CONFIG=str(bad))
    assert "The configuration" in {t["subject"] for t in report["machine"]["troubles"]}


def test_fix_does_what_is_safe_and_no_more(limpet: Limpet, tmp_path: Path, home: Path) -> None:
    build = tmp_path / "build"
    build.mkdir()
    (build / ".a.sif.limpet-partial-00112233").touch()
    (build / "mine.sif").touch()
    build.chmod(0o777)
    (home / ".bashrc").write_text("# >>> conda initialize >>>\n")
    report, found = examined(limpet, "--fix", LIMPET_BUILD_DIR=str(build))
    assert len(report["fixed"]) == 2
    assert {"LMP207", "LMP209"}.isdisjoint(found) and "LMP301" in found
    assert [path.name for path in build.iterdir()] == ["mine.sif"]
    assert build.stat().st_mode & 0o777 == 0o755
    assert (home / ".bashrc").read_text().startswith("# >>>")


def test_wrong_options(limpet: Limpet) -> None:
    assert limpet("doctor", "--partition=x").returncode == 2
    assert limpet("doctor", "--timeout", "0").returncode == 2
    done = limpet("doctor", "--node", env={"PATH": "/nowhere"})
    assert done.returncode == 1 and "There is no srun here" in done.stdout


def test_looks_that_fail_or_hang() -> None:
    def fails() -> None:
        raise OSError("broken")

    def dies() -> None:
        os.kill(os.getpid(), 9)

    looks = {"big": lambda: "x" * 10**6, "fails": fails, "dies": dies}
    found = bounded.look_all({**looks, "hangs": lambda: time.sleep(60)}, timeout_s=4)
    assert found["big"] == "x" * 10**6
    assert found["fails"] == Trouble(subject="fails", why="broken")
    assert found["dies"].why == "The look ended without an answer."
    assert found["hangs"].hung


# ---- a compute node ------------------------------------------------------------------------------


@pytest.mark.xdist_group("slurm")
def test_a_compute_node(limpet: Limpet, cluster: Cluster) -> None:
    words = ("--node", "--timeout", "60")
    done = limpet("doctor", *words, "--partition=p", "--json", env=cluster.env)
    report = json.loads(done.stdout)
    assert report["node"]["cluster"]["job"], done.stdout + done.stderr
    assert report["machine"]["cluster"]["slurm"].startswith("2")
    assert "pmi2" in report["machine"]["cluster"]["pmi"]
    codes = {finding["code"] for finding in report["findings"]}
    assert "LMP404" not in codes and "LMP405" not in codes
    told = limpet("doctor", *words, env=cluster.env).stdout
    assert "is like this machine" in told or "Different on" in told
    refused = limpet("doctor", "--node", "--partition=nothing", env=cluster.env)
    assert refused.returncode == 1 and "[LMP404]" in refused.stdout
    assert "invalid partition" in refused.stdout


def test_it_needs_no_more_than_a_moment_to_load() -> None:
    """The looks themselves import nothing that a launch does without."""
    script = "import sys, limpet.actions.doctor as d; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"rattler", "requests", "rich", "elftools"} & set(eval(done.stdout))
