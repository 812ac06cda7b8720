from __future__ import annotations

import pytest

from limpet.core.errors import BuildError, FetchError, LockError, RecipeError
from limpet.core.facts import Distribution, Interpreter, Libc
from limpet.core.provided import find_mentioned, plan_stubs
from limpet.core.solver_errors import explain_failure, shorten
from limpet.core.tags import Target, make_target


@pytest.fixture
def target(interpreter: Interpreter) -> Target:
    return make_target(interpreter, Libc(family="glibc", version="2.41"), "x86_64")


def test_stubs(vendor: Interpreter, target: Target) -> None:
    stubs = {stub.name: stub for stub in plan_stubs(vendor.distributions, target.markers)}
    assert sorted(stubs) == ["lp-filelock", "lp-numbers", "torch"]
    torch = stubs["torch"]
    assert torch.filename == "torch-2.3.0a0+vendor-py3-none-any.whl"
    assert torch.metadata.splitlines() == [
        "Metadata-Version: 2.1",
        "Name: torch",
        "Version: 2.3.0a0+vendor",
        "Provides-Extra: plots",
        "Requires-Dist: lp-filelock",
        'Requires-Dist: lp-plots; extra == "plots"',
    ]


def test_the_first_on_the_path_counts_and_odd_versions_do_not(target: Target) -> None:
    several = [
        Distribution(name="a", version="2"),
        Distribution(name="A", version="1"),
        Distribution(name="b", version="not a version"),
        Distribution(name="setuptools", version="70"),
    ]
    assert [(s.name, s.version) for s in plan_stubs(several, target.markers)] == [("a", "2")]


def test_mentioned() -> None:
    provided = {"torch": "1", "typing-extensions": "4", "num": "1"}
    text = "Because torch==2.3 depends on Typing_Extensions>=5, and numpy"
    assert find_mentioned(text, provided) == ("torch", "typing-extensions")


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            "error: No solution found\n  cause: x was not found in the package registry",
            LockError,
            "x",
        ),
        ("error: No solution found\n  cause: Because you require torch>=3", LockError, "the base"),
        ("error: No solution found\n  cause: Because only numpy<3", LockError, "glibc 2.41"),
        ("error: No solution found\nhint: ... (401 Unauthorized).", FetchError, "refuses"),
        ("error: HTTP status client error (403 Forbidden)", FetchError, "refuses"),
        ("error: x\n  cause: dns error", FetchError, "reached"),
        ("error: No solution\nhint: the network was disabled", FetchError, "Offline"),
        ("error: Couldn't parse requirement in `a.in`", RecipeError, "a.in"),
        ("error: Failed to build `x @ file:///x`\n cause: bad", BuildError, "built"),
        ("error: something else", LockError, "something else"),
        (
            "error: invalid value 'soon' for '--exclude-newer <EXCLUDE_NEWER>': `soon` could not",
            RecipeError,
            "exclude_newer: 'soon' is no date.",
        ),
    ],
)
def test_failures(text: str, kind: type[Exception], words: str, target: Target) -> None:
    error = explain_failure(text, target, provided={"torch": "2.3"})
    assert type(error) is kind
    assert words in str(error)


def test_failures_are_short_and_have_no_secret(target: Target) -> None:
    text = "error: No solution found\n" + "line https://u:hunter2@h/x\n" * 40
    error = explain_failure(text, target)
    assert len(error.why.splitlines()) == 4
    assert "hunter2" not in str(error)
    assert shorten("a\n\nb\n") == "a\nb"
