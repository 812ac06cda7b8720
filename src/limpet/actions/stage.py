"""`limpet stage`: an image on the own disk of each node of a job."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from limpet.core.errors import UsageError
from limpet.core.slurm import PLACES, Staged, job_folder, parse_job, plan_stage, staged_name
from limpet.tools import files, images, launchers, staging
from limpet.tools.mounts import is_shared


def stage_image(image: str, *, compress: bool = False) -> Staged:
    """The copy on the nodes of this job, or the reason why the shared file stays in use.

    A node without room goes on alone with the shared file, and where none has any, all do. That
    ends no job; a job that Slurm does not know, or a Slurm that does not answer, is an error.
    """
    began = time.monotonic()
    job = parse_job(os.environ)
    path = image_behind(image)
    seen = images.read_image(str(path))
    if seen.kind == "sandbox":
        raise UsageError(f"{path} is a folder: only image files are staged.")
    staging.check_job(job)
    size_bytes = path.stat().st_size
    kept = Staged(image=str(path), nodes=job.nodes, size_bytes=size_bytes)
    place = find_place()
    if not place:
        return _without(kept, "this job has no folder on its nodes' own disks (LIMPET_STAGE_DIR)")
    copy = f"{place}/{staged_name(job.id, seen.identity)}"
    part = f"{copy}.part-{secrets.token_hex(4)}"
    words = (place, f"{place}/{job_folder(job.id)}", copy, files.hash_file(path), part)
    nodes = staging.on_each_node(job, staging.LOOK, *words[:4])
    plan = plan_stage(nodes, job.nodes, place, size_bytes)
    if not plan.have and not plan.need:
        return _without(kept, plan.apart[0].reason)
    have, apart, copied = plan.have, plan.apart, False
    if plan.need:
        chosen = plan.need if plan.have or plan.apart else ()
        said = staging.broadcast(job, path, part, compress=compress, nodes=chosen)
        # Where some nodes got all of it, the others go on without.
        after = staging.on_each_node(job, staging.SETTLE, *words, nodes=chosen)
        done = plan_stage(after, len(plan.need), place, size_bytes)
        if not plan.have and not done.have:
            return _without(kept, (said or done.apart[0].reason).splitlines()[-1])
        have, apart, copied = (*have, *done.have), (*apart, *done.apart), bool(done.have)
    return Staged(
        image=str(path),
        copy=copy,
        nodes=len(have),
        size_bytes=size_bytes,
        copied=copied,
        elapsed_s=time.monotonic() - began,
        apart=apart,
    )


def _without(kept: Staged, reason: str) -> Staged:
    return Staged(image=kept.image, nodes=kept.nodes, size_bytes=kept.size_bytes, fallback=reason)


def clean_stage() -> int:
    """Remove this job's copies from all its nodes; how many nodes there were."""
    job = parse_job(os.environ)
    staging.check_job(job)
    if place := find_place():
        folder = f"{place}/{job_folder(job.id)}"
        staging.on_each_node(job, staging.CLEAN, place, folder)
    return job.nodes


def image_behind(text: str) -> Path:
    """The image file: itself, or the one that a folder of launchers starts."""
    path = Path(text).absolute()
    made = None
    if launchers.is_ours(path):
        made = launchers.read_wrap(path, launchers.current_version(path))
    return (path / made.image).absolute() if made else path


def find_place() -> str:
    """The first folder named for such things that is on this node's own disk; empty without one."""
    for name in PLACES:
        folder = os.environ.get(name, "")
        writable = folder.startswith("/") and os.access(folder, os.W_OK | os.X_OK)
        if writable and not is_shared(Path(folder)):
            return folder.rstrip("/") or "/"
    return ""
