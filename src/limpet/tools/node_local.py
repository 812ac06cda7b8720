"""The folder on the node's own disk that a job is given, if it is."""

from __future__ import annotations

import os
from pathlib import Path

from limpet.core.slurm import OWN_PLACES
from limpet.tools.mounts import is_shared

JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "COBALT_JOBID", "JOB_ID")


def find_node_local() -> str:
    """The user's folder below the job's node-local one, not made yet; empty where there is none."""
    if not any(os.environ.get(name) for name in JOB_VARIABLES):
        return ""
    for name in (*OWN_PLACES, "TMPDIR"):
        folder = Path(os.environ.get(name, ""))
        if folder.is_absolute() and os.access(folder, os.W_OK | os.X_OK) and not is_shared(folder):
            return str(folder.resolve() / f"limpet-{os.getuid()}")
    return ""
