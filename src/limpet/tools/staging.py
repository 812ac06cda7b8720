"""Copies of an image on the nodes' own disks: what runs on each node, through Slurm.

The nodes need a POSIX shell and coreutils for it, not limpet. A copy is written under a passing
name, read back, compared by its sha256, and only then renamed: what has the copy's name is whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from limpet.core.slurm import Job, NodeCopy, explain_failure, parse_nodes
from limpet.tools import process

# Of all scripts $1 is the place, $2 limpet's folder in it, $3 the copy and $4 the sha256.
LOOK = """\
say() { echo "limpet-node ${SLURMD_NODENAME:-$(hostname)} $*"; }
[ -d "$1" ] && [ -w "$1" ] || { say missing; exit; }
mkdir -p -m 700 -- "$2" 2>/dev/null
[ -O "$2" ] && [ ! -L "$2" ] && [ -w "$2" ] || { say missing; exit; }
find "$2" -name '*.part-*' -mmin +10 -exec rm -rf {} +
if [ -f "$3" ]; then
    set -- "$@" "$(sha256sum <"$3")"
    case $5 in "$4"*) say have; exit ;; esac
fi
room=$(df -Pk -- "$2" | awk 'END { print $(NF - 2) }')
say room "$room"
"""

# $5 is the passing name under which sbcast wrote it.
SETTLE = """\
say() { echo "limpet-node ${SLURMD_NODENAME:-$(hostname)} $*"; }
sum=$(sha256sum <"$5") || { say lost; exit; }
case $sum in
    "$4"*) mv -f -- "$5" "$3" && say placed && exit ;;
esac
rm -f -- "$5"
say damaged
"""

# Of launchers $3 is a folder, and what sbcast wrote is a tar of it.
UNPACK = """\
say() { echo "limpet-node ${SLURMD_NODENAME:-$(hostname)} $*"; }
sum=$(sha256sum <"$5") || { say lost; exit; }
case $sum in
    "$4"*)
        mkdir -m 700 -- "$5.d" && tar -xf "$5" -C "$5.d" &&
            { [ -d "$3" ] || mv -T -- "$5.d" "$3" 2>/dev/null; }
        rm -rf -- "$5" "$5.d"
        [ -x "$3/bin" ] && say placed && exit ;;
esac
rm -rf -- "$5"
say damaged
"""

FORGET = 'rm -rf -- "$5" "$5.d"'
CLEAN = '[ ! -d "$2" ] || [ ! -O "$2" ] || rm -rf -- "$2"'


def check_job(job: Job) -> None:
    """HostError where Slurm does not know the job as a running one of this user's."""
    argv = ["squeue", "--noheader", "--jobs", job.id, "--format", "%T %U"]
    done = process.run(argv)
    if done.code:
        raise explain_failure("squeue", done.stderr)
    state, _, user = done.text.strip().partition(" ")
    if state not in ("RUNNING", "COMPLETING") or user.strip() != str(os.getuid()):
        raise explain_failure(f"Job {job.id}", "Invalid job id specified")


# Run in each of some nodes: to these alone sbcast copies, since it is told of their step.
SOME = """\
[ "$SLURM_PROCID" = 0 ] || exit 0
exec sbcast "$@" --jobid "$SLURM_JOB_ID.$SLURM_STEP_ID" "$0" "$part"
"""


def on_each_node(
    job: Job, script: str, *words: str, nodes: Sequence[str] = ()
) -> tuple[NodeCopy, ...]:
    """What the script says on each node of the job (or on these alone), run once on each."""
    done = process.run([*_srun(job, nodes), "sh", "-c", script, "limpet", *words], env=_plain())
    found = parse_nodes(done.text)
    if done.code and not found:
        raise explain_failure("srun", done.stderr)
    return found


def broadcast(
    job: Job, image: Path, target: str, *, compress: bool, nodes: Sequence[str] = ()
) -> str:
    """Slurm's own copy to all nodes, or to these; what it said where it failed, else nothing."""
    options = ["--compress"] if compress else []
    argv = ["sbcast", *options, "--jobid", job.id, str(image), target]
    env = _plain()
    if nodes:
        argv = [*_srun(job, nodes), "sh", "-c", SOME, str(image), *options]
        env["part"] = target
    done = process.run(argv, env=env)
    return (done.stderr.strip() or f"sbcast ended with {done.code}") if done.code else ""


def _srun(job: Job, nodes: Sequence[str]) -> list[str]:
    count = str(len(nodes) or job.nodes)
    size = ["--nodes", count, "--ntasks", count, "--ntasks-per-node", "1"]
    plain = ["--cpus-per-task", "1", "--overlap", "--mpi", "none", "--input", "none"]
    chosen = ["--nodelist", ",".join(nodes)] if nodes else []
    return ["srun", *size, *plain, *chosen, "--jobid", job.id]


def _plain() -> dict[str, str]:
    """Without what would change those commands: sizes of the user's own steps, sbcast's habits."""
    kept = ("SLURM_CONF", "SLURM_CONF_SERVER")
    return {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith(("SLURM_", "SRUN_", "SBCAST_"))
    }
