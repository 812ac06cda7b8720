"""Looks that may never end, each in a child process of its own.

A file system whose server is gone keeps everything waiting that touches it: a thread that waits
so cannot be given up, and would keep limpet from ending. A child can.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from limpet.core.machine import Trouble

Look = Callable[[], Any]


def look_all(looks: Mapping[str, Look], *, timeout_s: float) -> dict[str, Any]:
    """What each look gave, all at once; a Trouble where it failed or outlasted `timeout_s`.

    Values must be such that pickle takes them. What a look started dies with it.
    """
    waiting = {name: _begin(look) for name, look in looks.items()}
    said: dict[str, bytes] = dict.fromkeys(waiting, b"")
    ended: set[str] = set()
    until = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for name, (_, pipe) in waiting.items():
            selector.register(pipe, selectors.EVENT_READ, name)
        while len(ended) < len(waiting) and (left := until - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                data = os.read(key.fd, 1 << 16)
                said[key.data] += data
                if not data:
                    selector.unregister(key.fd)
                    ended.add(key.data)
    for pid, pipe in waiting.values():
        os.close(pipe)
        _end(pid)
    return {
        name: _read(name, said[name]) if name in ended else _hung(name, timeout_s) for name in looks
    }


def _begin(look: Look) -> tuple[int, int]:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return pid, ours
    # A copy of limpet from here on: nothing may return, raise, or print.
    try:
        os.setsid()  # a group of its own, and no terminal that it could ask something
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        try:
            answer: tuple[bool, Any] = (True, look())
        except Exception as error:
            answer = (False, str(error) or type(error).__name__)
        with open(theirs, "wb") as out:  # noqa: PTH123 - a descriptor
            pickle.dump(answer, out)
    finally:
        os._exit(0)


def _end(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    # One that waits for a dead server may not even die: it is left to the system.
    for pause_s in (0.0, 0.01, 0.05):
        time.sleep(pause_s)
        with contextlib.suppress(OSError):
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                continue
        return


def _read(name: str, data: bytes) -> Any:
    try:
        went_well, value = pickle.loads(data)
    except Exception:
        return Trouble(subject=name, why="The look ended without an answer.")
    return value if went_well else Trouble(subject=name, why=str(value))


def _hung(name: str, timeout_s: float) -> Trouble:
    return Trouble(subject=name, why=f"No answer within {timeout_s:g} s.", hung=True)
