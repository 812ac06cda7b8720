"""`limpet stage`: an image on the own disk of each node of a job."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from limpet.core.errors import LimpetError, UsageError
from limpet.core.slurm import PLACES, Staged, job_folder, parse_job, staged_name, why_not
from limpet.tools import files, images, launchers, staging
from limpet.tools.mounts import is_shared


def stage_image(image: str, *, compress: bool = False) -> Staged:
    """The copy on all nodes of this job, or the reason why the shared file stays in use.

    A site without room on its nodes does not end a job; a job that Slurm does not know, or a Slurm
    that does not answer, is an error.
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
    if reason := why_not(nodes, job.nodes, place, size_bytes):
        return _without(kept, reason)
    copied = any(node.state != "have" for node in nodes)
    if copied:
        said = staging.broadcast(job, path, part, compress=compress)
        if not said:
            nodes = staging.on_each_node(job, staging.SETTLE, *words)
            bad = [node for node in nodes if node.state != "placed"]
            said = f"the copy on {bad[0].node} is {bad[0].state}" if bad else ""
            said = said or why_not(nodes, job.nodes, place, size_bytes)
        if said:
            with contextlib.suppress(LimpetError):
                staging.on_each_node(job, staging.FORGET, *words)
            return _without(kept, said.splitlines()[-1])
    elapsed_s = time.monotonic() - began
    return Staged(
        image=str(path),
        copy=copy,
        nodes=job.nodes,
        size_bytes=size_bytes,
        copied=copied,
        elapsed_s=elapsed_s,
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
