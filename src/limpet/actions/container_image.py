"""`limpet export --to oci` and `--to docker://…`: an image for container engines.

The base's layers are what they were, by digest; what the image has beyond its base is one layer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from limpet.actions.base_making import local_path, open_registry
from limpet.actions.bases import fetch_base, probe_base
from limpet.core import container_image as core
from limpet.core.container_image import Descriptor
from limpet.core.errors import ImageError
from limpet.core.events import Event, Notify, ignore
from limpet.core.image import ImageFacts
from limpet.core.lock import LockedBase
from limpet.core.reference import Reference, parse_reference
from limpet.core.transfer import Transfer, parse_place
from limpet.formats.layer import Compression, LayerStats, write_layer
from limpet.formats.sif import overlay_partitions, read_sif, root_partition
from limpet.formats.squashfs import Squashfs
from limpet.formats.squashfs.difference import Tree, find_changes, read_tree
from limpet.tools import apptainer, files, images, oci
from limpet.tools.config import read_config

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A blob, and how to read it; `source` is the repository that has it already."""

    blob: Descriptor
    open: Callable[[], Iterator[bytes]]
    source: Reference | None = None


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A whole image: every blob, the config last, and the manifest."""

    blobs: tuple[Stored, ...]
    manifest: bytes
    base_layers: int
    layer_bytes: int

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"

    @property
    def size_bytes(self) -> int:
        return sum(one.blob.size_bytes for one in self.blobs)


def write_layout(
    image: str,
    output: Path,
    *,
    compression: Compression = "gzip",
    force: bool = False,
    cache_dir: str = "",
    config_file: str = "",
    notify: Notify = ignore,
) -> Transfer:
    """Write the image as an OCI layout to a folder; one that was broken off is taken up again."""
    started_s = time.monotonic()
    oci.check_layout_place(output, force=force)
    with make_image(image, compression, cache_dir, config_file, notify) as made:
        moved = oci.write_layout(
            output,
            [(one.blob.digest, one.open) for one in made.blobs],
            made.manifest,
            media_type=core.MANIFEST_TYPE,
            on_blob=_progress(made, notify),
        )
        return _told(f"oci:{output}", made, moved, started_s)


def push_image(
    image: str,
    reference: str,
    *,
    compression: Compression = "gzip",
    cache_dir: str = "",
    config_file: str = "",
    notify: Notify = ignore,
) -> Transfer:
    """Push the image; what the registry has already, there or in the base's place, stays there."""
    started_s = time.monotonic()
    target = parse_place(reference, "docker", writes=True)
    client = open_registry(target, read_config(config_file).insecure_registries)
    images.read_image(image)
    client.check_access()
    with make_image(image, compression, cache_dir, config_file, notify) as made:
        moved, progress = 0, _progress(made, notify)
        for one in made.blobs:
            digest = one.blob.digest
            near = one.source if one.source and one.source.host == target.host else None
            if not client.has_blob(digest) and not (near and client.mount_blob(digest, near.name)):
                client.upload_blob(digest, one.open())
                moved += one.blob.size_bytes
            progress(one.blob.size_bytes)
        client.put_manifest(target.tag, made.manifest, core.MANIFEST_TYPE)
        return _told(f"docker://{client.label}:{target.tag}", made, moved, started_s)


def _told(place: str, made: Made, moved: int, started_s: float) -> Transfer:
    return Transfer(
        place=place,
        digest=made.digest,
        size_bytes=made.size_bytes,
        moved_bytes=moved,
        layers=made.base_layers,
        layer_bytes=made.layer_bytes,
        elapsed_s=time.monotonic() - started_s,
    )


def _progress(made: Made, notify: Notify) -> Callable[[int], None]:
    done = 0

    def count(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        notify(Event(stage="layers", done=done, total=made.size_bytes, unit="bytes"))

    return count


@contextlib.contextmanager
def make_image(
    image: str, compression: Compression, cache_dir: str, config_file: str, notify: Notify
) -> Iterator[Made]:
    """The image's blobs and manifest; those that had to be made lie in a passing folder."""
    config = read_config(config_file)
    path = Path(image).absolute()
    seen = images.read_image(str(path))
    if seen.facts is None:
        raise ImageError(
            f"{path} does not say what its base is.",
            why="It was not made by limpet.",
            now=f"Build one on it: limpet build --base {image} --pip NAME -o FILE.",
        )
    facts = seen.facts
    cache = files.make_folder(files.cache_folder(cache_dir or config.cache_dir))
    insecure = config.insecure_registries
    base_sif = fetch_base(
        facts.base, cache=cache, folder=path.parent, notify=notify, insecure=insecure
    )
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(files.passing_folder(cache / "tmp"))
        files.check_space(scratch, size_bytes=3 * path.stat().st_size)
        parsed = parse_reference(facts.base.reference)
        if parsed.scheme == "docker":
            layers, base_config = _registry_base(facts.base, parsed, insecure)
        elif parsed.scheme in ("oci", "oci-archive"):
            layout = stack.enter_context(oci.Layout(local_path(parsed, path.parent)))
            layers, base_config = _layout_base(facts.base, layout)
        else:
            notify(Event(stage="layers", kind="note", message="Making one layer of the base"))
            layers, base_config = _plain_base(facts.base, base_sif, cache, scratch, compression)
        notify(Event(stage="layers", kind="note", message="Comparing the image with its base"))
        yield _on_base(path, facts, base_sif, layers, base_config, scratch, compression)


def _on_base(
    path: Path,
    facts: ImageFacts,
    base_sif: Path,
    layers: tuple[Stored, ...],
    base_config: dict[str, Any],
    scratch: Path,
    compression: Compression,
) -> Made:
    own, script = _environment_layer(path, base_sif, scratch, compression)
    env = dict(one.partition("=")[::2] for one in (base_config.get("config") or {}).get("Env", ()))
    given = core.render_config(
        base_config,
        diff_ids=[own[1]],
        variables=core.read_exports(script, {"PATH": _PATH, **env}),
        labels=facts.labels,
        comment=f"limpet {facts.limpet}: {facts.name}",
        arch=oci.ARCHITECTURES[facts.arch],
        has_python=bool(facts.python),
    )
    digest = f"sha256:{hashlib.sha256(given).hexdigest()}"
    config = Descriptor(media_type=core.CONFIG_TYPE, digest=digest, size_bytes=len(given))
    blobs = (*layers, own[0])
    annotations = {
        "org.opencontainers.image.base.name": facts.base.reference,
        "org.opencontainers.image.base.digest": facts.base.digest,
    }
    return Made(
        blobs=(*blobs, Stored(blob=config, open=lambda: iter([given]))),
        manifest=core.render_manifest(config, [one.blob for one in blobs], annotations),
        base_layers=len(layers),
        layer_bytes=own[0].blob.size_bytes,
    )


def _environment_layer(
    path: Path, base_sif: Path, scratch: Path, compression: Compression
) -> tuple[tuple[Stored, str], str]:
    """What the image has beyond its base as a layer, its diff id, and the start script's text."""
    with path.open("rb") as file, base_sif.open("rb") as base_file:
        tree, base = _read(file), _read(base_file)
        script = tree.get(core.ENV_SCRIPT)
        image = script.image if script else None
        text = image.read(script).decode() if script and isinstance(image, Squashfs) else ""
        stored = _store(scratch / "environment", find_changes(base, tree), compression)
    return stored, text


def _read(file: BinaryIO) -> Tree:
    sif = read_sif(file)
    parts = (root_partition(sif), *overlay_partitions(sif))
    return read_tree([Squashfs(file, part.offset) for part in parts], core.is_runtimes_own)


def _store(place: Path, changes: Any, compression: Compression) -> tuple[Stored, str]:
    with place.open("wb") as out:
        stats: LayerStats = write_layer(cast(BinaryIO, out), changes, compression)
    blob = Descriptor(
        media_type=f"{core.LAYER_TYPE}+{compression}",
        digest=stats.digest,
        size_bytes=stats.size_bytes,
    )
    return Stored(blob=blob, open=partial(_chunks, place)), stats.diff_id


def _chunks(place: Path) -> Iterator[bytes]:
    with place.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def _registry_base(
    base: LockedBase, parsed: Reference, insecure: tuple[str, ...]
) -> tuple[tuple[Stored, ...], dict[str, Any]]:
    client = open_registry(parsed, insecure)
    manifest = oci.select_manifest(client.read_manifest, base.digest, base.arch, client.label)
    config = json.loads(b"".join(client.stream_blob(manifest.config.digest)))
    layers = tuple(
        Stored(blob=_described(blob), open=partial(client.stream_blob, blob.digest), source=parsed)
        for blob in manifest.layers
    )
    return layers, config


def _layout_base(base: LockedBase, layout: oci.Layout) -> tuple[tuple[Stored, ...], dict[str, Any]]:
    manifest = oci.select_manifest(layout.read_manifest, base.digest, base.arch, base.reference)
    with layout.open_blob(manifest.config.digest) as file:
        config = json.load(file)

    def read(digest: str) -> Iterator[bytes]:
        with layout.open_blob(digest) as file:
            while chunk := file.read(1 << 20):
                yield chunk

    layers = tuple(
        Stored(blob=_described(blob), open=partial(read, blob.digest)) for blob in manifest.layers
    )
    return layers, config


def _described(blob: oci.Blob) -> Descriptor:
    return Descriptor(
        media_type=core.oci_type(blob.media_type), digest=blob.digest, size_bytes=blob.size_bytes
    )


def _plain_base(
    base: LockedBase, base_sif: Path, cache: Path, scratch: Path, compression: Compression
) -> tuple[tuple[Stored, ...], dict[str, Any]]:
    """A base that has no layers (Debian's packages, a SIF, a folder) is one layer."""
    facts = probe_base(base, base_sif, cache=cache, runtime=apptainer.probe_runtime())
    with base_sif.open("rb") as file:
        layer, diff_id = _store(scratch / "base", sorted(_read(file).items()), compression)
    variables = {"PATH": _PATH, **facts.variables}
    config = {
        "config": {"Env": [f"{name}={value}" for name, value in variables.items()]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    return (layer,), config
