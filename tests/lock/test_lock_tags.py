from __future__ import annotations

import pytest

from limpet.core.errors import LockError
from limpet.core.facts import Interpreter, Libc
from limpet.core.tags import Target, make_target, target_tags, uv_platform


def _target(version: str = "3.13.5", libc: str = "glibc 2.36", arch: str = "x86_64") -> Target:
    family, number = libc.split()
    python = Interpreter(path="/p", version=version, prefix="/", magic="")
    return make_target(python, Libc(family=family, version=number), arch)  # type: ignore[arg-type]


def test_tags_of_a_debian() -> None:
    tags = [str(tag) for tag in target_tags(_target())]
    assert tags[0] == "cp313-cp313-manylinux_2_36_x86_64"
    for fitting in (
        "cp313-cp313-manylinux2014_x86_64",
        "cp313-cp313-manylinux1_x86_64",
        "cp313-abi3-manylinux_2_17_x86_64",
        "cp39-abi3-manylinux_2_28_x86_64",
        "py3-none-any",
        "cp313-cp313-linux_x86_64",
        "py3-none-manylinux_2_5_x86_64",
    ):
        assert fitting in tags
    assert "cp313-cp313-manylinux_2_37_x86_64" not in tags
    assert not [tag for tag in tags if "musllinux" in tag or "aarch64" in tag or "cp314" in tag]
    assert tags.index("cp313-cp313-linux_x86_64") < tags.index("cp39-abi3-manylinux_2_28_x86_64")


def test_tags_of_other_machines() -> None:
    arm = [str(tag) for tag in target_tags(_target(arch="aarch64"))]
    assert "cp313-cp313-manylinux2014_aarch64" in arm
    assert not [tag for tag in arm if "manylinux1_" in tag or "manylinux2010" in tag]
    alpine = [str(tag) for tag in target_tags(_target(libc="musl 1.2"))]
    assert alpine[0] == "cp313-cp313-musllinux_1_2_x86_64"
    assert not [tag for tag in alpine if "manylinux" in tag]
    assert "cp37-cp37m-manylinux2014_x86_64" in [
        str(tag) for tag in target_tags(_target("3.7.9", "glibc 2.17"))
    ]


@pytest.mark.parametrize(
    ("libc", "arch", "platform"),
    [
        ("glibc 2.41", "x86_64", "x86_64-manylinux_2_40"),
        ("glibc 2.36", "x86_64", "x86_64-manylinux_2_36"),
        ("glibc 2.30", "aarch64", "aarch64-manylinux_2_28"),
        ("glibc 2.12", "x86_64", "x86_64-manylinux_2_17"),
        ("musl 1.2", "aarch64", "aarch64-unknown-linux-musl"),
    ],
)
def test_the_platform_for_uv(libc: str, arch: str, platform: str) -> None:
    assert uv_platform(_target(libc=libc, arch=arch)) == platform


def test_markers_are_the_bases() -> None:
    python = Interpreter(
        path="/p", version="3.12.1", prefix="/", magic="", markers={"platform_release": "6.1"}
    )
    markers = make_target(python, None, "aarch64").markers
    assert markers["python_version"] == "3.12"
    assert markers["platform_machine"] == "aarch64"
    assert markers["platform_release"] == "6.1"


def test_only_cpython() -> None:
    python = Interpreter(path="/p", version="3.10.1", prefix="/", magic="", implementation="pypy")
    with pytest.raises(LockError, match="pypy"):
        make_target(python, None, "x86_64")
