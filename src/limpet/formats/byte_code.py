"""The header of CPython's byte code files: what a file is held against at each import (PEP 552)."""

from __future__ import annotations

LOOK_BYTES = 8  # the magic number, and what it is held against
_CHECKED, _UNCHECKED = b"\3\0\0\0", b"\1\0\0\0"


def is_checked(data: bytes) -> bool:
    """Whether it is held against the hash of its source, which is read for that."""
    return data[4:LOOK_BYTES] == _CHECKED


def unchecked(data: bytes) -> bytes:
    """The same byte code, taken as it is from now on."""
    return data[:4] + _UNCHECKED + data[LOOK_BYTES:] if is_checked(data) else data
