"""OCI images: which manifest is meant, what it holds, and blobs that lie on the disk."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import msgspec

from limpet.core.errors import BaseError, FetchError

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
