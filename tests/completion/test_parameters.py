"""Every parameter that takes a file offers files, one that takes a folder folders."""

from __future__ import annotations

import click
import pytest
from click.shell_completion import ShellComplete

from limpet.cli.main import COMMANDS, group


def offered(words: list[str], incomplete: str) -> list[tuple[str, str]]:
    made = ShellComplete(group, {}, "limpet", "_LIMPET_COMPLETE")
    return [(item.type, item.value) for item in made.get_completions(words, incomplete)]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_images_are_completed_as_files(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command
    arguments = [p.name for p in command.params if isinstance(p, click.Argument)]
    if arguments[:1] in (["image"], ["source"], ["recipes"]):
        assert offered([name], "x") == [("file", "x")]


def test_folders_choices_and_commands() -> None:
    assert offered(["run", "--pwd"], "x") == [("dir", "x")]
    assert offered(["run", "--gpu"], "n") == [("plain", "none"), ("plain", "nvidia")]
    assert ("plain", "report") in offered([], "re")
    assert offered(["build", "--frozen", "-o"], "x") == [("file", "x")]


def test_a_flag_stays_a_flag() -> None:
    """What a completion does to parameters is seen only there."""
    offered(["inspect"], "x")
    command = group.get_command(click.Context(group), "inspect")
    assert command
    context = command.make_context("inspect", ["--lock", "a.sif"])
    assert context.params["lock"] is True and context.params["image"] == "a.sif"


def test_scripts_need_no_shell(capsys: pytest.CaptureFixture[str]) -> None:
    from limpet.cli.main import main

    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        assert "_LIMPET_COMPLETE" in capsys.readouterr().out
