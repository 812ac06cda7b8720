"""What launchers start in a kept image, and what they keep it with: as `core.keep` plans it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from limpet.core.keep import MARK, plan_instance, plan_start_in
from limpet.core.launch import plan_launch
from limpet.core.launcher import render_beside
from limpet.core.seen import Request
from tests.wrap.test_same_start import OF_SHELLS, STEP, Stage, pairs_of, started_by
from tests.wrap.test_same_start import shell as shell
from tests.wrap.test_same_start import stage as stage
from tests.wrap.test_wrap_values import HOST, IMAGE, made

pytestmark = pytest.mark.real

WORDS = ("a", "b  c", "", "--", "d'e\"f", "g\nh", "-x", "*")


def write_runtime(stage: Stage) -> None:
    """One that writes down the last start and the last instance, which this process stands for; the
    keeper's mark too."""
    stage.runtime.write_text(
        f"#!{sys.executable} -I\n"
        "import glob, json, os, sys\n"
        "words = sys.argv[1:]\n"
        "if words[:2] == ['instance', 'list']:\n"
        f"    print(json.dumps({{'instances': [{{'pid': {os.getpid()}}}]}}))\n"
        "    sys.exit()\n"
        "pairs = os.fsdecode(open('/proc/self/environ', 'rb').read()).split('\\0')[:-1]\n"
        f"place = {str(stage.told)!r} + ('.instance' if words[0] == 'instance' else '')\n"
        "with open(place, 'w') as file:\n"
        "    json.dump([sys.argv, dict(pair.split('=', 1) for pair in pairs)], file)\n"
        f"for folder in glob.glob({str(stage.top)!r} + '/*/.kept/*/' + words[-2]):\n"
        f"    open(folder + '/{MARK}', 'w')\n"
    )


def session(stage: Stage, monkeypatch: pytest.MonkeyPatch, **more: str) -> dict[str, str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(stage.home), "LIMPET_KEEP": "2m"} | more
    state = stage.top / 'the \\ "state", it\'s $x'
    state.mkdir(mode=0o700)
    env["LIMPET_STATE_DIR"] = str(state)
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


@pytest.mark.parametrize("home", ["isolated", "private", "none", "host"])
def test_the_same_command_as_run_keeps_with(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    write_runtime(stage)
    env = session(stage, monkeypatch, FOO="foo", OMP_NUM_THREADS="4", LC_ALL="C.UTF-8")
    (stage.home / ".cache").mkdir()
    request = msgspec.convert({"home": home, "gpu": "nvidia", "env": ["A=$x"]}, Request)
    image = stage.seen()
    launcher = stage.write(image, request)
    os.chdir(stage.project)
    for _ in range(2):
        argv = [*shell, str(launcher), *WORDS]
        done = subprocess.run(argv, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    asked = msgspec.structs.replace(request, command=("/opt/env/bin/tool", *WORDS))
    plan = plan_launch(image, stage.probe(image, asked), asked)
    (folder,) = Path(env["LIMPET_STATE_DIR"]).glob(".kept/*/limpet-*")
    argv, around = json.loads(stage.told.read_text())
    assert argv[1:] == list(plan_start_in(plan, folder.name).argv[1:])
    there = {name: value for name, value in around.items() if name not in OF_SHELLS}
    assert there == {name: value for name, value in plan.env.items() if name not in OF_SHELLS}
    argv, _ = json.loads(Path(f"{stage.told}.instance").read_text())
    planned = plan_instance(plan, folder.name, str(folder), 120)
    assert pairs_of(argv) == sorted([*pairs_of(list(planned)), ("--bind", str(stage.root))])
    without = [word for word in argv if word not in ("--bind", str(stage.root))]
    assert without[1:] == [word for word in planned[1:] if word != "--bind"]
    record = json.loads((folder / "kept.json").read_text())
    assert record == {
        "name": folder.name,
        "image": image.path,
        "pid": os.getpid(),
        "begun": record["begun"],
        "lifetime_s": 120,
    }
    # Another group, or a session that may end, has one of its own.
    same = (folder / "same.sh").read_text()
    gid = os.getegid()
    assert f"\nGid:\t{gid}\t{gid}\t{gid}\t{gid}\n{Path('/proc/self/cgroup').read_text()}" in same


@pytest.mark.parametrize(
    ("starter", "env"),
    [
        ("slurmstepd", STEP),
        ("slurmstepd", {"SLURM_JOB_ID": "17", "SLURM_STEP_TASKS_PER_NODE": "1"}),
        ("bash", {"APPTAINER_SHARENS": "1"}),
        ("bash", {"LIMPET_KEEP": "no"}),
        ("bash", {"APPTAINER_OVERLAY": "/o"}),
        ("bash", {"SINGULARITY_WRITABLE_TMPFS": "1"}),
        ("bash", {"APPTAINER_SCRATCH": "/s"}),
        ("bash", {"APPTAINER_MEMORY": "1G"}),
    ],
)
def test_tasks_of_a_step_are_not_kept(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, starter: str, env: dict[str, str]
) -> None:
    write_runtime(stage)
    env = session(stage, monkeypatch, **env)
    launcher = stage.write(stage.seen(), Request())
    done = subprocess.run(
        [*started_by(stage, starter), str(launcher)], env=env, cwd=stage.home, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    argv, _ = json.loads(stage.told.read_text())
    assert str(stage.image) in argv
    assert ("--sharens" in argv) is (env.get("SLURM_LOCALID") == "11")
    assert not Path(f"{stage.told}.instance").exists()


def test_what_is_written_to_is_not_kept() -> None:
    for overlays, kept in (((), True), (("/o:ro",), True), (("/o",), False)):
        texts = render_beside(made(overlays=overlays), IMAGE, HOST, "/d")
        assert ("keep.sh" in texts) is kept
        assert ("/keep.sh" in texts["job.sh"]) is kept
    assert "keep.sh" not in render_beside(made(writable_tmpfs=True), IMAGE, HOST, "/d")
