"""What the flags before the command say; every command gets it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import click

from limpet.core.errors import RUN_FAILED_CODE

STARTERS = ("run", "shell", "pip")


@dataclass
class Session:
    """Filled in by the group, before its command is parsed."""

    command: str = ""
    debug: bool = False
    verbosity: int = 0
    config_file: str = ""
    cache_dir: str = ""

    def exit_code(self, code: int) -> int:
        """A failure of limpet's own: 125 where every other code is the program's."""
        return RUN_FAILED_CODE if self.command in STARTERS else code

    @property
    def shows_traceback(self) -> bool:
        """`--debug` or LIMPET_DEBUG."""
        return self.debug or os.environ.get("LIMPET_DEBUG", "") not in ("", "0")


pass_session = click.make_pass_decorator(Session)
