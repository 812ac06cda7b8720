"""What the documentation tells users to type works, page by page.

On each page, in order: a fenced block with a `title` is a file and is written to a scratch folder;
a `console` block is run there. Its lines after `$ ` are commands (a `\\` at the end continues
them); its other lines must stand in what the commands print, in that order, `…` standing for
anything. A block that cannot be run here says why in a comment before it: `<!-- not run: why -->`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from limpet.core.errors import LimpetError
from limpet.core.recipe import Recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<excuse>[^\n]*?) -->\n+)?"
    r"^(?P<indent> *)(?P<fence>```+) *(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<body>.*?)^(?P=indent)(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
SHELLS = ("console", "sh", "bash", "shell")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. `excuse`: why it cannot be run by a test."""

    language: str
    title: str
    body: str
    excuse: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    for found in FENCE.finditer(text):
        indent = len(found["indent"])
        yield Block(
            language=found["language"],
            title=found["title"] or "",
            body="".join(line[indent:] or "\n" for line in found["body"].splitlines(True)),
            excuse=found["excuse"] or "",
            line=text[: found.start("fence")].count("\n") + 1,
        )


def commands_and_output(body: str) -> tuple[str, list[str]]:
    """A console block's commands as a script, and the lines that they are to print."""
    script, output, continued = [], [], False
    for line in body.splitlines():
        if line.startswith("$ ") or continued:
            script.append(line if continued else line[2:])
            continued = line.endswith("\\")
        elif line.strip():
            output.append(line)
    return "\n".join(script), output


def expected(lines: list[str]) -> re.Pattern[str]:
    told = (".*?".join(re.escape(part) for part in line.strip().split("…")) for line in lines)
    return re.compile(".*?".join(told), re.DOTALL)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def has_commands(page: Path) -> bool:
    found = blocks(page.read_text(encoding="utf-8"))
    return any(block.language in SHELLS and not block.excuse for block in found)


@pytest.fixture
def shell(cache_dir: Path, home: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of the pages' commands: `limpet` and `python` are this checkout's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    limpet = programs / "limpet"
    limpet.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m limpet "$@"\n', encoding="utf-8")
    limpet.chmod(0o755)
    return {
        **os.environ,
        "HOME": str(home),
        "LIMPET_CACHE_DIR": str(cache_dir),
        "PYTHONPATH": str(ROOT / "src"),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }


@pytest.mark.real
@pytest.mark.parametrize("page", [page for page in PAGES if has_commands(page)], ids=named)
def test_the_commands_of_a_page_work(page: Path, shell: dict[str, str], tmp_path: Path) -> None:
    scratch = tmp_path / "a folder"
    scratch.mkdir()
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.title:
            path = scratch / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")
        elif block.language in SHELLS and not block.excuse:
            script, output = commands_and_output(block.body)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                env=shell,
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=900,
                check=False,
            )
            place = f"{named(page)}:{block.line}"
            assert done.returncode == 0, f"{place}\n{script}\n{done.stdout}"
            assert expected(output).search(done.stdout), f"{place}\n{script}\n{done.stdout}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_shell_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language in SHELLS:
            has_command = re.search(r"^\$ ", block.body, re.MULTILINE)
            assert has_command, f"{named(page)}:{block.line}: no line starts with '$ '"
            assert block.excuse or block.language == "console", f"{named(page)}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_page_links_to_nowhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["command-line.md", "variables.md"])
def test_written_pages_are_what_limpet_says(name: str) -> None:
    script = ROOT / "scripts" / "render_reference.py"
    spec = importlib.util.spec_from_file_location("render_reference", script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kept = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert module.PAGES[name]() == kept, "`make docs` writes it anew"


def test_exit_codes_are_what_the_errors_say() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    told = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| (\w+) \|", page, re.M)}
    known: list[type[LimpetError]] = [LimpetError, *LimpetError.__subclasses__()]
    public = [error for error in known if not error.__name__.startswith("_")]
    assert told == {error.__name__: error.code for error in public}


def test_the_recipe_page_has_all_words_and_their_defaults() -> None:
    page = (ROOT / "docs" / "reference" / "limpet-toml.md").read_text(encoding="utf-8")
    shown = tomllib.loads(next(block.body for block in blocks(page)))
    known = json.loads(msgspec.json.encode(Recipe()))
    assert shown == known


def test_a_page_is_read_as_it_is_written() -> None:
    page = (
        '```toml title="limpet.toml"\n[image]\n```\n\n'
        "<!-- not run: needs a login -->\n```console\n$ limpet lock x\n```\n"
        "```console\n$ echo a \\\n    b\na b\n```\n"
    )
    first, second, third = blocks(page)
    assert (first.title, first.body) == ("limpet.toml", "[image]\n")
    assert second.excuse == "needs a login"
    assert commands_and_output(third.body) == ("echo a \\\n    b", ["a b"])
    assert expected(["a … c", "d"]).search("a b c\nx\nd")
    assert not expected(["d", "a … c"]).search("a b c\nd")
