"""The folder on the node's own disk that a job is given, if it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

from limpet.core.file_systems import SHARED
from limpet.core.slurm import JOB_VARIABLES, OWN_PLACES, node_local_name


def find_node_local() -> str:
    """The user's folder below the job's node-local one, not made yet; empty where there is none."""
    if not any(os.environ.get(name) for name in JOB_VARIABLES):
        return ""
    for name in (*OWN_PLACES, "TMPDIR"):
        folder = Path(os.environ.get(name, ""))
        if folder.is_absolute() and os.access(folder, os.W_OK | os.X_OK) and not is_shared(folder):
            return str(folder.resolve() / node_local_name(str(os.getuid())))
    return ""


def is_shared(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether the folder lies on a network file system."""
    real = str(folder.resolve())
    kind, longest = "", -1
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), fields.split()[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # of two mounts on one place the later one counts
            kind, longest = rest.split()[0], len(point)
    return SHARED.fullmatch(kind) is not None
