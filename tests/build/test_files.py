"""Files that take their name when they are whole, and folders that last for a block."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from limpet.core.errors import ExistsError
from limpet.tools.files import passing_folder, sweep_partials, written_beside


def test_a_sweep_never_takes_what_is_being_written(tmp_path: Path) -> None:
    stopped = threading.Event()

    def sweep() -> None:
        while not stopped.is_set():
            sweep_partials(tmp_path)

    sweeping = threading.Thread(target=sweep)
    sweeping.start()
    try:
        for number in range(500):
            with written_beside(tmp_path / "file") as file:
                file.write(b"%d" % number)
            assert (tmp_path / "file").read_bytes() == b"%d" % number
    finally:
        stopped.set()
        sweeping.join()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_dead_builds_files_and_folders_go_and_a_living_ones_stay(tmp_path: Path) -> None:
    with passing_folder(tmp_path) as living:
        dead = tmp_path / "dead"
        (dead / "closed").mkdir(parents=True)
        (dead / ".held").touch()
        (dead / "closed" / "file").touch()
        (dead / "closed").chmod(0)  # as a container leaves an overlay's `work`
        other = tmp_path / "nobody knows what"
        other.mkdir()
        with passing_folder(tmp_path) as second:
            assert living.is_dir() and second.is_dir() and other.is_dir()
            assert not dead.exists()
    assert not living.exists()


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    place = tmp_path / "file"
    with pytest.raises(ExistsError), written_beside(place, replace=False) as file:
        place.write_text("of another build that was quicker")
        file.write(b"too late")
    assert place.read_text() == "of another build that was quicker"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    for expected in (None, ExistsError):
        if expected:
            with pytest.raises(expected), written_beside(tmp_path / "file", replace=False):
                pass
        else:
            with written_beside(tmp_path / "file", replace=False) as file:
                file.write(b"x")
    assert (tmp_path / "file").read_bytes() == b"x"
