from __future__ import annotations

import os
from pathlib import Path

import pytest

from limpet.core.errors import HostError, SpaceError
from limpet.tools import debian, process

DEB822 = """Types: deb
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main contrib

Types: deb
URIs: http://other.example/security
Suites: trixie-security
Components: main
"""
ONE_LINE = "deb [signed-by=/x.gpg] http://one.example/debian bookworm main\n"
ONE_LINE += "deb-src http://s bookworm main\n"


def test_mirrors_of_a_suite() -> None:
    assert debian.parse_mirrors(DEB822, "trixie") == ["http://mirror.example/debian"]
    assert debian.parse_mirrors(DEB822, "bookworm") == []
    assert debian.parse_mirrors(ONE_LINE, "bookworm") == ["http://one.example/debian"]


def test_only_installed_packages_count() -> None:
    text = (
        "Package: b\nStatus: install ok installed\nVersion: 1:2-3\nDescription: x\n y\n\n"
        "Package: a\nStatus: deinstall ok config-files\nVersion: 1\n\n"
        "Package: c\nStatus: install ok installed\nVersion: 4\n"
    )
    assert debian.parse_status(text) == ("b=1:2-3", "c=4")


def test_what_is_the_hosts_is_dropped() -> None:
    dropped = ("etc/hostname", "etc/resolv.conf", "var/log/dpkg.log", "var/lib/dpkg/status-old")
    kept = ("etc/hosts", "var/log", "var/lib/dpkg/status", "usr/share/doc/x/copyright")
    assert all(debian.is_dropped(name) for name in dropped)
    assert not any(debian.is_dropped(name) for name in kept)


@pytest.mark.real
@pytest.mark.parametrize(
    ("missing", "named"),
    [("mmdebstrap", "need mmdebstrap"), ("newuidmap", "need newuidmap"), ("userns", "forbids")],
)
def test_what_the_host_lacks_is_named(
    missing: str, named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    find, run = process.find_program, process.run
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(
        process, "find_program", lambda name: None if name == missing else find("true")
    )
    answer = ["false"] if missing == "userns" else ["true"]
    monkeypatch.setattr(process, "run", lambda argv: run(answer))
    with pytest.raises(HostError, match=named) as caught:
        debian.check_host()
    assert "docker://" in caught.value.now


@pytest.mark.real
def test_who_interrupts_it_is_told_of_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = "trap 'echo E: mmdebstrap failed to run >&2; exit 1' TERM; sleep 60 & wait"
    monkeypatch.setattr(debian, "_command", lambda *_: ["sh", "-c", script])
    with pytest.raises(KeyboardInterrupt), debian.open_tar("trixie", "x86_64", tmp_path):
        raise KeyboardInterrupt


@pytest.mark.real
def test_a_full_disk_is_no_fault_of_the_mirror(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = "E: Write error - write (28: No space left on device)\nE: Failed to fetch a list"
    monkeypatch.setattr(debian, "_command", lambda *_: ["sh", "-c", f"echo '{said}' >&2; exit 1"])
    with pytest.raises(SpaceError, match="disk is full") as caught:
        debian.resolve_packages("trixie", "x86_64", tmp_path)
    assert "--cache-dir" in caught.value.now
