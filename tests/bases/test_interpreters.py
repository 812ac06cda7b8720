from __future__ import annotations

import pytest

from limpet.core.errors import BaseError, RecipeError
from limpet.core.facts import BaseFacts, Interpreter
from limpet.core.interpreters import choose_interpreter


def facts(*versions: str, programs: tuple[str, ...] = ()) -> BaseFacts:
    found = tuple(
        Interpreter(path=f"/{number}/python3", version=version, prefix="/usr", magic="00")
        for number, version in enumerate(versions)
    )
    return BaseFacts(
        digest="sha256:0", arch="x86_64", os_name="Some Linux 1", interpreters=found,
        programs=programs,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("", "3.12.1"), ("3.13", "3.13.5"), ("3.13.5", "3.13.5"), (">=3.11", "3.12.1"),
     ("<3.12", "3.9.2"), ("3.14", "3.14.0rc1"), ("3.*", "3.12.1")],
)  # fmt: skip
def test_the_first_that_fits(wanted: str, expected: str) -> None:
    base = facts("3.12.1", "3.13.5", "3.9.2", "3.14.0rc1")
    assert choose_interpreter(base, wanted).version == expected


def test_the_error_names_what_is_there_and_what_would_do() -> None:
    with pytest.raises(BaseError) as caught:
        choose_interpreter(facts("3.9.2"), "3.13")
    assert "Some Linux 1 and has 3.9.2 (/0/python3)" in caught.value.why
    assert "docker://python:3.13-slim, debian:trixie" in caught.value.now
    with pytest.raises(BaseError) as caught:
        choose_interpreter(facts(programs=("apt-get",)), "")
    assert "none at all" in caught.value.why
    assert "apt = [" in caught.value.now


def test_a_python_that_is_too_old_does_not_count() -> None:
    with pytest.raises(BaseError, match="has no Python"):
        choose_interpreter(facts("3.6.8"), "")


def test_a_version_that_is_none() -> None:
    with pytest.raises(RecipeError):
        choose_interpreter(facts("3.13.5"), "three")
