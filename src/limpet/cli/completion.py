"""`limpet completion`, and what stands for each argument and option when a shell completes it."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VARIABLE = "_LIMPET_COMPLETE"
_FILES = {"image", "image2", "recipe", "recipes", "source", "file", "files", "lock"}
_PACKAGES = {("inspect", "why"), ("check", "names")}
_FOLDERS = {"dir", "dirs", "folder", "folders"}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    Put it where the shell looks, or load it at its start:

    \b
    bash  limpet completion bash > ~/.local/share/bash-completion/completions/limpet
    zsh   limpet completion zsh > ~/.zfunc/_limpet   (a folder of $fpath)
    fish  limpet completion fish > ~/.config/fish/completions/limpet.fish
    """
    from click.shell_completion import get_completion_class

    from limpet.cli.main import group

    kind = get_completion_class(shell)
    assert kind
    made = kind(group, {}, "limpet", VARIABLE)
    # Not source(): for bash it starts a bash to ask for its version.
    text = made.source_template % made.source_vars()
    # click's script for zsh, autoloaded, completes nothing the second time: it is a function then
    # that only registers itself. So it is registered at the first.
    call = '_limpet_completion "$@"\n'
    sys.stdout.write(
        text.replace(f"    {call}", f"    compdef _limpet_completion limpet\n    {call}")
    )


def prepare(command: click.Command) -> None:
    """Tell the parameters what they stand for; only while a shell completes."""
    for param in command.params:
        if isinstance(param.type, click.Choice) or getattr(param, "is_flag", False):
            continue
        words = {str(param.name), *re.findall(r"[a-z0-9]+", str(param.metavar or "").lower())}
        if (command.name, param.name) in _PACKAGES:
            param._custom_shell_complete = _package_names
        elif words & (_FOLDERS - _FILES) and not words & _FILES:
            param.type = click.Path(file_okay=False)
        elif words & (_FILES | {"path", "output", "src", "command", "ref"}):
            param.type = click.Path()
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        prepare(below)


def _package_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The packages in the lock of the image that is named before."""
    from pathlib import Path

    from click.shell_completion import CompletionItem

    from limpet.actions.completion import locked_names

    try:
        # Where an option still lacks its value, click leaves all other words in `args`.
        image = ctx.params.get("image") or next((one for one in ctx.args if one[:1] != "-"), "")
        names = locked_names(Path(image).expanduser())
    except Exception:  # a shell that completes is told nothing of what cannot be read
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
