"""The folder on the node's own disk that a job is given, if it is."""

from __future__ import annotations

import os
from pathlib import Path

from limpet.core.slurm import JOB_VARIABLES, OWN_PLACES, node_local_name
from limpet.tools.mounts import is_shared


def find_node_local() -> str:
    """The user's folder below the job's node-local one, not made yet; empty where there is none."""
    if not any(os.environ.get(name) for name in JOB_VARIABLES):
        return ""
    for name in (*OWN_PLACES, "TMPDIR"):
        folder = Path(os.environ.get(name, ""))
        if folder.is_absolute() and os.access(folder, os.W_OK | os.X_OK) and not is_shared(folder):
            return str(folder.resolve() / node_local_name(str(os.getuid())))
    return ""
