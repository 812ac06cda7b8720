"""Runs outside programs in tests, as a plain user also where the tests run as root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

USER = os.environ.get("LIMPET_TEST_USER", "limpet-dev")
IS_ROOT = os.geteuid() == 0


def run(*argv: str | Path, plain: bool = True, home: Path | None = None, check: bool = True) -> str:
    """What the program printed; with `plain` it runs as a user without rights."""
    prefix = ["runuser", "-u", USER, "--"] if plain and IS_ROOT else []
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(home or "/")}
    done = subprocess.run(
        [*prefix, *(str(word) for word in argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
        cwd="/",
    )
    text = done.stdout.decode("utf-8", "replace")
    if check:
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{text}"
    return text
