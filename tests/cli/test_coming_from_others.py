"""The tables for those who come from cotainr or Tykky name all that there is, and only what is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import uv

from limpet.cli.main import COMMANDS, group
from tests.conftest import SharedOnce

PAGES = Path(__file__).parents[2] / "docs/how-to"
COTAINR = "cotainr==2025.7.1"
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
CODE = re.compile(r"`([^`]+)`")


def rows(page: str) -> list[tuple[str, str]]:
    """The table of a page: what the others call it, and what limpet does."""
    lines = (PAGES / page).read_text("utf-8").splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return [(left, right) for left, right in cells[2:]]


def options_of(command: str) -> set[str]:
    """All options of a limpet command as click has them; "" is limpet itself."""
    # click keeps the help option that it makes: it must be of limpet's own settings.
    context = click.Context(group, **group.context_settings)
    found = group.get_command(context, command) if command else group
    assert found is not None, command
    names: set[str] = set()
    for one in found.get_params(click.Context(found, parent=context)):
        names.update(one.opts, one.secondary_opts)
    return names


def named_options(cell: str) -> Iterator[tuple[str, str]]:
    """Limpet's options in a cell, each with its command: the last one named, else `build`."""
    command = "build"
    for code in CODE.findall(cell):
        words = code.split()
        if words[0] == "limpet":
            command = "" if words[1].startswith("-") else words[1]
        yield from ((command, word) for word in OPTION.findall(code))


@pytest.mark.parametrize(
    ("page", "known"), [("from-cotainr.md", "--base"), ("from-tykky.md", "--folder")]
)
def test_what_the_tables_offer_is_there(page: str, known: str) -> None:
    """Of each command that is named, and of each option under the command that it is named for."""
    offered = [one for _, right in rows(page) for one in named_options(right)]
    assert known in {option for _, option in offered}
    assert {command for command, _ in offered} <= {"", *COMMANDS}
    assert [(c, option) for c, option in offered if option not in options_of(c)] == []
    for _, right in rows(page):
        commands = [code.split()[1] for code in CODE.findall(right) if code.startswith("limpet ")]
        assert {one for one in commands if not one.startswith("-")} <= set(COMMANDS), right


def test_what_is_the_same_is_the_same() -> None:
    same = [left for left, right in rows("from-cotainr.md") if right == "the same"]
    words = {word for left in same for word in OPTION.findall(left)}
    assert words == {"-h", "--help", "--version"}
    assert words <= options_of("")


@pytest.fixture(scope="module")
def cotainr(run_folder: Path, shared_once: SharedOnce) -> Path:
    """The real cotainr, from the package index."""

    def install() -> str:
        target = run_folder / "cotainr"
        words = [uv.find_uv_bin(), "pip", "install", "-q", "--python", sys.executable]
        subprocess.run([*words, "--no-deps", "--target", target, COTAINR], check=True)
        return str(target)

    return Path(shared_once("cotainr", install))


@pytest.mark.real
def test_all_that_cotainr_takes_is_in_its_table(cotainr: Path) -> None:
    """Its commands and options, as its own --help shows them."""

    def ask(*words: str) -> str:
        argv = [sys.executable, "-m", "cotainr", *words, "--help"]
        env = {**os.environ, "PYTHONPATH": str(cotainr)}
        return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout

    told = ask()
    listed = re.search(r"\{([a-z,]+)\}", told)
    assert listed
    commands = listed[1].split(",")
    texts = [told, *(ask(command) for command in commands)]
    lines = [line for text in texts for line in text.splitlines() if re.match(r" {2}-", line)]
    # What an option does stands two blanks behind it, or in the next line.
    taken = {word for line in lines for word in OPTION.findall(line.strip().split("  ")[0])}
    assert {"--base-image", "--conda-env", "-v", "--version"} <= taken

    left = "\n".join(left for left, _ in rows("from-cotainr.md"))
    named = {word for code in CODE.findall(left) for word in OPTION.findall(code)}
    assert taken - named == set()
    assert [one for one in commands if f"`cotainr {one}" not in left] == []
    assert named - taken == set(), "cotainr has no such option"
