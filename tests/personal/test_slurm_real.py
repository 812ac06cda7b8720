"""The case that this is all for, in a Slurm job: two versions of one framework, each with more."""

from __future__ import annotations

import os
import pty
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.personal.conftest import User

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("slurm")]


def test_two_frameworks_in_terminals_of_a_job(
    user: User, images: dict[str, Path], cluster: Cluster
) -> None:
    srun = ["srun", "-N1", "-n1", "-c1", "--pty"]
    plugins = {"one": "pluginone", "two": "plugintwo"}
    env = user.env(**cluster.env)
    installing = [
        subprocess.run(
            [*srun[:-1], *user.argv("pip", images[name], "install", "-q", plugin)],
            env=env,
            cwd=user.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        for name, plugin in plugins.items()
    ]
    assert [done.returncode for done in installing] == [0, 0], installing[0].stderr
    running = []
    for name, plugin in plugins.items():
        script = f"import os, framework, {plugin} as p; "
        script += "print(framework.__version__, p.__version__, os.isatty(0), "
        script += "'SLURM_JOB_ID' in os.environ)"
        ours, theirs = pty.openpty()
        argv = [*srun, *user.argv("run", images[name], "python", "-c", script)]
        process = subprocess.Popen(
            argv, env=env, cwd=user.folder, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        running.append((process, ours))
    said = [read_all(ours) for _, ours in running]
    assert [process.wait(60) for process, _ in running] == [0, 0], said
    assert "1.0 1.0 True True" in said[0]
    assert "2.0 2.0 True True" in said[1]


def read_all(terminal: int) -> str:
    """What was written to a terminal until all others have closed it."""
    text = b""
    with suppress(OSError):
        while part := os.read(terminal, 4096):
            text += part
    os.close(terminal)
    return text.decode()
