"""Ports for servers that are told which one to take, and take it only a moment later."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from dataclasses import dataclass

COUNT = 5


@dataclass(frozen=True)
class Ports:
    """Ports that no other test of this machine takes as long as `claim` is open."""

    numbers: tuple[int, ...]
    claim: socket.socket


def claim_ports() -> Ports:
    """Below those that the kernel gives to programs that ask for any."""
    blocks = list(range(20_000, 32_000, COUNT))
    random.SystemRandom().shuffle(blocks)
    for first in blocks:
        claim = socket.socket(socket.AF_UNIX)
        with suppress(OSError):
            claim.bind(f"\0limpet-test-ports-{first}")  # gone with its process
            ports = range(first, first + COUNT)
            for port in ports:
                with socket.socket() as one:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    one.bind(("", port))
            return Ports(numbers=tuple(ports), claim=claim)
        claim.close()
    raise AssertionError("no free ports")
