"""Launchers for one job: the same text, told that it lies on the node's own disk."""

from __future__ import annotations

import re
import shlex

from limpet.core.slurm import job_folder


def relocate(text: str, root: str, image: str) -> str:
    """The text of a launcher for the folder `root` and the image's copy; empty where it is not one
    that this limpet knows."""
    for name, value in (("root", root), ("image", image)):
        parts = re.split(rf"(?m)^_limpet_{name}=.*$", text)
        if len(parts) != 2:
            return ""
        text = f"_limpet_{name}={shlex.quote(value)}".join(parts)
    return text


def staged_folder(job: str, digest: str) -> str:
    """The launchers' folder for this job, below one of `PLACES` on each of its nodes."""
    return f"{job_folder(job)}/launchers-{digest[:12]}"
