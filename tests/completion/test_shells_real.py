"""Completion in the shells themselves: keys are typed into a terminal, and what appears is read."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Limpet
from tests.report.trees import write_image

pytestmark = pytest.mark.real

SOURCE = Path(__file__).parents[2] / "src"
PATIENCE_S = 30.0
LOCK = b'lock-version = "1.0"\n[[packages]]\nname = "numpy"\n[[packages]]\nname = "numba"\n'
TRIALS = [
    ("limpet insp", "limpet inspect "),
    ("limpet run --home iso", "limpet run --home isolated "),
    ("limpet inspect my-i", "limpet inspect my-image.sif "),
    ("limpet inspect my-image.sif --why numb", "limpet inspect my-image.sif --why numba "),
    ("limpet overlay cre", "limpet overlay create "),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a `limpet` program, the three scripts, and an image to be named."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "limpet"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m limpet "$@"\n')
    program.chmod(0o755)
    write_image(tmp_path / "my-image.sif", {"etc/x": b""}, lock=LOCK.replace(b"numpy", b"six"))
    return tmp_path


@pytest.fixture
def environment(place: Path) -> dict[str, str]:
    return {
        "HOME": str(place),
        "PATH": f"{place / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": str(SOURCE),
        "TERM": "dumb",
        "PS1": "$ ",
        "LC_ALL": "C.UTF-8",
    }


@contextmanager
def terminal(argv: list[str], environment: dict[str, str], cwd: Path) -> Iterator[int]:
    """A program on a terminal of its own; what is written to the descriptor is typed."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        argv,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=cwd,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield ours
    finally:
        running.kill()
        running.wait()
        os.close(ours)


def read_until(descriptor: int, wanted: str) -> str:
    """All that appears until `wanted` is in it; AssertionError after PATIENCE_S."""
    said, end = "", time.monotonic() + PATIENCE_S
    while wanted not in said:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{wanted!r} did not appear in {said!r}"
        part = os.read(descriptor, 4096).decode("utf-8", "replace")
        # as a line editor draws: colours and movements are left out
        said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\x07", "", said + part)
    return said


def script_of(limpet: Limpet, shell: str, path: Path) -> Path:
    done = limpet("completion", shell)
    assert done.returncode == 0, done.stderr
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(done.stdout)
    return path


def complete(descriptor: int, typed: str, becomes: str) -> None:
    """Type, press Tab, see the line become what it should; then give the line up."""
    os.write(descriptor, typed.encode() + b"\t")
    read_until(descriptor, becomes)
    os.write(descriptor, b"\x15")


def test_bash(limpet: Limpet, place: Path, environment: dict[str, str]) -> None:
    script = script_of(limpet, "bash", place / "limpet.bash")
    with terminal(["bash", "--norc", "-i"], environment, place) as shell:
        os.write(shell, f". {script}; echo lo''aded\n".encode())
        read_until(shell, "loaded\n")
        for typed, becomes in TRIALS:
            complete(shell, typed, becomes)


def test_zsh(limpet: Limpet, place: Path, environment: dict[str, str]) -> None:
    script = script_of(limpet, "zsh", place / "functions" / "_limpet")
    start = f"fpath=({script.parent} $fpath); autoload -U compinit; compinit -u"
    with terminal(["zsh", "-f", "-i"], environment, place) as shell:
        os.write(shell, f"{start}; echo lo''aded\n".encode())
        read_until(shell, "loaded\n")
        for typed, becomes in TRIALS:
            complete(shell, typed, becomes)


def test_fish(limpet: Limpet, place: Path, environment: dict[str, str]) -> None:
    script_of(limpet, "fish", place / ".config/fish/completions/limpet.fish")
    for typed, becomes in TRIALS:
        done = subprocess.run(
            ["fish", "-c", f"complete -C '{typed}'"],
            env=environment,
            cwd=place,
            capture_output=True,
            text=True,
            check=True,
        )
        offered = [line.partition("\t")[0] for line in done.stdout.splitlines()]
        assert offered == [becomes.split()[-1]], (typed, done.stdout, done.stderr)


def test_nothing_is_said_of_what_cannot_be_read(limpet: Limpet, place: Path) -> None:
    (place / "bad.sif").write_bytes(b"#!/usr/bin/env run-singularity\nSIF_MAGIC" + b"\xff" * 500)
    for image in ("bad.sif", "nowhere.sif"):
        env = {
            "COMP_WORDS": f"limpet inspect {image} --why n",
            "COMP_CWORD": "4",
            "_LIMPET_COMPLETE": "bash_complete",
        }
        done = limpet(env=env, cwd=place)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
