"""The command line: parser, the one place where errors are caught, the exit code."""

from __future__ import annotations

from limpet.cli.main import main

__all__ = ["main"]
