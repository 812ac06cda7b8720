"""Bases and images that are not there, or are not what they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.build.workshop import Workshop, check_refused, unchanged
from tests.conftest import Base

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("base", "code", "said"),
    [
        ("./no-such-base.sif", 5, "no-such-base.sif does not exist"),
        ("oci:no-such-layout", 5, "no-such-layout does not exist"),
        ("debian:no-such-suite", 5, "no-such-suite"),
        ("ftp://somewhere/base", 5, "ftp"),
    ],
)
def test_base_that_does_not_exist(workshop: Workshop, base: str, code: int, said: str) -> None:
    recipe = workshop.require("tiny")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe, "--base", base)
    check_refused(done, code, said)


def test_base_that_the_registry_does_not_have(workshop: Workshop, registry: str) -> None:
    recipe = workshop.require("tiny")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe, "--base", f"docker://{registry}/nobody/nothing:1")
    check_refused(done, 5, f"{registry}/nobody/nothing")


def test_registry_that_cannot_be_reached(workshop: Workshop) -> None:
    recipe = workshop.require("tiny")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe, "--base", "docker://127.0.0.1:9/some/image:1")
    check_refused(done, 6, "127.0.0.1:9")


@pytest.mark.parametrize("verb", ["build", "run", "inspect"])
def test_file_that_is_no_sif(workshop: Workshop, verb: str) -> None:
    recipe = workshop.require("tiny")
    other = workshop.write("holiday.sif", "Not an image at all.\n" * 100)
    with unchanged(workshop.folder):
        if verb == "build":
            done = workshop.try_build(recipe, "--base", other)
        else:
            done = workshop.run(workshop.words(verb, other, *(["true"] if verb == "run" else [])))
    check_refused(done, 125 if verb == "run" else 8, "holiday.sif", "no SIF image")


@pytest.mark.parametrize("kept", [100, 5000, 20_000_000])
def test_sif_that_is_truncated(
    workshop: Workshop, debian_base: Base, tmp_path: Path, kept: int
) -> None:
    """In its header, in its table of objects, in its data."""
    recipe = workshop.require("tiny")
    with debian_base.sif.open("rb") as whole:
        cut = workshop.write("cut.sif", whole.read(kept))
    with unchanged(workshop.folder):
        built = workshop.try_build(recipe, "--base", cut)
        started = workshop.run(workshop.words("run", cut, "true"))
    check_refused(built, 8, "cut.sif", "no SIF image" if kept == 100 else "cut off")
    check_refused(started, 125, "cut.sif")


@pytest.mark.parametrize("verb", ["run", "inspect"])
def test_image_that_does_not_exist(workshop: Workshop, verb: str) -> None:
    done = workshop.run(workshop.words(verb, "missing.sif", *(["true"] if verb == "run" else [])))
    check_refused(done, 125 if verb == "run" else 8, "missing.sif", "There is no image")


def test_lock_from_another_architecture(workshop: Workshop) -> None:
    recipe = workshop.require("tiny")
    workshop.run(workshop.words("lock", recipe, "--base", workshop.base))
    lock = workshop.folder / "pylock.toml"
    text = lock.read_text()
    assert 'arch = "x86_64"' in text
    other = text.replace('arch = "x86_64"', 'arch = "aarch64"').replace(
        "platform_machine == 'x86_64'", "platform_machine == 'aarch64'"
    )
    lock.write_text(other)
    for words in ((recipe,), (recipe, "--frozen"), (lock,)):
        with unchanged(workshop.folder):
            done = workshop.try_build(*words)
        check_refused(done, 4, "aarch64", "x86_64")
