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
from limpet.core.slurm import PLACES, Job, Staged, job_folder, parse_job, staged_name, why_not
from limpet.tools import files, images, launchers, staging
from limpet.tools.node_local import is_shared


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
        bad = [node for node in nodes if node.state != "placed"]
        said = f"their copy on {bad[0].node} is {bad[0].state}" if bad else ""
        said = said or why_not(nodes, job.nodes, place, len(packed))
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
