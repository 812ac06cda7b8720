"""A host that lacks something: space, inodes, permission, a runtime."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.build.workshop import Workshop, check_refused, find_leftovers, read_tree, unchanged

pytestmark = pytest.mark.real


@contextmanager
def small_disk(folder: Path, *, megabytes: int, inodes: int = 0) -> Iterator[Path]:
    """A file system of its own, mounted as a plain user."""
    image, place = folder / "disk.img", folder / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    few = ("-N", str(inodes)) if inodes else ()
    owner = f"root_owner={os.getuid()}:{os.getgid()}"
    make = ("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-E", owner, *few)
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    subprocess.run([*make, image], check=True, env={**os.environ, "PATH": path})
    subprocess.run(["fuse2fs", "-o", "rw,fakeroot", image, place], check=True, capture_output=True)
    try:
        yield place
    finally:
        for _ in range(300):  # the kernel may still be letting go of files
            done = subprocess.run(["fusermount3", "-u", place], capture_output=True, check=False)
            if not done.returncode:
                break
            time.sleep(0.1)


def test_no_space_for_the_image_is_seen_before_the_work(workshop: Workshop, tmp_path: Path) -> None:
    recipe = workshop.require("tiny")
    with small_disk(tmp_path, megabytes=20) as disk, unchanged(workshop.folder):
        done = workshop.try_build(recipe, "-o", disk / "image.sif")
        assert {path.name for path in disk.iterdir()} == {"lost+found"}
    check_refused(done, 10, "Not enough space", "MB needed")
    assert "image:" not in done.stderr


def test_no_space_while_the_image_is_written(workshop: Workshop, tmp_path: Path) -> None:
    """More is warmed up than anybody could know before: the disk fills up in the middle."""
    write = "head -c 40000000 /dev/urandom > /opt/env/noise"
    recipe = workshop.describe(f'[warm]\ncommands = ["{write}"]\n', "tiny")
    with small_disk(tmp_path, megabytes=64) as disk:
        old = disk / "image.sif"
        old.write_text("the old image")
        done = workshop.try_build(recipe, "-o", old, "--force")
        assert {path.name for path in disk.iterdir()} == {"lost+found", "image.sif"}
        assert old.read_text() == "the old image"
    check_refused(done, 10, "image.sif", "No space left")


def test_no_space_in_the_cache(fresh: Workshop, tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(12_000_000)
    fresh.add_wheel("noisy", {"noisy/__init__.py": "", "noisy/data": noise})
    recipe = fresh.require("noisy")
    with small_disk(tmp_path, megabytes=20) as disk, unchanged(fresh.folder / "out"):
        done = fresh.try_build(recipe, LIMPET_CACHE_DIR=str(disk / "cache"))
        assert find_leftovers(disk / "cache") == []
    check_refused(done, 10, "space")


def test_no_space_where_passing_files_go(workshop: Workshop, tmp_path: Path) -> None:
    workshop.write("big.bin", random.Random(3).randbytes(12_000_000))
    recipe = workshop.describe('[files]\n"big.bin" = "/opt/x/big.bin"\n', "tiny")
    with small_disk(tmp_path, megabytes=8) as disk, unchanged(workshop.folder):
        done = workshop.try_build(recipe, "--build-dir", disk)
        assert [path.name for path in disk.iterdir() if path.name[0] != "."] == ["lost+found"]
    check_refused(done, 10, "No space left")


def test_no_inodes(workshop: Workshop, tmp_path: Path) -> None:
    recipe = workshop.require("tiny")
    with small_disk(tmp_path, megabytes=100, inodes=16) as disk:
        number = 0
        try:
            for number in range(100):
                (disk / f"file{number}").touch()
        except OSError:
            assert number > 1
        before = read_tree(disk)
        done = workshop.try_build(recipe, "-o", disk / "image.sif")
        assert read_tree(disk) == before
    check_refused(done, 10, "inodes")


def test_passing_files_go_nowhere(workshop: Workshop) -> None:
    recipe = workshop.require("tiny")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe, "--build-dir", "/proc/nowhere")
    check_refused(done, 10, "/proc/nowhere", "--build-dir or LIMPET_BUILD_DIR")
    assert "wheels:" not in done.stderr


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_output_folder_not_writable(workshop: Workshop, mode: int) -> None:
    recipe = workshop.require("tiny")
    workshop.out.chmod(mode)
    done = workshop.try_build(recipe)
    workshop.out.chmod(0o755)
    check_refused(done, 10, str(workshop.out), "cannot be written")
    assert not list(workshop.out.iterdir())


def test_output_folder_missing(workshop: Workshop) -> None:
    recipe = workshop.require("tiny")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe, "-o", workshop.out / "more" / "image.sif")
    check_refused(done, 10, "more", "does not exist")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_output_existing(workshop: Workshop, kind: str) -> None:
    recipe = workshop.require("tiny")
    if kind == "file":
        workshop.image.write_text("the old image")
    else:
        workshop.image.mkdir()
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 11, "image.sif", "--force" if kind == "file" else "folder")


def test_recipe_folder_not_writable_builds_all_the_same(workshop: Workshop) -> None:
    """A shared recipe: the lock cannot be kept beside it, and that is said."""
    recipe = workshop.require("tiny")
    workshop.folder.chmod(0o555)
    done = workshop.try_build(recipe)
    workshop.folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "The lock is in the image" in done.stderr
    assert "\nlock " not in done.stdout
    assert not (workshop.folder / "pylock.toml").exists()


def test_cache_not_writable(workshop: Workshop, tmp_path: Path) -> None:
    recipe = workshop.require("tiny")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe, LIMPET_CACHE_DIR=str(closed / "cache"))
    check_refused(done, 10, str(closed), "LIMPET_CACHE_DIR")


# ---- the runtime ---------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["build", "run"])
def test_no_apptainer(workshop: Workshop, tmp_path: Path, verb: str) -> None:
    recipe = workshop.require("tiny")
    nothing = tmp_path / "bin"
    nothing.mkdir()
    argv = workshop.build_words(recipe)
    if verb == "run":
        argv = workshop.words("run", workshop.build(recipe), "true")
        recipe.with_name("pylock.toml").unlink()
    with unchanged(workshop.folder):
        done = workshop.run(argv, PATH=str(nothing))
    check_refused(done, 125 if verb == "run" else 9, "No container runtime", "module load")


@pytest.mark.parametrize("verb", ["build", "run"])
def test_apptainer_too_old(workshop: Workshop, tmp_path: Path, verb: str) -> None:
    """The one program that stands in for another here: nobody packages one so old."""
    recipe = workshop.require("tiny")
    argv = workshop.build_words(recipe)
    if verb == "run":
        argv = workshop.words("run", workshop.build(recipe), "true")
    old = tmp_path / "bin" / "apptainer"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho apptainer version 0.9.1\n")
    old.chmod(0o755)
    path = f"{old.parent}:{os.environ['PATH']}"
    with unchanged(workshop.folder):
        done = workshop.run(argv, PATH=path)
    check_refused(done, 125 if verb == "run" else 9, "0.9.1", "too old", "1.1")


def test_apptainer_that_cannot_start_anything(workshop: Workshop, tmp_path: Path) -> None:
    """A site that forbids what the runtime needs: its own words come through."""
    fresh = Workshop(tmp_path / "other", cache=tmp_path / "cache")
    shutil.copy(next(workshop.wheels.iterdir()), fresh.wheels)
    recipe = fresh.require("tiny")
    broken = tmp_path / "bin" / "apptainer"
    broken.parent.mkdir()
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo apptainer version 1.4.5 && exit\n'
        "echo FATAL: user namespaces are disabled >&2\nexit 255\n"
    )
    broken.chmod(0o755)
    local = workshop.build(workshop.require("tiny"))
    with unchanged(fresh.folder):
        done = fresh.try_build(
            recipe, "--base", local, PATH=f"{broken.parent}:{os.environ['PATH']}"
        )
    check_refused(done, 5, "user namespaces are disabled")
