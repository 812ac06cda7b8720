"""OCI images: which manifest is meant, what it holds, and blobs that lie on the disk."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import msgspec

from limpet.core.errors import BaseError, ExistsError, FetchError, SpaceError
from limpet.tools import files

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"
ReadManifest = Callable[[str], tuple[bytes, str]]


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """A thing of an image by its digest."""

    digest: str
    size_bytes: int
    media_type: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """An image for one architecture."""

    digest: str
    config: Blob
    layers: tuple[Blob, ...]


def select_manifest(read: ReadManifest, version: str, arch: str, label: str) -> Manifest:
    """The manifest for `arch` behind a tag or digest, through indexes where there are some."""
    for _ in range(4):  # an index may hold an index
        data, digest = read(version)
        document = _parse_document(data, label)
        if "manifests" not in document:
            return _parse_manifest(document, digest, label)
        version = _pick(document["manifests"], arch, label)
    raise BaseError(f"{label} is an index within an index without end.")


def find_sif(manifest: Manifest, label: str) -> Blob:
    """The one SIF behind an `oras://` reference."""
    sifs = [blob for blob in manifest.layers if blob.media_type == SIF_LAYER]
    if len(sifs) != 1:
        raise BaseError(
            f"{label} holds no SIF.",
            why=f"It holds {', '.join(blob.media_type for blob in manifest.layers) or 'nothing'}.",
            now=f"For a container image write docker:// instead of oras://{label}.",
        )
    return sifs[0]


def _parse_document(data: bytes, label: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise FetchError(f"The manifest of {label} is no JSON.", why=str(error)) from error
    if not isinstance(document, dict) or document.get("schemaVersion") != 2:
        raise BaseError(
            f"The manifest of {label} is of a kind that limpet does not read.",
            why="It is not an OCI or Docker schema 2 manifest.",
        )
    return document


def _pick(manifests: list[dict[str, Any]], arch: str, label: str) -> str:
    wanted = ARCHITECTURES[arch]
    found = []
    for manifest in manifests:
        platform = manifest.get("platform") or {}
        if platform.get("os", "linux") == "linux" and platform.get("architecture", "") in (
            wanted,
            "",
        ):
            return str(manifest["digest"])
        found.append(f"{platform.get('os', '?')}/{platform.get('architecture', '?')}")
    there = ", ".join(sorted(set(found) - {"unknown/unknown"})) or "nothing"
    raise BaseError(f"{label} is not there for {arch}.", why=f"It is there for {there}.")


def _parse_manifest(document: dict[str, Any], digest: str, label: str) -> Manifest:
    try:
        layers = tuple(_parse_blob(layer) for layer in document["layers"])
        return Manifest(digest=digest, config=_parse_blob(document["config"]), layers=layers)
    except (KeyError, TypeError, ValueError) as error:
        raise BaseError(f"The manifest of {label} is damaged.", why=f"Missing: {error}") from error


def _parse_blob(part: dict[str, Any]) -> Blob:
    digest = str(part["digest"])
    if not digest.startswith("sha256:"):
        raise ValueError(digest)
    media_type = str(part.get("mediaType", ""))
    return Blob(digest=digest, size_bytes=int(part["size"]), media_type=media_type)


def check_config(config: dict[str, Any], arch: str, label: str) -> None:
    """BaseError where the image is for another architecture than it is wanted for."""
    found = config.get("architecture") or ARCHITECTURES[arch]
    if found != ARCHITECTURES[arch]:
        names = {docker: name for name, docker in ARCHITECTURES.items()}
        raise BaseError(f"{label} is for {names.get(found, found)}, and {arch} is needed.")


class Layout:
    """An OCI image layout: a folder, or a tar archive of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tar: tarfile.TarFile | None = None
        try:
            if path.is_file():
                self._tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed by __exit__
            self._index = json.loads(self._read("index.json"))
        except (OSError, KeyError, ValueError, tarfile.TarError) as error:
            raise BaseError(
                f"{path} is no OCI image layout.",
                why=f"Its index.json cannot be read: {error}.",
                now="`skopeo copy … oci:FOLDER:tag` or `oci-archive:FILE:tag` makes one.",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tar:
            self._tar.close()

    def find_version(self, tag: str) -> str:
        """The digest behind a tag, or of the only image there is."""
        manifests = self._index.get("manifests") or []
        tags = [
            (m.get("annotations") or {}).get("org.opencontainers.image.ref.name") for m in manifests
        ]
        if not tag and len(manifests) == 1:
            return str(manifests[0]["digest"])
        for manifest, name in zip(manifests, tags, strict=True):
            if name == (tag or "latest"):
                return str(manifest["digest"])
        known = ", ".join(name for name in tags if name) or "none"
        raise BaseError(f"{self.path} has no image {tag or 'latest'!r}.", why=f"It has: {known}.")

    def read_manifest(self, digest: str) -> tuple[bytes, str]:
        """A manifest and its digest, checked."""
        with self.open_blob(digest) as file:
            data = file.read()
        self._check(digest, hashlib.sha256(data).hexdigest())
        return data, digest

    def check_blob(self, digest: str) -> None:
        """FetchError where a blob is not what its digest says."""
        with self.open_blob(digest) as file:
            self._check(
                digest, hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
            )

    def open_blob(self, digest: str) -> BinaryIO:
        """A blob as a stream."""
        kind, _, value = digest.partition(":")
        try:
            return self._open(f"blobs/{kind}/{value}")
        except (OSError, KeyError) as error:
            raise FetchError(f"{self.path} lacks the blob {digest}.", why=str(error)) from error

    def _check(self, digest: str, found: str) -> None:
        if digest != f"sha256:{found}":
            raise FetchError(f"A blob of {self.path} is damaged.", why=f"{digest} holds {found}.")

    def _read(self, name: str) -> bytes:
        with self._open(name) as file:
            return file.read()

    def _open(self, name: str) -> BinaryIO:
        if self._tar is None:
            return (self.path / name).open("rb")
        try:
            member = self._tar.getmember(name)
        except KeyError:
            member = self._tar.getmember(f"./{name}")
        file = self._tar.extractfile(member)
        if file is None:
            raise KeyError(name)
        return cast(BinaryIO, file)


def check_layout_place(folder: Path, *, force: bool) -> None:
    """Refuse a folder that is none, that holds other things, or a layout that is not to be lost."""
    if not folder.parent.is_dir():
        raise SpaceError(f"The folder {folder.parent} does not exist.", now="Make it first.")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExistsError(f"{folder} is there already and is no folder.", now="Name another.")
    found = {path.name for path in folder.iterdir()}
    if found - {"blobs", "oci-layout", "index.json", "ingest"}:
        raise ExistsError(f"{folder} holds other things.", now="Name a new or an empty folder.")
    if "index.json" in found and not force:
        raise ExistsError(f"{folder} is an OCI layout already.", now="Use --force to replace it.")


def write_layout(
    folder: Path,
    blobs: Sequence[tuple[str, Callable[[], Iterator[bytes]]]],
    manifest: bytes,
    *,
    media_type: str,
    on_blob: Callable[[int], None],
    tag: str = "latest",
) -> int:
    """A layout with one image; how many bytes were written that were not there before.

    The index comes last: without it a folder is no layout yet, and the blobs in it are kept for
    the next attempt.
    """
    place = files.make_folder(folder / "blobs" / "sha256")
    (folder / "index.json").unlink(missing_ok=True)
    files.sweep_partials(place)
    written = 0
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    wanted = {digest.removeprefix("sha256:")}
    for named, chunks in (*blobs, (digest, lambda: iter([manifest]))):
        name = named.removeprefix("sha256:")
        wanted.add(name)
        if not (place / name).exists():
            written += _write_blob(place / name, chunks(), folder)
        on_blob((place / name).stat().st_size)
    for path in place.iterdir():
        if path.name not in wanted:
            path.unlink()
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": media_type,
                "digest": digest,
                "size": len(manifest),
                "annotations": {"org.opencontainers.image.ref.name": tag},
            }
        ],
    }
    for file_name, document in (
        ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ("index.json", index),
    ):
        with files.written_beside(folder / file_name) as out:
            out.write(json.dumps(document, sort_keys=True).encode())
    return written


def _write_blob(path: Path, chunks: Iterator[bytes], folder: Path) -> int:
    hashed, size = hashlib.sha256(), 0
    with files.written_beside(path) as out:
        for chunk in chunks:
            out.write(chunk)
            hashed.update(chunk)
            size += len(chunk)
        if hashed.hexdigest() != path.name:
            raise FetchError(
                f"A blob on its way to {folder} is damaged.",
                why=f"sha256:{path.name} was wanted, sha256:{hashed.hexdigest()} came.",
            )
    return size
