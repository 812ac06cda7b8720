"""A Slurm job: what its variables say, where an image's copy lies on its nodes, and its script."""

from __future__ import annotations

# What sites set for a job's own folder on the node; TMPDIR counts only in a job. The first one of
# `PLACES` is limpet's own, for sites that set none.
OWN_PLACES = ("SLURM_TMPDIR", "LOCAL_SCRATCH", "LOCALSCRATCH", "PBS_JOBFS", "JOBFS", "LSF_TMPDIR")
PLACES = ("LIMPET_STAGE_DIR", *OWN_PLACES, "TMPDIR")


def job_folder(job: str) -> str:
    """limpet's folder of a job, below one of `PLACES` on each of its nodes."""
    return f"limpet-job-{job}"


def staged_name(job: str, identity: str) -> str:
    """The image's copy for this job, below one of `PLACES` on each of its nodes."""
    return f"{job_folder(job)}/{identity}.sif"
