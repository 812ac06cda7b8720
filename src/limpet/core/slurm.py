"""A Slurm job: what its variables say, where its nodes have an image's copy, and what failed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from limpet.core.errors import HostError

# What sites set for a job's own folder on the node; TMPDIR counts only in a job. The first one of
# `PLACES` is limpet's own, for sites that set none.
OWN_PLACES = ("SLURM_TMPDIR", "LOCAL_SCRATCH", "LOCALSCRATCH", "PBS_JOBFS", "JOBFS", "LSF_TMPDIR")
STAGE_DIR = "LIMPET_STAGE_DIR"
PLACES = (STAGE_DIR, *OWN_PLACES, "TMPDIR")
# One of them is set in a job of whatever scheduler.
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "COBALT_JOBID", "JOB_ID")


def node_local_name(user: str) -> str:
    """A user's folder of things that are this node's, below the first good one of `OWN_PLACES`."""
    return f"limpet-{user}"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The job that this process is in, as its variables say."""

    id: str
    nodes: int


class NodeCopy(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of its own disk: `state` is a word of `limpet.tools.staging`'s scripts."""

    node: str
    state: str
    room_bytes: int = 0


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """A node that goes on with the shared file, and why; `node` is empty where it is not known."""

    node: str
    reason: str


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """How staging ended: the copy's path on each node, or (`fallback`) why there is none.

    `copied` is false where all nodes had the copy already. `apart` are nodes without a copy, where
    others have one. `launchers` is the folder of launchers to use, on the nodes or
    (`launchers_fallback`) still the shared one.
    """

    image: str
    copy: str = ""
    nodes: int
    size_bytes: int
    copied: bool = False
    elapsed_s: float = 0.0
    apart: tuple[Apart, ...] = ()
    fallback: str = ""
    launchers: str = ""
    launchers_fallback: str = ""


def job_folder(job: str) -> str:
    """limpet's folder of a job, below one of `PLACES` on each of its nodes."""
    return f"limpet-job-{job}"


def staged_name(job: str, identity: str) -> str:
    """The image's copy for this job, below one of `PLACES` on each of its nodes."""
    return f"{job_folder(job)}/{identity}.sif"


def parse_job(environment: Mapping[str, str]) -> Job:
    """The job that the variables name; HostError outside of one."""
    job = environment.get("SLURM_JOB_ID", "")
    nodes = environment.get("SLURM_JOB_NUM_NODES", "") or environment.get("SLURM_NNODES", "")
    if not job:
        raise HostError(
            "This is not in a Slurm job: SLURM_JOB_ID is not set.",
            now="Put it into a job script (limpet sbatch writes one), or into salloc's shell.",
        )
    if not job.isdecimal() or not nodes.isdecimal() or nodes == "0":
        raise HostError(
            "The variables of this Slurm job make no sense: "
            f"SLURM_JOB_ID={job!r}, SLURM_JOB_NUM_NODES={nodes!r}.",
            now="They may be left over from elsewhere: unset SLURM_*, or start anew with salloc.",
        )
    return Job(id=job, nodes=int(nodes))


def parse_nodes(text: str) -> tuple[NodeCopy, ...]:
    """What the nodes said: lines of `NODE STATE [KILOBYTES]`, amid a site's greetings."""
    found = re.findall(r"(?m)^limpet-node (\S+) ([a-z]+)(?: (\d+))?$", text)
    return tuple(
        NodeCopy(node=node, state=state, room_bytes=int(room or 0) * 1024)
        for node, state, room in sorted(found)
    )


class StagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes that have the copy, those that are to get one, and those that cannot."""

    have: tuple[str, ...] = ()
    need: tuple[str, ...] = ()
    apart: tuple[Apart, ...] = ()


def plan_stage(nodes: Sequence[NodeCopy], expected: int, place: str, size_bytes: int) -> StagePlan:
    """By what the nodes say, before the copying and once more after it."""
    have, need, apart = [], [], []
    for one in nodes:
        if one.state in ("have", "placed"):
            have.append(one.node)
        elif one.state == "missing":
            apart.append(Apart(node=one.node, reason=f"{place} cannot be written on {one.node}"))
        elif one.state != "room":
            reason = f"the copy on {one.node} is {one.state}"
            apart.append(Apart(node=one.node, reason=reason))
        elif one.room_bytes < size_bytes:
            room, wanted = (f"{size / 1e6:.1f} MB" for size in (one.room_bytes, size_bytes))
            reason = f"{place} has {room} of room on {one.node}, and the image needs {wanted}"
            apart.append(Apart(node=one.node, reason=reason))
        else:
            need.append(one.node)
    silent = f"only {len(nodes)} of {expected} nodes answered"
    apart += [Apart(node="", reason=silent)] * (expected - len(nodes))
    return StagePlan(have=tuple(have), need=tuple(need), apart=tuple(apart))


_CAUSES = (
    (
        r"(?i)munge",
        "MUNGE, which proves to Slurm who is asking, does not answer on this machine.",
        "Try again, on another node if you can; the administrator has to start munged.",
    ),
    (
        r"(?i)unable to contact slurm controller|connection refused|controller.*not responding",
        "Slurm's controller (slurmctld) does not answer.",
        "Try again later: `scontrol ping` says when it is back. Jobs that run go on.",
    ),
    (
        r"(?i)invalid job id|job/step already completing|expired|access/permission denied",
        "There is no such running job of yours: its variables are left over from another one.",
        "Start anew: in a job script, or in a shell of `salloc`; or unset SLURM_*.",
    ),
    (
        r"(?i)could not establish a configuration source|slurm\.conf",
        "Slurm's configuration was not found on this machine.",
        "Go to a node of the cluster, or load its Slurm module.",
    ),
)


def explain_failure(command: str, said: str) -> HostError:
    """The error for a command of Slurm's that failed, by the cause that its words tell."""
    lines = [line for line in said.splitlines() if line.strip()]
    for pattern, why, now in _CAUSES:
        if re.search(pattern, said):
            return HostError(f"{command} failed.", why=why, now=now)
    return HostError(f"{command} failed.", why="\n".join(lines[-3:]))
