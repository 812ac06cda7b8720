"""What is started, and what the keeper does, as far as values say."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from limpet.actions.keep import keep
from limpet.core.errors import HostError, UsageError
from limpet.core.keep import (
    APART,
    NEVER,
    Kept,
    parse_lifetime,
    parse_session,
    plan_instance,
    plan_start_in,
    render_keeper,
    tell_apart,
    writes,
)
from limpet.core.launch import Launch
from limpet.core.seen import ImageSeen
from limpet.tools.instances import (
    clear_up,
    find_alive,
    image_state,
    list_kept,
    prepare,
    session_state,
    start,
)

LAUNCH = Launch(
    argv=("/usr/bin/apptainer", "--quiet", "exec", "-B", "/a", "--pwd", "/w", "/x.sif", "true"),
    options=("-B", "/a"),
    inside=("true",),
    env={},
    image=ImageSeen(path="/x.sif", kind="sif", identity="1", title="x"),
    runtime="apptainer 1.4.5",
    state="/s",
    variables="clean",
    home="isolated",
    pwd="/w",
)


def test_the_same_mounts_and_another_start() -> None:
    assert plan_start_in(LAUNCH, "n").argv == (
        *("/usr/bin/apptainer", "--quiet", "exec", "--no-eval", "--pwd", "/w", "instance://n"),
        "true",
    )
    started = plan_instance(LAUNCH, "n", "/s/n", 90)
    assert started[:5] == ("/usr/bin/apptainer", "instance", "start", "-B", "/a")
    assert started[-3:] == ("/x.sif", "n", "90")


def test_another_file_or_another_mount_is_another_instance() -> None:
    told = tell_apart(LAUNCH, (1, 2, 3, 4))
    assert told == tell_apart(LAUNCH, (1, 2, 3, 4))
    assert told != tell_apart(LAUNCH, (1, 2, 3, 5))
    assert told != tell_apart(LAUNCH, (1, 2, 3, 4), ["another job"])


def test_what_has_the_same_short_name_is_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limpet.tools.instances.key_of", lambda same: "k")
    folder = prepare(tmp_path, b"one", render_keeper())
    begun = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    kept = Kept(name=folder.name, image="/x", pid=os.getpid(), begun=begun)
    (folder / "kept.json").write_bytes(msgspec.json.encode(kept))
    assert find_alive(tmp_path, b"one") == kept
    assert find_alive(tmp_path, b"two") is None


def test_what_limits_one_start_is_its_own() -> None:
    for name in ("APPTAINER_MEMORY", "SINGULARITY_CPUS", "APPTAINER_APPLY_CGROUPS"):
        assert name in NEVER
        assert name not in APART


def test_what_a_start_may_leave_something_in() -> None:
    for options, expected in (
        (("-B", "/a"), False),
        (("--overlay", "/o:ro"), False),
        (("--overlay", "/o"), True),
        (("--overlay", "/o:ro", "--overlay", "/p"), True),
        (("--writable-tmpfs",), True),
    ):
        assert writes(msgspec.structs.replace(LAUNCH, options=options)) is expected


def test_one_image_by_several_names(tmp_path: Path) -> None:
    image = tmp_path / "x.sif"
    image.write_bytes(b"x")
    (tmp_path / "job").mkdir()
    (tmp_path / "link.sif").symlink_to("x.sif")
    names = [str(tmp_path / name) for name in ("x.sif", "job/../x.sif", "link.sif")]
    launches = [
        msgspec.structs.replace(LAUNCH, image=msgspec.structs.replace(LAUNCH.image, path=name))
        for name in names
    ]
    keys = {tell_apart(one, image_state(Path(one.image.path))) for one in launches}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("15m", 900), ("2h", 7200), ("1d", 86400)]
)
def test_lifetimes(text: str, seconds: int) -> None:
    assert parse_lifetime(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 0), ("0", 0), ("no", 0), ("1", 900), ("yes", 900), ("2", 2), ("2h", 7200)],
)
def test_the_sessions_word(text: str, seconds: int) -> None:
    assert parse_session(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "m", "-1", "1w", "1.5h", "010m", "123456789", "٣m"])
def test_no_lifetimes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_lifetime(text)


def test_a_process_is_told_by_its_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    here = session_state()
    assert repr(Path("/proc/self/cgroup").read_bytes()) in here
    monkeypatch.setattr("os.getegid", lambda: 12345)
    assert session_state() != here


@pytest.mark.real
def test_an_instance_without_its_keeper_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limpet.tools.instances.KEEPER_S", 0.1)
    runtime = tmp_path / "runtime"
    folder = prepare(tmp_path, b"k", render_keeper())
    listed = json.dumps({"instances": [{"instance": folder.name, "pid": os.getpid()}]})
    runtime.write_text(f"#!/bin/sh\necho \"$*\" >>{tmp_path}/told\necho '{listed}'\n")
    runtime.chmod(0o755)
    with pytest.raises(HostError, match="its keeper does not run"):
        start(folder, (str(runtime), "instance", "start"), {}, Kept(name=folder.name, image="/x"))
    told = (tmp_path / "told").read_text().splitlines()
    assert told[-1] == f"instance stop {folder.name}"
    assert not folder.exists()
    monkeypatch.setattr("os.access", lambda path, mode: "keeper" not in str(path))
    with pytest.raises(HostError, match="nothing can be executed"):
        prepare(tmp_path, b"k", render_keeper())


@pytest.mark.real
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_the_keeper_is_plain_shell(tmp_path: Path, shell: str) -> None:
    path = tmp_path / "keeper"
    path.write_text(render_keeper())
    words = [shell, "sh"] if shell == "busybox" else [shell]
    assert subprocess.run([*words, "-n", path], check=False).returncode == 0


def test_what_has_no_process_does_not_live(tmp_path: Path) -> None:
    """Of an instance that ended while it was noted down, there is no time when it began."""
    folder = prepare(tmp_path, b"one", render_keeper())
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    kept = Kept(name=folder.name, image="/x", pid=ended.pid, begun=-1)
    (folder / "kept.json").write_bytes(msgspec.json.encode(kept))
    assert find_alive(tmp_path, b"one") is None
    assert list(list_kept(tmp_path)) == []


@pytest.mark.real
def test_what_another_start_makes_is_left_to_it(tmp_path: Path) -> None:
    """Where there are no locks, as on some shared file systems, starts meet in the making."""
    making = prepare(tmp_path, b"one", render_keeper())
    dead = tmp_path / "limpet-1-2-3"
    odd = tmp_path / "limpet-odd"
    ended = tmp_path / f"limpet-4-{'-'.join(making.name.split('-')[-2:])}"
    for folder in (dead, odd, ended):
        folder.mkdir()
    (ended / "kept.json").write_bytes(msgspec.json.encode(Kept(name=ended.name, image="/x")))
    clear_up(tmp_path, "true")
    assert list(tmp_path.iterdir()) == [making]


def test_a_full_state_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")  # as write() has no file name

    monkeypatch.setattr("limpet.actions.keep._same", fail)
    launch = msgspec.structs.replace(LAUNCH, state=str(tmp_path))
    (note,) = keep(launch, 90).notes
    assert note == f"The image cannot be kept mounted: {tmp_path}: No space left on device."
