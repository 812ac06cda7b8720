"""`limpet push` and `limpet pull`: SIFs to and from registries, as Apptainer and SingularityCE do.

One layer that is the SIF itself, under the media types that both of them use (ORAS).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from limpet.actions.base_making import open_registry
from limpet.core import container_image as core
from limpet.core.container_image import Descriptor
from limpet.core.errors import FetchError, ImageError, UsageError
from limpet.core.events import Event, Notify, ignore
from limpet.core.transfer import Transfer, parse_place
from limpet.formats.sif import ObjectKind, read_sif
from limpet.tools import apptainer, files, images, oci
from limpet.tools.config import read_config

_CONFIG = b"{}"


def push_sif(
    image: str, reference: str, *, config_file: str = "", notify: Notify = ignore
) -> Transfer:
    """Push a SIF under a tag; what the registry has already is not sent again."""
    started_s = time.monotonic()
    target = parse_place(reference, "oras", writes=True)
    path = Path(image).absolute()
    with images.open_image(str(path)) as file:
        read_sif(file)
    client = open_registry(target, read_config(config_file).insecure_registries)
    client.check_access()
    size = path.stat().st_size
    sif = Descriptor(
        media_type=core.SIF_LAYER_TYPE,
        digest=f"sha256:{files.hash_file(path)}",
        size_bytes=size,
        annotations={core.TITLE: path.name},
    )
    config = Descriptor(
        media_type=core.SIF_CONFIG_TYPE,
        digest=f"sha256:{hashlib.sha256(_CONFIG).hexdigest()}",
        size_bytes=len(_CONFIG),
    )
    moved = 0
    if not client.has_blob(sif.digest):
        client.upload_blob(sif.digest, _counted(_chunks(path), size, "push", notify))
        moved = size
    if not client.has_blob(config.digest):
        client.upload_blob(config.digest, iter([_CONFIG]))
    manifest = core.render_manifest(config, [sif], {})
    client.put_manifest(target.tag, manifest, core.MANIFEST_TYPE)
    return Transfer(
        place=f"oras://{client.label}:{target.tag}",
        digest=f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        size_bytes=size,
        moved_bytes=moved,
        elapsed_s=time.monotonic() - started_s,
    )


def pull_sif(
    reference: str,
    output: Path,
    *,
    key: str = "",
    force: bool = False,
    config_file: str = "",
    notify: Notify = ignore,
) -> Transfer:
    """Fetch a SIF; it gets its name only when digest and signature are right.

    A signed one is checked with `key` (a PEM file), else with the local keyring. ImageError for a
    signature that is wrong, and with `key` for a missing one.
    """
    started_s = time.monotonic()
    source = parse_place(reference, "oras", writes=False)
    if key and not Path(key).is_file():
        raise UsageError(f"There is no key {key}.")
    client = open_registry(source, read_config(config_file).insecure_registries)
    manifest = oci.select_manifest(
        client.read_manifest, source.version, os.uname().machine, client.label
    )
    sif = oci.find_sif(manifest, client.label)
    files.sweep_partials(output.parent)
    files.check_space(output.parent, size_bytes=sif.size_bytes)
    with files.written_beside(output, replace=force) as file:
        chunks = client.stream_blob(sif.digest)
        for chunk in _counted(chunks, sif.size_bytes, "pull", notify):
            file.write(chunk)
        file.flush()
        signature = _check_signature(Path(file.name), key)
        os.fchmod(file.fileno(), 0o777 & ~files.umask())
    return Transfer(
        place=str(output),
        digest=manifest.digest,
        size_bytes=sif.size_bytes,
        moved_bytes=sif.size_bytes,
        signature=signature,
        elapsed_s=time.monotonic() - started_s,
    )


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(partial(file.read, 1 << 20), b"")


def _counted(chunks: Iterator[bytes], total: int, stage: str, notify: Notify) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        notify(Event(stage=stage, done=done, total=total, unit="bytes"))


def _check_signature(path: Path, key: str) -> str:
    """What is known of the signature, in words."""
    with path.open("rb") as file:
        try:
            found = read_sif(file)
        except ImageError as error:
            raise FetchError("What the registry gave is no SIF.", why=error.why) from error
    if not any(item.kind is ObjectKind.SIGNATURE for item in found.descriptors):
        if key:
            raise ImageError(
                "The image is not signed.",
                why="--key was given, so a signature is wanted.",
                now="Ask whoever pushed it to sign it (apptainer sign), or pull without --key.",
            )
        return "none"
    verdict = apptainer.verify_signature(apptainer.probe_runtime(), path, key)
    if verdict.kind == "bad":
        raise ImageError(
            "The image's signature is not valid; nothing was written.",
            why=verdict.text,
            now="Do not trust it: ask whoever pushed it." if not key else "Check the key.",
        )
    if verdict.kind == "unknown":
        return f"there, but not checked: no key for it ({verdict.text}); --key FILE names one"
    return f"valid: {verdict.text}"
