"""The conda engine (py-rattler), run in this process. Checked with 0.28.0."""

from __future__ import annotations

import atexit
import time
from collections.abc import Coroutine
from typing import TypeVar

Result = TypeVar("Result")

# Its worker threads let go of Python's objects a moment after a call has ended; where Python ends
# first, the process dies of it (https://github.com/PyO3/pyo3-async-runtimes/issues/40).
_SETTLE_S = 0.15
_ended_s: list[float] = []


def run_engine(work: Coroutine[None, None, Result]) -> Result:
    """Run one call of the engine to its end."""
    import asyncio  # most commands start no engine

    if not _ended_s:
        atexit.register(_settle)
    try:
        return asyncio.run(work)
    finally:
        _ended_s[:] = [time.monotonic()]


def _settle() -> None:
    time.sleep(max(0.0, _ended_s[0] + _SETTLE_S - time.monotonic()))
