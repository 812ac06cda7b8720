"""What a launch sees of this machine."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from limpet.core.errors import HostError
from limpet.core.mounts import Mount
from limpet.core.seen import HostSeen
from limpet.tools import apptainer, host, process


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


def test_many_first_starts_at_once(tmp_path: Path) -> None:
    for number in range(20):
        state = tmp_path / f"{number}/.local/state/limpet"
        together = threading.Barrier(4)

        def make(state: Path = state, together: threading.Barrier = together) -> None:
            together.wait()
            host.make_private([str(state / "a/home/.cache")], str(state), [str(state / "a/x")])

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(make) for _ in range(4)]:
                done.result()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may search everything")
def test_programs_behind_closed_folders_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/limpet-program"
    program.parent.mkdir()
    program.touch()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    monkeypatch.setenv("PATH", f"{closed}:{program.parent}")
    assert process.find_program(program.name) is None
    program.chmod(0o755)
    assert process.find_program(program.name) == program
    assert process.find_program(program.name, path=str(closed)) is None
    assert process.find_program(str(program), path="") == program
    monkeypatch.chdir(program.parent)
    monkeypatch.setenv("PATH", "")
    assert process.find_program(program.name) is None


def test_what_is_there_is_only_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making is asked of a shared file system's server each time, even where all is there."""
    state = tmp_path / "state"
    folders = [str(state / "a/home/.cache"), str(state / "a/home/.local"), str(state / "b")]
    host.make_private(folders, str(state), [str(state / "a/home/.bashrc")])
    assert (state / "a/home/.bashrc").stat().st_mode & 0o777 == 0o600
    for name in ("mkdir", "touch"):
        monkeypatch.setattr(Path, name, lambda *_, **__: pytest.fail("written again"))
    host.make_private(folders, str(state), [str(state / "a/home/.bashrc")])


def test_links_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "pfs/appl").mkdir(parents=True)
    for name, target in (("appl", "pfs/appl"), ("dead", "nowhere"), ("file", "f")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "f").touch()
    real = os.path.realpath(tmp_path)
    assert host.probe_links(tmp_path) == {f"{tmp_path}/appl": f"{real}/pfs/appl"}
    assert not set(host.probe_links()) & {"/bin", "/lib", "/lib64"}


def test_temporary_folders_that_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("TMP", "relative")
    monkeypatch.setenv("TEMP", f"{tmp_path}/none")
    assert host.probe_temporaries() == (str(tmp_path),)


def test_the_runtimes_version_is_asked_once_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, kept = tmp_path / "apptainer", tmp_path / "cache/version"
    asked = []

    def run(argv: list[Path], **_: object) -> process.Finished:
        asked.append(argv)
        said = f"apptainer version 1.4.{len(asked)}\n".encode()
        return process.Finished(argv=(), code=0, stdout=said, stderr="")

    monkeypatch.setattr(process, "run", run)
    runtime.write_bytes(b"\x7fELF one")
    assert apptainer.ask_version(runtime, kept).endswith("1.4.1\n")
    assert apptainer.ask_version(runtime, kept).endswith("1.4.1\n")
    runtime.write_bytes(b"\x7fELF other")
    assert apptainer.ask_version(runtime, kept).endswith("1.4.2\n")
    kept.write_bytes(b"\xff")
    assert apptainer.ask_version(runtime, kept).endswith("1.4.3\n")
    assert apptainer.ask_version(runtime, Path("/proc/none/v")).endswith("1.4.4\n")
    # A script may start another program tomorrow.
    runtime.write_text("#!/bin/sh")
    for number in (5, 6):
        assert apptainer.ask_version(runtime, kept).endswith(f"1.4.{number}\n")
