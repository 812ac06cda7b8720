"""The table of messages, and when limpet stays beside a program."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from limpet.actions.launch import wants_answers
from limpet.core.failure import Failure
from limpet.core.failure_tables import FAILURES
from limpet.core.failures import find_answer
from limpet.core.seen import Request
from limpet.core.watching import RANKS, Stream, is_worth_watching
from limpet.tools import watch


@pytest.mark.parametrize("row", FAILURES, ids=lambda row: row.name)
def test_each_message_gets_its_own_answer(row: Failure) -> None:
    for said in (row.example, f"before\n{row.example}\nafter\n", f"\x1b[35m{row.example}\x1b[0m"):
        found = find_answer(said, 1)
        assert found is not None and found.name == row.name
        assert "\n" not in found.answer and "{" not in found.answer


def test_the_last_message_counts() -> None:
    warning = "Matplotlib created a temporary cache directory at /tmp/x because …\n"
    found = find_answer(warning + "ModuleNotFoundError: No module named 'foo.bar'\n", 1)
    assert found and found.answer.startswith("foo.bar is not in the image")


def test_colours_of_a_terminal_do_not_hide_a_message() -> None:
    said = "\x1b[1;35mModuleNotFoundError\x1b[0m: \x1b[35mNo module named 'foo'\x1b[0m"
    found = find_answer(said, 1)
    assert found and found.name == "module missing"


def test_words_of_the_program_are_made_harmless() -> None:
    found = find_answer("could not open image /a\x07\x9b2J.sif: failed to retrieve path", 255)
    assert found is not None
    missing = find_answer(f"lib{'x' * 500}.so.1: cannot open shared object file", 1)
    assert missing is not None and len(missing.answer) < 200
    evil = find_answer('FATAL:   "\x1b]0;x\x07y": executable file not found in $PATH', 255)
    assert evil is not None and evil.answer.isprintable()


@pytest.mark.parametrize(("code", "name"), [(132, "illegal instruction"), (135, "bus error")])
def test_signals_that_say_nothing(code: int, name: str) -> None:
    found = find_answer("", code)
    assert found and found.name == name


@pytest.mark.parametrize("said", ["", "all is well", "error: something else", "\x00" * 1000])
def test_nothing_is_said_of_what_is_not_known(said: str) -> None:
    assert find_answer(said, 1) is None


@pytest.mark.parametrize(
    ("command", "terminal", "stderr", "worth"),
    [
        ("python run.py", False, "file", True),
        ("python run.py", True, "terminal", True),
        ("python -m pkg -i", True, "terminal", True),
        ("python -W ignore run.py", True, "terminal", True),
        ("python -uc pass", True, "terminal", True),
        ("python", True, "terminal", False),
        ("python3.12 -W ignore", True, "terminal", False),
        ("python -i run.py", True, "terminal", False),
        ("python", False, "pipe", True),
        ("python", False, "terminal", False),
        ("bash", True, "file", False),
        ("bash -c true", True, "file", True),
        ("ipython", True, "file", False),
        ("/usr/bin/vim x", True, "terminal", False),
        ("mytool x", False, "pipe", True),
        ("mytool x", True, "file", True),
        ("mytool x", False, "none", False),
        ("", False, "file", False),
    ],
)
def test_what_is_worth_watching(command: str, terminal: bool, stderr: Stream, worth: bool) -> None:
    told = is_worth_watching(command.split(), {}, stdin_terminal=terminal, stderr=stderr)
    assert told is worth


def test_only_the_first_rank_is_watched() -> None:
    def watched(**environment: str) -> bool:
        return is_worth_watching(["tool"], environment, stdin_terminal=False, stderr="pipe")

    assert watched(SLURM_PROCID="0") and not watched(SLURM_PROCID="1")
    assert not watched(OMPI_COMM_WORLD_RANK="3")


@pytest.mark.parametrize("answers", [True, False])
def test_an_image_or_a_site_can_ask_for_silence(
    answers: bool, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    launch: Any = SimpleNamespace(answers=answers, options=(), env={})
    monkeypatch.setattr(watch, "stream_kind", lambda number=2: "pipe")
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    assert wants_answers(launch, Request(command=("tool",))) is answers
    assert not wants_answers(launch, Request(shell=True))
    # the runtime knows the ranks that share a container by their parent
    shared: Any = SimpleNamespace(answers=True, options=("--sharens",), env={})
    assert not wants_answers(shared, Request(command=("tool",)))
