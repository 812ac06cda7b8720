"""`limpet stage`: an image, and launchers for it, on the own disk of each node of a job."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
import time
from pathlib import Path

import msgspec

from limpet.core.errors import LimpetError, UsageError
from limpet.core.launcher_staged import relocate, staged_folder
from limpet.core.slurm import PLACES, Job, Staged, job_folder, parse_job, plan_stage, staged_name
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


def stage_folder(folder: str, *, compress: bool = False) -> Staged:
    """`stage_image`, and for a folder of launchers these as well, started from the copy.

    Then nothing of limpet's on the shared file system is touched by a rank.
    """
    staged = stage_image(folder, compress=compress)
    path = Path(folder).absolute()
    if not launchers.is_ours(path):
        return staged
    shared = msgspec.structs.replace(staged, launchers=str(path))
    if staged.fallback:
        return shared
    if staged.apart:
        reason = "not all nodes have a copy of the image"
        return msgspec.structs.replace(shared, launchers_fallback=reason)
    job, place = parse_job(os.environ), find_place()
    number = launchers.current_version(path)
    texts = launchers.read_version(path, number)
    told = f"{path}\0{number}\0{staged.copy}\0".encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(told + b"\0".join(texts.values())).hexdigest()
    root = f"{place}/{staged_folder(job.id, digest)}"
    moved = {name: _moved(name, data, root, staged.copy) for name, data in texts.items()}
    if not all(moved.values()):
        reason = f"they are of another limpet: limpet update {path}"
        return msgspec.structs.replace(shared, launchers_fallback=reason)
    said = _send(job, place, root, launchers.pack_launchers(moved, number))
    if said:
        return msgspec.structs.replace(shared, launchers_fallback=said.splitlines()[-1])
    return msgspec.structs.replace(staged, launchers=root)


def _moved(name: str, data: bytes, root: str, image: str) -> bytes:
    """The launchers' own text says where they are, and so does what is read in its place."""
    if Path(name).parent.name != "bin" and Path(name).name != "homeless.sh":
        return data
    text = data.decode("utf-8", "surrogateescape")
    return relocate(text, root, image).encode("utf-8", "surrogateescape")


def _send(job: Job, place: str, root: str, packed: bytes) -> str:
    """The launchers on each node of the job, whole or not at all; why not, else nothing."""
    part = f"{root}.part-{secrets.token_hex(4)}"
    digest = hashlib.sha256(packed).hexdigest()
    words = (place, f"{place}/{job_folder(job.id)}", root, digest, part)
    with tempfile.NamedTemporaryFile(dir=place, prefix="limpet-") as file:
        file.write(packed)
        file.flush()
        said = staging.broadcast(job, Path(file.name), part, compress=False)
    if not said:
        nodes = staging.on_each_node(job, staging.UNPACK, *words)
        apart = plan_stage(nodes, job.nodes, place, len(packed)).apart
        said = apart[0].reason if apart else ""
    if said:
        with contextlib.suppress(LimpetError):
            staging.on_each_node(job, staging.FORGET, *words)
    return said


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
