"""A real Slurm on this machine, all of it a plain user's own: four nodes, each a `slurmd`.

A node is a set of namespaces: it has its own name, processes, shared memory and view of the file
system, so that all nodes have a disk of their own at one and the same place, MPI does not take two
of them for one, and a test can take something from a single node.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.ports import Ports, claim_ports
from tests.waiting import PATIENCE_S, wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sbcast", "unshare", "setpriv", "gcc")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NODES = ("n1", "n2", "n3", "n4")
RANKS_PER_NODE = 16
PARTS = ("key", "pid", "log", "seed")
# What sharing a container puts into /dev/shm.
SHARED = re.compile(r"sharens_instance_|limpet\.")

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge
SlurmctldPort={port}
StateSaveLocation={folder}/ctl
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TmpFS={folder}/local
Prolog={folder}/prolog
Epilog={folder}/epilog
PrologFlags=Alloc
TaskProlog={folder}/task-prolog
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=1
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=10
MinJobAge=60
ReturnToService=2
{nodes}
PartitionName=p Nodes=n[1-4] Default=YES State=UP
"""

# What sites do: a folder on the node's own disk for each job, emptied when the job ends.
SCRIPTS = {
    "prolog": 'mkdir -p "{folder}/local/job-$SLURM_JOB_ID"',
    "epilog": 'rm -rf "{folder}/local/job-$SLURM_JOB_ID"',
    "task-prolog": 'echo "export SLURM_TMPDIR={folder}/local/job-$SLURM_JOB_ID"',
}

# Two things that Slurm's daemons do only as root, or with control groups. sbcast's file is written
# by a child of slurmd that first takes on the user's groups. And signals other than SIGKILL
# go to the tasks alone, which are slurmstepd's children, not to all that those have started.
# And Debian's plug-in for PMIx opens a library that is only in a package for developers.
AS_ROOT = """\
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((constructor)) static void hide(void) {  /* from what srun starts */
    if (!strcmp(program_invocation_short_name, "srun")) unsetenv("LD_PRELOAD");
}

void *dlopen(const char *name, int how) {
    void *(*really)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
    const char *end = name ? strrchr(name, '/') : 0;
    return really(end && !strcmp(end, "/libpmix.so") && !access(PMIX, R_OK) ? PMIX : name, how);
}

int setgroups(unsigned long count, const void *groups) { return 0; }

int kill(pid_t pid, int number) {
    int (*really)(pid_t, int) = (int (*)(pid_t, int))dlsym(RTLD_NEXT, "kill");
    char path[64], state;
    int parent = getpid();
    FILE *file;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (TASKS_ONLY && pid > 0 && number != SIGKILL && number > 0 && (file = fopen(path, "r"))) {
        if (fscanf(file, "%*d (%*[^)]) %c %d", &state, &parent) != 2) parent = getpid();
        fclose(file);
    }
    return parent == getpid() ? really(pid, number) : 0;
}
"""

# The first process of a node. Whether the tests end or are killed, its input closes, it ends, and
# with it all that was started there. It waits, for an init takes away whoever has lost its parent.
NODE = """\
mount --bind "$1" "$2" && mount -t tmpfs none /dev/shm && hostname "$0" || exit 1
exec 3<&0
setpriv --inh-caps=-all --ambient-caps=-all \\
    env LD_PRELOAD="$4" slurmd -D -f "$3" -N "$0" </dev/null 3<&- &
cat <&3 &
wait "$!"
"""

# Joins the node's namespaces and mounts there, or takes the last mount away again.
MOUNT = """\
import ctypes, os, sys
pid, action, source, target, kind, data = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *words):
    if function(*words):
        raise SystemExit(os.strerror(ctypes.get_errno()))
spaces = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in ("user", "mnt")]
for space in spaces:
    call(libc.setns, space, 0)
encoded = [os.fsencode(word) for word in (source, target, kind, data)]
if action == "umount":
    call(libc.umount2, encoded[1], 2)
elif kind == "fuse":  # source: the program that serves it; data: its options
    device = os.open("/dev/fuse", os.O_RDWR)
    os.set_inheritable(device, True)
    told = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    call(libc.mount, b"counted", *encoded[1:3], ctypes.c_ulong(1), told.encode())
    os.execv(source, [source, "-f", f"/dev/fd/{device}", "-o", data])
else:
    call(libc.mount, *encoded[:3], ctypes.c_ulong(0 if kind else 4096), encoded[3])
"""

Counts = dict[str, int]


class PortTakenError(AssertionError):
    """Another program has a port of the cluster's."""


@dataclass
class Cluster:
    """Nodes `n1` to `n4`; `env` has the variables that name this cluster, `PATH` among them.

    `local` is the folder that every node has for itself; a job has `local/job-ID` on each of its
    nodes, named by SLURM_TMPDIR. `on_disk(node)` is the same folder seen from outside.
    """

    folder: Path
    config: Path
    ports: Ports
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.config), "PATH": f"{self.folder}/bin:{PATH}"}

    @property
    def local(self) -> Path:
        return self.folder / "local"

    def on_disk(self, node: str) -> Path:
        return self.folder / "disks" / node

    # ---- jobs ----

    def run(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """One of Slurm's commands; nothing of this session's own job, if any, gets into it."""
        clean = {n: v for n, v in os.environ.items() if not n.startswith(("SLURM_", "PMI_"))}
        return subprocess.run(
            [*map(str, words)],
            env={**clean, **(env or {}), **self.env},
            cwd=cwd or self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def wait_for_job(self, job: str, timeout_s: float = 180) -> str:
        """The state in which the job ended, by Slurm's name for it."""
        for _ in range(int(timeout_s * 5)):
            shown = self.run("scontrol", "-o", "show", "job", job).stdout
            state = dict(word.partition("=")[::2] for word in shown.split()).get("JobState", "")
            if state not in ("", "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED"):
                return state  # none is told where the controller is too busy to answer
            time.sleep(0.2)
        raise AssertionError(f"job {job} still runs: {shown}")

    # ---- the nodes ----

    def is_up(self) -> bool:
        done = self.run("sinfo", "-h", "-N", "-o", "%T")
        return done.stdout.split() == ["idle"] * len(NODES)

    def wait_until_idle(self, timeout_s: float = PATIENCE_S) -> None:
        for _ in range(int(timeout_s * 10)):
            if self.is_up():
                return
            if "Address already in use" in self.logs():
                raise PortTakenError(self.logs())
            time.sleep(0.1)
        raise AssertionError(self.run("scontrol", "show", "node").stdout + self.logs())

    @contextmanager
    def mounted(
        self, node: str, target: Path | str, source: Path | str = "", size: str = ""
    ) -> Iterator[None]:
        """`source` seen at `target` on this node alone; without one, an empty file system.

        `size` ("1m") is the empty file system's.
        """
        kind = "" if source else "tmpfs"
        data = f"size={size}" if size else ""
        self._mount(node, "mount", str(source or "none"), str(target), kind, data)
        try:
            yield
        finally:
            self._mount(node, "umount", "", str(target), "", "")

    @contextmanager
    def without(self, node: str, program: str) -> Iterator[None]:
        """The program cannot be found on this node."""
        found = shutil.which(program, path=PATH)
        assert found
        blank = self.folder / "blank"
        blank.touch(mode=0o600)
        with self.mounted(node, Path(found).resolve(), blank):
            yield

    @contextmanager
    def answering(self, node: str, program: str, version: str) -> Iterator[None]:
        """The program says that it is of this version on this node; else it is what it was."""
        found = shutil.which(program, path=PATH)
        assert found
        real = Path(found).resolve()
        copy = self.folder / f"real-{program}"
        shutil.copy(real, copy)
        copy.chmod(0o755)
        other = self.folder / f"other-{program}"
        other.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo "{version}" || exec {copy} "$@"\n'
        )
        other.chmod(0o755)
        with self.mounted(node, real, other):
            yield

    @contextmanager
    def counted(
        self, node: str, folder: Path, program: Path, *, delay_ms: int = 0
    ) -> Iterator[Callable[[], Counts]]:
        """The folder as this node alone sees it through `bench/slowfs.c`: what reaches it so far.

        Each call is a client that has seen nothing yet. `program` is the compiled one. Whatever
        reaches it takes so long.
        """
        seen = Path(f"/proc/{self.daemons[node].pid}/root{folder}/.slowfs.json")

        def read() -> Counts:
            found: Counts = json.loads(seen.read_text())
            return found

        aside = Path(tempfile.mkdtemp(prefix=f"aside-{node}-", dir=self.folder))
        options = f"source={aside},delay_us={delay_ms * 1000}"
        words = self._mount_words(node, "mount", str(program), str(folder), "fuse", options)
        with self.mounted(node, aside, folder):
            running = subprocess.Popen(words)
            try:
                wait_until(seen.exists)
                yield read
            finally:
                self._mount(node, "umount", "", str(folder), "", "")
                running.wait(PATIENCE_S)  # a container may let go of the image a moment later

    def _mount(self, node: str, *words: str) -> None:
        subprocess.run(self._mount_words(node, *words), check=True)

    def _mount_words(self, node: str, *words: str) -> list[str]:
        return [sys.executable, "-I", "-c", MOUNT, str(self.daemons[node].pid), *words]

    def processes(self, node: str) -> dict[int, str]:
        """What runs on a node beside Slurm itself: process → command line."""
        space = Path(f"/proc/{self.daemons[node].pid}/ns/pid_for_children").stat().st_ino
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                inside = (folder / "ns/pid").stat().st_ino == space
                said = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                words = said.decode(errors="replace").strip()
                if (
                    inside
                    and words
                    and not re.match(
                        r"\S*(slurm|sleep 100000000)|sh -c mount|/bin/sh \S*/(pro|epi)log|cat$",
                        words,
                    )
                ):
                    found[int(folder.name)] = words
        return found

    def shared_memory(self, node: str) -> list[str]:
        """The names in the node's /dev/shm."""
        folder = Path(f"/proc/{self.daemons[node].pid}/root/dev/shm")
        return sorted(path.name for path in folder.iterdir())

    def leftovers(self, *, killed: bool = False) -> list[str]:
        """What jobs have left on the nodes: processes, files on disks and in memory, mounts.

        Of steps that were killed, files in memory stay there until the next step.
        """
        left = []
        for node in NODES:
            left += [f"{node} runs {words}" for words in self.processes(node).values()]
            left += [f"{node} has {path}" for path in self.on_disk(node).iterdir()]
            names = () if killed else self.shared_memory(node)
            left += [f"{node} has /dev/shm/{name}" for name in names if SHARED.match(name)]
            mounts = Path(f"/proc/{self.daemons[node].pid}/mountinfo").read_text()
            left += [
                f"{node} mounts {line}" for line in mounts.splitlines() if "squashfuse" in line
            ]
        return left

    def wait_until_clean(self, timeout_s: float = PATIENCE_S, *, killed: bool = False) -> None:
        for _ in range(int(timeout_s * 10)):
            if not (left := self.leftovers(killed=killed)):
                return
            time.sleep(0.1)
        raise AssertionError("\n".join(left))

    # ---- the daemons: munged, slurmctld, n1 … n4 ----

    def start(self, name: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.daemons[name] = subprocess.Popen(
            self._argv(name),
            env={**os.environ, **self.env},
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
        log.close()

    def stop(self, name: str) -> None:
        daemon = self.daemons.pop(name, None)
        if daemon and daemon.stdin:
            daemon.stdin.close()
            if name not in NODES:
                daemon.terminate()
            daemon.wait(PATIENCE_S)

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Without one of the daemons, which is back afterwards."""
        self.stop(name)
        try:
            yield
        finally:
            self.start(name)
            self.wait_until_idle()

    def _argv(self, name: str) -> list[str]:
        die_with_us = ["setpriv", "--pdeathsig", "TERM"]
        if name == "munged":
            files = [
                f"--{part}-file={self.folder}/{part}" for part in ("key", "pid", "log", "seed")
            ]
            sockets = f"--socket={self.folder}/munge"
            return [*die_with_us, "munged", "--force", "--foreground", sockets, *files]
        if name == "slurmctld":
            return [*die_with_us, "slurmctld", "-D", "-f", str(self.config)]
        spaces = ["--user", "--map-current-user", "--keep-caps", "--mount", "--uts", "--ipc"]
        process = ["--pid", "--fork", "--kill-child", "--mount-proc"]
        shell = ["sh", "-c", NODE, name, str(self.on_disk(name)), str(self.local), str(self.config)]
        return ["unshare", *spaces, *process, *shell, f"{self.folder}/as-root.so"]

    def logs(self) -> str:
        files = sorted(self.folder.glob("*.log"))
        return "".join(f"\n== {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in files)


def make_cluster(folder: Path, libpmix: Path | None = None, *, tasks_only: bool = True) -> Cluster:
    """The cluster's files, in an empty folder of a short name (a socket's has 107 letters)."""
    for name in ("ctl", "local", *(f"disks/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    key = folder / "key"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o600)
    for name, text in SCRIPTS.items():
        (folder / name).write_text(f"#!/bin/sh\n{text.format(folder=folder)}\n")
        (folder / name).chmod(0o755)
    build = ["gcc", "-D_GNU_SOURCE", f'-DPMIX="{folder}/libpmix.so"', "-shared", "-fPIC"]
    build += [f"-DTASKS_ONLY={tasks_only:d}", "-x", "c", "-", "-o", f"{folder}/as-root.so"]
    subprocess.run(build, input=AS_ROOT.encode(), check=True)
    if libpmix:
        (folder / "libpmix.so").symlink_to(libpmix)
        srun = folder / "bin/srun"
        srun.parent.mkdir()
        real = shutil.which("srun", path=PATH)
        srun.write_text(f'#!/bin/sh\nLD_PRELOAD={folder}/as-root.so exec {real} "$@"\n')
        srun.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    ports = claim_ports()
    controller, *of_nodes = ports.numbers
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={RANKS_PER_NODE}"
        for node, port in zip(NODES, of_nodes, strict=True)
    )
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(host=host, user=user, folder=folder, port=controller, nodes=nodes)
    )
    return Cluster(folder=folder, config=config, ports=ports)


@contextmanager
def start_cluster(libpmix: Path | None = None, *, tasks_only: bool = True) -> Iterator[Cluster]:
    """A cluster that is up; all of it is gone afterwards, also where this process is killed.

    `libpmix` is the library that its plug-in for PMIx opens: `--mpi=pmix` needs one. Signals go to
    the tasks, as with proctrack/cgroup, or to all that they have started: proctrack/linuxproc.
    """
    with ExitStack() as held:
        for left in reversed(range(3)):
            try:
                cluster = held.enter_context(_running(libpmix, tasks_only=tasks_only))
                break
            except PortTakenError:  # by another program, since it was found free
                if not left:
                    raise
        yield cluster


@contextmanager
def _running(libpmix: Path | None, *, tasks_only: bool) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    cluster = make_cluster(folder, libpmix, tasks_only=tasks_only)
    try:
        for name in ("munged", "slurmctld", *NODES):
            cluster.start(name)
            if name == "munged":
                wait_until((folder / "munge").exists)
        cluster.wait_until_idle()
        yield cluster
    finally:
        if "slurmctld" in cluster.daemons:
            with suppress(subprocess.TimeoutExpired):
                cluster.run("scancel", "--signal=KILL", "--user", str(os.getuid()), timeout_s=10)
                cluster.run("scancel", "--user", str(os.getuid()), timeout_s=10)
        for name in reversed(list(cluster.daemons)):
            cluster.stop(name)
        cluster.ports.claim.close()
        shutil.rmtree(folder, ignore_errors=True)


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
