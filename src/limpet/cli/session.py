"""What the flags that every command takes say."""

from __future__ import annotations

import os
from typing import Any

import click

from limpet.core.errors import RUN_FAILED_CODE

STARTERS = ("run", "shell", "pip")


class Session:
    """Filled in while the command line is parsed: before the command, and after it."""

    def __init__(self, *, debug: bool = False) -> None:
        self.command = ""
        self.debug = debug
        self.verbosity = 0
        self.config_file = ""
        self.cache_dir = ""

    def take(self, name: str, value: Any) -> None:
        """Note one flag; `-v` and `-q` add up."""
        if name in ("verbose", "quiet"):
            self.verbosity += value if name == "verbose" else -value
        else:
            setattr(self, name, value)

    def exit_code(self, code: int) -> int:
        """A failure of limpet's own: 125 where every other code is the program's."""
        return RUN_FAILED_CODE if self.command in STARTERS else code

    @property
    def shows_traceback(self) -> bool:
        """`--debug` or LIMPET_DEBUG."""
        return self.debug or os.environ.get("LIMPET_DEBUG", "") not in ("", "0")


pass_session = click.make_pass_decorator(Session)
