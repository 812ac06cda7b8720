"""Plans are values: layouts by cost, packages by what is at hand."""

from pathlib import Path

import pytest

from limpet.core.facts import BaseFacts
from limpet.core.lock import Artifact, ArtifactKind, Lock, LockedBase, LockedPackage
from limpet.core.plan import LARGEST_REWRITTEN_BYTES, choose_layout, plan_build
from limpet.core.recipe import Layout


def facts(compressor: str = "zstd", size_bytes: int = 100) -> BaseFacts:
    return BaseFacts(digest="sha256:0", arch="x86_64", compressor=compressor, size_bytes=size_bytes)


def package(name: str, kind: ArtifactKind = "wheel", size_bytes: int | None = 10) -> LockedPackage:
    artifact = Artifact(kind=kind, filename=f"{name}.whl", url="https://x/y", size_bytes=size_bytes)
    return LockedPackage(name=name, version="1", artifact=artifact)


@pytest.mark.parametrize(
    ("wanted", "compressor", "size_bytes", "expected"),
    [
        ("auto", "zstd", 50 * 2**30, "merged"),
        ("auto", "gzip", 2**27, "merged"),
        ("auto", "gzip", LARGEST_REWRITTEN_BYTES + 1, "layered"),
        ("layered", "zstd", 1, "layered"),
        ("merged", "gzip", 50 * 2**30, "merged"),
    ],
)
def test_layout(wanted: Layout, compressor: str, size_bytes: int, expected: str) -> None:
    assert choose_layout(wanted, facts(compressor, size_bytes), "zstd") == expected


def test_each_package_comes_in_one_way() -> None:
    lock = Lock(
        base=LockedBase(reference="debian:trixie", digest="sha256:0", arch="x86_64"),
        python="3.13.5",
        interpreter="/usr/bin/python3.13",
        packages=(package("a"), package("b"), package("c", "sdist", None)),
    )
    plan = plan_build(
        lock, facts(), output=Path("x.sif"), layout="auto", compression="zstd", kept={"a"}
    )
    assert [step.way for step in plan.packages] == ["kept", "fetched", "built"]
    assert plan.fetched_bytes == 10
    assert not plan.rewrites_base
    assert plan.image_bytes > 100
