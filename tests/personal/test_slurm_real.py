"""The case that this is all for, in a Slurm job: two versions of one framework, each with more."""

from __future__ import annotations

import os
import pty
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.personal.conftest import User

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not all(shutil.which(name, path=PATH) for name in PROGRAMS),
        reason="needs slurm-wlm and munge",
    ),
]

CONFIG = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/ctl
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
PartitionName=p Nodes=n1 Default=YES State=UP
"""


@pytest.fixture
def slurm() -> Iterator[dict[str, str]]:
    """A cluster of one node, all of it this user's own; gives the variables that name it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path has 107 letters
    for name in ("ctl", "spool"):
        (folder / name).mkdir()
    key = folder / "key"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o600)
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    host = socket.gethostname().split(".")[0]
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, user=user, folder=folder, ports=ports))
    env = {"SLURM_CONF": str(config), "PATH": PATH}
    munge = [f"--{name}={folder}/{name}" for name in ("pid-file", "log-file", "seed-file")]
    starts = (
        ["munged", "--force", f"--socket={folder}/munge", f"--key-file={key}", *munge],
        ["slurmctld", "-f", str(config)],
        ["slurmd", "-f", str(config), "-N", "n1"],
    )
    try:
        for argv in starts:
            subprocess.run(argv, env={**os.environ, **env}, check=True, capture_output=True)
        wait_for_node({**os.environ, **env})
        yield env
    finally:
        for name in ("slurmd.pid", "slurmctld.pid", "pid-file"):
            with suppress(OSError, ValueError):
                os.kill(int((folder / name).read_text()), 15)
        time.sleep(0.5)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_node(env: dict[str, str]) -> None:
    for _ in range(100):
        done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=env, capture_output=True, text=True)
        if done.stdout.strip() in ("idle", "mixed", "allocated"):
            return
        time.sleep(0.1)
    raise AssertionError(done.stdout + done.stderr)


def test_two_frameworks_in_terminals_of_a_job(
    user: User, images: dict[str, Path], slurm: dict[str, str]
) -> None:
    srun = ["srun", "-n1", "-c1", "--pty"]
    plugins = {"one": "pluginone", "two": "plugintwo"}
    env = user.env(**slurm)
    installing = [
        subprocess.run(
            [*srun[:3], *user.argv("pip", images[name], "install", "-q", plugin)],
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
