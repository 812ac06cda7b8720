"""Slurm: who has started this process, and what its commands do."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from limpet.core.seen import Siblings
from limpet.core.share import SLURM, find_siblings
from limpet.core.slurm import OWN_PLACES, PLACES, explain_failure, job_folder, staged_name
from limpet.tools import process

_OF_JOBS = ("SLURM_JOB", "SLURM_STEP", "SLURM_TASK", "SLURM_N", "SLURM_CPU", "SLURM_MEM", "PMI_")


def probe_siblings(proc: Path = Path("/proc")) -> Siblings | None:
    """The ranks on this node that were started with this process; None where it is alone."""
    parent = os.getppid()
    found = find_siblings(parent, _name_of(parent, proc), os.environ)
    return msgspec.structs.replace(found, folder=find_job_folder()) if found else None


def is_task() -> bool:
    """Whether Slurm itself has started this process."""
    return _name_of(os.getppid()) == SLURM


def _name_of(process: int, proc: Path = Path("/proc")) -> str:
    try:
        return (proc / str(process) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def find_job_folder() -> str:
    """limpet's folder in the place that the site gave this job on this node; empty without one."""
    job = os.environ.get("SLURM_JOB_ID", "")
    for name in OWN_PLACES if job else ():
        place = os.environ.get(name, "")
        if place.startswith("/") and Path(place).is_dir() and os.access(place, os.W_OK | os.X_OK):
            return f"{place}/{job_folder(job)}"
    return ""


def find_staged(identity: str) -> str:
    """The image's copy on this node's own disk for this job; empty where there is none."""
    job = os.environ.get("SLURM_JOB_ID", "")
    for name in PLACES if job else ():
        copy = Path(os.environ.get(name, ""), staged_name(job, identity))
        with contextlib.suppress(OSError):
            if copy.is_absolute() and copy.stat().st_uid == os.getuid():
                return str(copy)
    return ""


def submit(script: str, folder: Path | None = None) -> str:
    """The number of the job that this script became; HostError with what Slurm said.

    Where this is in a job itself, that one's variables are not handed on.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(_OF_JOBS)}
    text = script.encode("utf-8", "surrogateescape")
    done = process.run(["sbatch", "--parsable"], env=env, input_bytes=text, cwd=folder)
    if done.code:
        raise explain_failure("sbatch", done.stderr)
    return done.text.strip().partition(";")[0]
