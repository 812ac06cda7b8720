"""For what comes of itself, some time: a busy machine is no fault of what is tested."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 60.0


def wait_until(holds: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """AssertionError where that does not come to hold."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s"
        time.sleep(0.05)
