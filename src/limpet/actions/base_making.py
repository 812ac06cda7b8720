"""Making bases: whatever a reference names, as one SIF in the cache under its digest."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from limpet.core.errors import BaseError, FetchError, LockError
from limpet.core.events import Event, Notify, ignore
from limpet.core.lock import LockedBase
from limpet.core.reference import Reference, parse_reference
from limpet.formats.squashfs import Entry
from limpet.tools import (
    apptainer,
    base_store,
    debian,
    files,
    layers,
    logins,
    oci,
    process,
    registry,
    runtime_files,
)


def fetch_base(
    base: LockedBase,
    *,
    cache: Path,
    folder: Path | None = None,
    notify: Notify = ignore,
    offline: bool = False,
    insecure: Collection[str] = (),
) -> Path:
    """The SIF of a base: in the cache, made there once, or the local file itself."""
    parsed = parse_reference(base.reference)
    if parsed.scheme == "path" and local_path(parsed, folder).is_file():
        return _fetch_local(base, local_path(parsed, folder), cache)
    target = base_store.base_path(cache, base.digest)
    if target.exists():
        files.mark_used(target.with_suffix(".facts.json"))
        return target
    with files.held(target.with_suffix(".lock")):
        files.sweep_partials(target.parent)
        if not target.exists():
            notify(Event(stage="base", kind="start", message=f"Fetching {base.reference}"))
            _make_base(base, parsed, target, cache, folder, notify, offline, insecure)
            notify(Event(stage="base", kind="end", message=f"Fetched {base.reference}"))
    return target


def _make_base(
    base: LockedBase,
    parsed: Reference,
    target: Path,
    cache: Path,
    folder: Path | None,
    notify: Notify,
    offline: bool,
    insecure: Collection[str],
) -> None:
    if parsed.scheme in ("oci", "oci-archive"):
        with oci.Layout(_existing(base, local_path(parsed, folder))) as layout:
            _make_from_layout(base, layout, target)
    elif parsed.scheme == "path":
        _make_from_sandbox(base, _existing(base, local_path(parsed, folder)), target)
    elif offline:
        raise FetchError(
            f"The base {base.reference} is not in the cache.",
            why=f"{target.name} is missing, and --offline forbids to fetch it.",
        )
    elif parsed.scheme == "library":
        _make_from_library(base, cache)
    else:
        with base_store.scratch_folder(cache) as scratch:
            if parsed.scheme == "debian":
                _make_from_debian(base, parsed, target, scratch)
            else:
                _make_from_registry(base, parsed, target, scratch, notify, insecure)


def _existing(base: LockedBase, path: Path) -> Path:
    if not path.exists():
        raise BaseError(f"The base {base.reference} does not exist.", why=f"There is no {path}.")
    return path


def _fetch_local(base: LockedBase, path: Path, cache: Path) -> Path:
    if base_store.digest_file(cache, path) != base.digest:
        raise changed(base)
    return path


def changed(base: LockedBase) -> LockError:
    return LockError(
        f"The base {base.reference} is no longer what the lock says.",
        why=f"The lock names {base.digest}; the content has changed since.",
        now="Lock again with `limpet lock --upgrade`, or bring the old one back.",
    )


def _make_from_sandbox(base: LockedBase, path: Path, target: Path) -> None:
    if base_store.digest_sandbox(path) != base.digest:
        raise changed(base)
    own = runtime_files.singularity_files({"Env": debian.VARIABLES[:1]})
    bare = not (path / ".singularity.d").exists()
    entries = chain(base_store.walk_sandbox(path), own if bare else ())
    base_store.write_base(target, _with_mount_points(entries), arch=base.arch, digest=base.digest)


def _with_mount_points(entries: Iterable[Entry]) -> Iterator[Entry]:
    yield from runtime_files.mount_points()
    yield from entries


def _make_from_layout(base: LockedBase, layout: oci.Layout, target: Path) -> None:
    manifest = oci.select_manifest(layout.read_manifest, base.digest, base.arch, base.reference)
    for blob in (manifest.config, *manifest.layers):
        layout.check_blob(blob.digest)
    with layout.open_blob(manifest.config.digest) as file:
        config = json.load(file)
    openers = [partial(layout.open_blob, blob.digest) for blob in manifest.layers]
    _write_layers(base, config, openers, map(_read_layer, openers), target)


def _read_layer(open_layer: layers.OpenLayer) -> list[layers.Member]:
    with open_layer() as layer:
        return layers.read_members(layer)


def _make_from_registry(
    base: LockedBase,
    parsed: Reference,
    target: Path,
    scratch: Path,
    notify: Notify,
    insecure: Collection[str],
) -> None:
    client = open_registry(parsed, insecure)
    manifest = oci.select_manifest(client.read_manifest, base.digest, base.arch, client.label)
    if parsed.scheme == "oras":
        _make_from_oras(base, client, manifest, target)
        return
    blobs = (manifest.config, *manifest.layers)
    files.check_space(scratch, size_bytes=4 * sum(blob.size_bytes for blob in blobs))
    fetched = _fetch_layers(client, manifest.layers, scratch, notify)
    config = json.loads(b"".join(client.stream_blob(manifest.config.digest)))
    openers = [cast(layers.OpenLayer, partial(one.path.open, "rb")) for one in fetched]
    _write_layers(base, config, openers, [one.members for one in fetched], target)


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer as a plain tar on the disk, and what is in it."""

    path: Path
    members: list[layers.Member]


def _fetch_layers(
    client: registry.Registry, blobs: Sequence[oci.Blob], scratch: Path, notify: Notify
) -> list[_Layer]:
    """All layers, a few at a time, inflated as they come; one that occurs twice comes once."""
    from concurrent.futures import ThreadPoolExecutor

    wanted = {blob.digest: blob for blob in blobs}
    total, done = sum(blob.size_bytes for blob in wanted.values()), 0

    def fetch(blob: oci.Blob) -> _Layer:
        path = scratch / blob.digest.partition(":")[2]
        with path.open("wb") as plain:
            members = layers.keep_layer(client.stream_blob(blob.digest), cast(BinaryIO, plain))
        return _Layer(path=path, members=members)

    fetched = {}
    with ThreadPoolExecutor(3) as pool:
        for blob, layer in zip(wanted.values(), pool.map(fetch, wanted.values()), strict=True):
            fetched[blob.digest] = layer
            done += blob.size_bytes
            notify(Event(stage="base", message=client.label, done=done, total=total, unit="bytes"))
    return [fetched[blob.digest] for blob in blobs]


def _write_layers(
    base: LockedBase,
    config: dict[str, Any],
    openers: Sequence[layers.OpenLayer],
    members: Iterable[list[layers.Member]],
    target: Path,
) -> None:
    oci.check_config(config, base.arch, base.reference)
    tree = layers.LayerTree()
    for number, brought in enumerate(members):
        tree.add_layer(number, brought)

    def entries() -> Iterator[Entry]:
        yield from _with_mount_points(layers.read_entries(tree, openers))
        yield from runtime_files.singularity_files(config.get("config") or {})

    base_store.write_base(target, entries(), arch=base.arch, digest=base.digest)


def _make_from_oras(
    base: LockedBase, client: registry.Registry, manifest: oci.Manifest, target: Path
) -> None:
    sif = oci.find_sif(manifest, client.label)
    files.check_space(target.parent, size_bytes=sif.size_bytes)
    with files.written_beside(target) as file:
        client.download_blob(sif.digest, file)


def _make_from_debian(base: LockedBase, parsed: Reference, target: Path, scratch: Path) -> None:
    captured = {"var/lib/dpkg/status": b""}

    def entries(stream: BinaryIO) -> Iterator[Entry]:
        yield from _with_mount_points(
            layers.stream_entries(
                stream, clamp=debian.EPOCH, drop=debian.is_dropped, captured=captured
            )
        )
        check_packages(base, captured["var/lib/dpkg/status"])
        yield from runtime_files.singularity_files({"Env": debian.VARIABLES})

    with debian.open_tar(parsed.name, base.arch, scratch) as stream:
        base_store.write_base(target, entries(stream), arch=base.arch, digest=base.digest)


def check_packages(base: LockedBase, status: bytes) -> None:
    """LockError where the mirror gave other packages than were locked."""
    got, locked = set(debian.parse_status(status.decode())), set(base.packages)
    if got != locked:
        differing = ", ".join(sorted(got - locked)[:6]) or "fewer packages"
        raise LockError(
            f"Debian's mirror has moved on since {base.reference} was locked.",
            why=f"It now gives {differing}.",
            now="Lock again with `limpet lock --upgrade`; or name a mirror that keeps the old "
            "state (snapshot.debian.org) in LIMPET_DEBIAN_MIRROR.",
        )


def pull_library(reference: str, cache: Path, arch: str) -> LockedBase:
    """Pull from a library into the cache; what came is what the reference means."""
    runtime = apptainer.probe_runtime()
    with base_store.scratch_folder(cache) as scratch:
        pulled = scratch / "pulled.sif"
        env = apptainer.build_environment(runtime, {}) | temporaries(runtime, scratch)
        options = ("--silent", "pull", "--disable-cache", "--arch", oci.ARCHITECTURES[arch])
        argv = [str(runtime.path), *options, str(pulled), reference]
        done = process.run(argv, env=env, cwd=scratch)
        if done.code != 0 or not pulled.exists():
            raise FetchError(
                f"{reference} cannot be pulled.",
                why=done.stderr.strip()[-600:],
                now=f"`{runtime.path.name} remote list` says which library is asked.",
            )
        base = LockedBase(
            reference=reference, digest=f"sha256:{files.hash_file(pulled)}", arch=arch
        )
        pulled.replace(base_store.base_path(cache, base.digest))
    return base


def _make_from_library(base: LockedBase, cache: Path) -> None:
    if pull_library(base.reference, cache, base.arch).digest != base.digest:
        raise changed(base)


def temporaries(runtime: apptainer.Runtime, folder: Path) -> dict[str, str]:
    """Variables that keep a runtime's temporary files out of /tmp and its cache out of the home."""
    prefix = "APPTAINER" if runtime.kind == "apptainer" else "SINGULARITY"
    return {f"{prefix}_TMPDIR": str(folder), f"{prefix}_CACHEDIR": str(folder / "cache")}


def local_path(parsed: Reference, folder: Path | None) -> Path:
    """Where a reference to something on the disk leads."""
    return (folder or Path.cwd()) / Path(parsed.path).expanduser()


def open_registry(parsed: Reference, insecure: Collection[str]) -> registry.Registry:
    """A client for the repository of a reference, with the login that is known for it."""
    login = logins.find_login(parsed.host)
    return registry.Registry(parsed.host, parsed.name, login=login, insecure=insecure)
