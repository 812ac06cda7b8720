from __future__ import annotations

import pytest

from limpet.core.errors import BaseError
from limpet.core.reference import parse_reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "host", "name", "tag", "digest"),
    [
        ("docker://python", "docker.io", "library/python", "latest", ""),
        ("docker://python:3.13-slim", "docker.io", "library/python", "3.13-slim", ""),
        ("docker://docker.io/python", "docker.io", "library/python", "latest", ""),
        ("docker://pytorch/pytorch:2.3", "docker.io", "pytorch/pytorch", "2.3", ""),
        ("docker://localhost/a/b", "localhost", "a/b", "latest", ""),
        ("docker://127.0.0.1:5000/a/b:c", "127.0.0.1:5000", "a/b", "c", ""),
        ("docker://[::1]:5000/a", "[::1]:5000", "a", "latest", ""),
        (f"docker://ghcr.io/a/b@{DIGEST}", "ghcr.io", "a/b", "", DIGEST),
        (f"docker://ghcr.io/a/b:t@{DIGEST}", "ghcr.io", "a/b", "t", DIGEST),
        ("oras://ghcr.io/a/b:t", "ghcr.io", "a/b", "t", ""),
    ],
)
def test_registry_references(text: str, host: str, name: str, tag: str, digest: str) -> None:
    found = parse_reference(text)
    assert (found.host, found.name, found.tag, found.digest) == (host, name, tag, digest)


@pytest.mark.parametrize(
    ("text", "scheme", "path", "tag"),
    [
        ("oci:/a b/c:d", "oci", "/a b/c", "d"),
        ("oci:./x", "oci", "./x", ""),
        ("oci:/a:b/c", "oci", "/a:b/c", ""),
        ("oci-archive:x.tar:t", "oci-archive", "x.tar", "t"),
        ("./base.sif", "path", "./base.sif", ""),
        ("base.sif", "path", "base.sif", ""),
        ("folder/sandbox", "path", "folder/sandbox", ""),
        ("/a:b/base.sif", "path", "/a:b/base.sif", ""),
        ("~/base.sif", "path", "~/base.sif", ""),
    ],
)
def test_references_to_the_disk(text: str, scheme: str, path: str, tag: str) -> None:
    found = parse_reference(text)
    assert (found.scheme, found.path, found.tag) == (scheme, path, tag)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("dcker://python:3.13", "docker://python:3.13"),
        ("docker:python", "docker://python"),
        ("debain:trixie", "debian:trixie"),
        ("python:3.13-slim", "docker://python:3.13-slim"),
        ("oci-archiv:/x.tar", "oci-archive:/x.tar"),
        ("python", "docker://python"),
    ],
)
def test_what_is_nearly_a_reference_is_an_error_with_the_nearest(text: str, hint: str) -> None:
    with pytest.raises(BaseError) as caught:
        parse_reference(text)
    assert f"Did you mean {hint}" in caught.value.now


@pytest.mark.parametrize(
    "text",
    ["", "docker://", "docker://Upper/Case", "docker://a@sha256:12", "docker://a:b c", "debian:",
     "debian:a/../b", "library://", "oci:", "docker://a\nb", "debian:-x"],
)  # fmt: skip
def test_malformed_references(text: str) -> None:
    with pytest.raises(BaseError):
        parse_reference(text)
