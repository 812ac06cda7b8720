"""What a launch sees of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from limpet.core.errors import HostError
from limpet.core.launch import HostSeen
from limpet.core.mounts import Mount
from limpet.tools import host


def probe(**more: object) -> HostSeen:
    return host.probe_host(runtime="/r", runtime_kind="apptainer", runtime_version="1.4.5", **more)  # type: ignore[arg-type]


def test_personal_folders_are_seen_with_their_true_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".cache").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (home / ".config").symlink_to(tmp_path / "elsewhere")
    (home / ".keras").symlink_to(tmp_path / "nowhere")
    (home / ".nv").touch()
    monkeypatch.setenv("HOME", f"{home}/")
    monkeypatch.setenv("LIMPET_STATE_DIR", str(tmp_path / "state"))
    seen = probe(binds=(Mount(source=str(home), target="/h"), Mount(source="/none", target="/n")))
    true = Path(os.path.realpath(tmp_path))
    assert (seen.home, seen.real_home) == (str(home), str(true / "home"))
    assert seen.personal == {
        ".cache": str(true / "home/.cache"),
        ".config": str(true / "elsewhere"),
    }
    assert seen.missing == ("/none",)
    assert (seen.state, seen.state_note) == (str(tmp_path / "state"), "")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("home", ["", "/", "relative", "/no/such/folder"])
def test_a_home_must_be_a_folder_of_ones_own(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    assert host.find_home("/") == ""
    assert host.find_home("/tmp") == "/tmp"


def test_a_working_folder_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(HostError, match="does not exist any more"):
        host.working_folder()


def test_folders_are_for_the_users_eyes_only(tmp_path: Path) -> None:
    state = tmp_path / "state"
    host.make_private([str(state / "a/home"), str(state / "a/home/.cache")], str(state))
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / "a/home/.cache").is_dir()
    link = tmp_path / "link"
    link.symlink_to(state)
    with pytest.raises(HostError, match="belongs to someone else"):
        host.make_private([str(link / "b")], str(link))
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="LIMPET_STATE_DIR"):
        host.make_private([str(tmp_path / "file/x")], str(tmp_path / "file"))
