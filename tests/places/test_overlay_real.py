"""Overlays with the real Apptainer and e2fsprogs, as a plain user."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from limpet.tools import overlay as tool
from tests.conftest import Limpet
from tests.places.conftest import SOURCE, build

pytestmark = pytest.mark.real


def info(limpet: Limpet, image: Path, *words: str | Path) -> list[dict[str, object]]:
    done = limpet("overlay", "info", "--json", image, *words)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


@contextmanager
def running(limpet: Limpet, image: Path, wish: str, tmp_path: Path) -> Iterator[None]:
    """A program that has the overlay open."""
    ready, end = tmp_path / "ready", tmp_path / "end"
    script = f"touch '{ready}'; while [ ! -e '{end}' ]; do sleep 0.05; done"
    words = ("run", "--overlay", wish, image, "sh", "-c", script)
    thread = threading.Thread(target=limpet, args=words)
    thread.start()
    try:
        deadline = time.monotonic() + 90
        while not ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        end.touch()
        thread.join()
        ready.unlink()
        end.unlink()


@pytest.mark.parametrize("how", [("--size", "32M"), ("--dir",)])
def test_what_is_written_is_there_again(
    limpet: Limpet, image: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    made = limpet("overlay", "create", image, *how)
    assert made.returncode == 0, made.stderr
    assert "limpet run --overlay default" in made.stdout
    script = "import hypothetical_gpu_lib as h; open('/etc/x', 'w').write('kept'); print(h.enabled)"
    first = limpet("run", "--overlay", "default", image, "python", "-c", script)
    assert first.stdout == "made at import\n", first.stderr
    again = limpet("run", "--overlay", "default", image, "cat", "/etc/x")
    assert again.stdout == "kept", again.stderr
    without = limpet("run", image, "cat", "/etc/x")
    assert without.returncode != 0
    reader = limpet("run", "--overlay", "default:ro", image, "sh", "-c", "cat /etc/x; touch /etc/y")
    assert reader.stdout == "kept" and "Read-only" in reader.stderr
    (found,) = info(limpet, image)
    assert (found["name"], found["use"], found["damage"]) == ("default", "free", "")
    gone = limpet("overlay", "remove", image, "default")
    assert gone.returncode == 0, gone.stderr
    assert info(limpet, image) == []
    assert not Path(str(found["path"])).exists()


@pytest.mark.parametrize("how", [("--size", "32M"), ("--dir",)])
def test_one_writer_or_many_readers(
    limpet: Limpet, image: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    path = tmp_path / "my overlay.d"
    assert limpet("overlay", "create", image, path, *how).returncode == 0
    with running(limpet, image, f"{path}", tmp_path):
        second = limpet("run", "--overlay", path, image, "true")
        assert second.returncode == 125 and "in use" in second.stderr, second.stderr
        assert "Another program writes" in second.stderr
        reader = limpet("run", "--overlay", f"{path}:ro", image, "true")
        assert reader.returncode == 125 and "in use" in reader.stderr
        assert info(limpet, image, path)[0]["use"] == "written"
        for verb in (("remove",), ("grow", "--size", "64M"), ("check",)):
            if how == ("--dir",) and verb != ("remove",):
                continue
            refused = limpet("overlay", verb[0], image, path, *verb[1:])
            assert refused.returncode == 8 and "in use" in refused.stderr, verb
    with running(limpet, image, f"{path}:ro", tmp_path):
        reader = limpet("run", "--overlay", f"{path}:ro", image, "true")
        assert reader.returncode == 0, reader.stderr
        if how != ("--dir",):
            writer = limpet("run", "--overlay", path, image, "true")
            assert writer.returncode == 125 and "Others read it" in writer.stderr
    assert limpet("run", "--overlay", path, image, "true").returncode == 0


def test_a_file_fills_up_and_grows(limpet: Limpet, image: Path) -> None:
    assert limpet("overlay", "create", image, "small", "--size", "16M").returncode == 0
    (before,) = info(limpet, image, "small")
    assert int(str(before["disk_bytes"])) < int(str(before["size_bytes"])) / 2  # sparse
    # The kernel takes writes to a full one for a long while; only fsync tells.
    script = (
        "for s in 4M 512K 64K 8K 1K; do for n in $(seq 20); do "
        "dd if=/dev/zero of=/opt/$s$n bs=$s count=1 conv=fsync 2>/dev/null || break; "
        "done; done; cat /opt/4M1 | wc -c"
    )
    filled = limpet("run", "--overlay", "small", image, "sh", "-c", script)
    assert int(filled.stdout) == 4 * 1024**2, filled.stderr
    full = limpet("run", "--overlay", "small", image, "true")
    assert full.returncode == 125 and "is full" in full.stderr, (full.stderr, info(limpet, image))
    assert "limpet overlay grow" in full.stderr
    read = limpet("run", "--overlay", "small:ro", image, "wc", "-c", "/opt/4M1")
    assert read.stdout.startswith(filled.stdout.strip())
    smaller = limpet("overlay", "grow", image, "small", "--size", "16M")
    assert smaller.returncode == 2 and "only grow" in smaller.stderr
    grown = limpet("overlay", "grow", image, "small", "--size", "+32M")
    assert grown.returncode == 0, grown.stderr
    (after,) = info(limpet, image, "small")
    assert after["size_bytes"] == 48 * 1024**2
    more = limpet("run", "--overlay", "small", image, "sh", "-c", "wc -c < /opt/4M1; echo > /opt/n")
    assert (more.stdout, more.returncode) == (filled.stdout, 0), more.stderr


def test_a_damaged_file(limpet: Limpet, image: Path, tmp_path: Path) -> None:
    path = tmp_path / "o.img"
    assert limpet("overlay", "create", image, path, "--size", "16M").returncode == 0
    assert limpet("run", "--overlay", path, image, "touch", "/opt/mine").returncode == 0
    sound = limpet("overlay", "check", image, path)
    assert sound.returncode == 0 and "is sound" in sound.stdout, sound.stderr
    hurt = tmp_path / "hurt.img"
    shutil.copy(path, hurt)
    with hurt.open("r+b") as file:  # block and inode bitmaps
        file.seek(4096)
        file.write(random.Random(1).randbytes(32768))
    told = limpet("overlay", "check", image, hurt)
    assert told.returncode == 8 and "--repair" in told.stderr
    mended = limpet("overlay", "check", image, hurt, "--repair")
    assert mended.returncode == 0 and "was mended" in mended.stdout, mended.stderr
    assert limpet("run", "--overlay", hurt, image, "true").returncode == 0
    with path.open("r+b") as file:
        file.truncate(6_000_000)
    cut = limpet("run", "--overlay", path, image, "true")
    assert cut.returncode == 125 and "cut off" in cut.stderr
    path.write_bytes(b"\0" * 100_000)
    none = limpet("run", "--overlay", path, image, "true")
    assert none.returncode == 125 and "no ext3 file system" in none.stderr


def test_a_killed_job_leaves_a_sound_overlay(limpet: Limpet, image: Path, tmp_path: Path) -> None:
    assert limpet("overlay", "create", image, "k", "--size", "16M").returncode == 0
    script = f"echo kept > /opt/kept; sync; touch '{tmp_path}/ready'; sleep 60"
    argv = ["-P", "-m", "limpet", "run", "--overlay", "k", str(image), "sh", "-c", script]
    job = subprocess.Popen(
        [sys.executable, *argv],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        cwd=tmp_path,
        start_new_session=True,
    )
    deadline = time.monotonic() + 90
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for process in Path("/proc").glob("[0-9]*/stat"):  # as a scheduler does at the time limit
        with contextlib.suppress(OSError):
            if int(process.read_text().rpartition(")")[2].split()[3]) == job.pid:
                os.kill(int(process.parent.name), 9)
    job.wait()
    (found,) = info(limpet, image, "k")
    while found["use"] != "free":  # the mount helpers end a moment later
        assert time.monotonic() < deadline
        time.sleep(0.1)
        (found,) = info(limpet, image, "k")
    again = limpet("run", "--overlay", "k", image, "cat", "/opt/kept")
    assert (again.stdout, again.returncode) == ("kept\n", 0), again.stderr


def test_an_overlay_of_another_image(
    limpet: Limpet, image: Path, tmp_path: Path, cache_dir: Path
) -> None:
    other = build(tmp_path, cache_dir, "hypothetical_fine")
    path = tmp_path / "o.img"
    assert limpet("overlay", "create", image, path, "--size", "16M").returncode == 0
    done = limpet("run", "--overlay", path, other, "true")
    assert done.returncode == 125 and "belongs to another image (image)" in done.stderr
    kept = limpet("overlay", "remove", other, path)
    assert kept.returncode == 2 and path.exists()
    by_name = limpet("run", "--overlay", "default", other, "true")
    assert by_name.returncode == 125 and "no overlay 'default'" in by_name.stderr
    copy = tmp_path / "copy.sif"
    copy.symlink_to(image)
    assert limpet("run", "--overlay", path, copy, "true").returncode == 0


def test_what_is_refused_before_anything_is_made(
    limpet: Limpet, image: Path, tmp_path: Path
) -> None:
    def refused(code: int, words: str, *argv: str | Path, **env: str) -> None:
        done = limpet("overlay", "create", image, *argv, env=env)
        assert done.returncode == code and words in done.stderr, done.stderr

    refused(2, "no size", "--size", "plenty")
    refused(2, "at least 16M", "--size", "1M")
    refused(2, "a file of a certain size or a folder")
    refused(2, "a file of a certain size or a folder", "--dir", "--size", "1G")
    refused(10, "Not enough space", "--size", "15T")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    refused(10, "cannot be written", "--size", "16M", LIMPET_STATE_DIR=str(locked / "state"))
    refused(10, "cannot be written", locked / "o.img", "--size", "16M")
    (tmp_path / "there.img").touch()
    refused(11, "is there already", tmp_path / "there.img", "--size", "16M")
    assert (tmp_path / "there.img").stat().st_size == 0
    two = limpet("run", "--overlay", tmp_path / "a,b.img", image, "true")
    assert two.returncode == 125 and "colon or comma" in two.stderr
    absent = limpet("run", "--overlay", tmp_path / "no.img", image, "true")
    assert absent.returncode == 125 and "There is no overlay" in absent.stderr


def test_a_full_state_folder(limpet: Limpet, image: Path, tmp_path: Path) -> None:
    """A file system of 1 MB, which a user may mount in a namespace of their own."""
    script = (
        'mkdir "$1" && mount -t tmpfs -o size=1m none "$1" && '
        'LIMPET_STATE_DIR="$1" exec "$2" -P -m limpet overlay create "$3" --size 16M'
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "-", tmp_path / "s", sys.executable, image],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 10 and "Not enough space" in done.stderr, done.stderr


def test_missing_programs(
    limpet: Limpet, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limpet.core.errors import HostError
    from limpet.tools import apptainer

    runtime = str(apptainer.find_runtime())
    tool.check_helpers(runtime)  # all is here
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tool, "SYSTEM_PATH", str(tmp_path))
    with pytest.raises(HostError, match="fuse2fs and fuse-overlayfs cannot be found"):
        tool.check_helpers(runtime)
    with pytest.raises(HostError, match=r"mkfs\.ext3 is not here"):
        tool.make_file(tmp_path / "o.img", size_bytes=2**24, label="x", mark="")
