"""Counts what many threads do, tells of it now and then, and stops them."""

from __future__ import annotations

import threading
import time

from limpet.core.events import Event, Notify

PROGRESS_EVERY_S = 0.1


class _StoppedError(Exception):
    """Another package has failed; never seen by anybody."""


class Progress:
    """How far the packages of one stage are."""

    def __init__(self, notify: Notify, stage: str, total: int, total_bytes: int) -> None:
        self.stopped = threading.Event()
        self._notify = notify
        self.stage = stage
        self._lock = threading.Lock()
        self._total_bytes = total_bytes
        self._bytes = 0
        self._total = total
        self._done = 0
        self._next = 0.0
        notify(Event(stage=stage, kind="start", total=self._total, unit="packages"))

    def check(self) -> None:
        if self.stopped.is_set():
            raise _StoppedError("Stopped.")

    def count_bytes(self, count: int) -> None:
        self.check()
        with self._lock:
            self._bytes += count
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + PROGRESS_EVERY_S
                self._notify(
                    Event(stage="fetch", done=self._bytes, total=self._total_bytes, unit="bytes")
                )

    def count_package(self, name: str) -> None:
        with self._lock:
            self._done += 1
            self._notify(
                Event(
                    stage=self.stage,
                    message=name,
                    done=self._done,
                    total=self._total,
                    unit="packages",
                )
            )
