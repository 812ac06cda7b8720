"""Builds on a cache that is full, damaged, bounded; and byte code that is never stale."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.build.workshop import Workshop, check_refused, find_leftovers

pytestmark = pytest.mark.real

ANSWER = "import one; print(one.answer)"


def test_one_byte_more_is_compiled_again(fresh: Workshop) -> None:
    recipe = fresh.require("one")
    for number in (1, 2):
        wheel = fresh.add_wheel("one", {"one.py": f"answer = {number}\n"})
        fresh.build(recipe, "--force", "--upgrade")
        assert fresh.python(fresh.image, ANSWER) == str(number)
        wheel.unlink()


def test_a_damaged_piece_is_made_again(fresh: Workshop) -> None:
    fresh.add_wheel("one", {"one.py": "answer = 1\n" + "# filler\n" * 500})
    recipe = fresh.require("one")
    first = fresh.build(recipe).read_bytes()
    (piece,) = fresh.cache.glob("pieces/*/*.sqfs")
    whole = piece.read_bytes()
    for damaged in (whole[:200] + bytes(50) + whole[250:], whole[:100], b""):
        piece.write_bytes(damaged)
        fresh.build(recipe, "--force")
        assert fresh.image.read_bytes() == first
        assert piece.read_bytes() == whole


def test_a_full_disk_is_told_of_and_leaves_nothing(fresh: Workshop) -> None:
    fresh.add_wheel("one", {"one.py": "answer = 1\n", "one.bin": bytes(range(256)) * 4000})
    recipe = fresh.require("one")
    fresh.build(recipe, "-o", str(fresh.out / "first.sif"))
    (piece,) = fresh.cache.glob("pieces/*/*.sqfs")
    piece.unlink()
    done = subprocess.run(
        fresh.build_words(recipe),
        cwd=fresh.folder,
        env=fresh.variables({}),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    check_refused(done, 10, "cannot be written")
    assert not fresh.image.exists()
    assert not find_leftovers(fresh.cache)
    fresh.build(recipe)
    assert fresh.python(fresh.image, ANSWER) == "1"


def test_a_bound_is_kept_by_builds_and_told_by_the_command(fresh: Workshop) -> None:
    fresh.add_wheel("one", {"one.py": "answer = 1\n"})
    recipe = fresh.require("one")
    done = fresh.try_build(recipe, LIMPET_CACHE_MAX="1k")
    assert done.returncode == 0 and "unused things from the cache" in done.stderr
    seen = json.loads(fresh.run(fresh.words("cache", "info", "--json")).stdout)
    assert sum(entry["size_bytes"] for entry in seen["entries"]) <= 1000
    fresh.build(recipe, "--force")
    assert fresh.python(fresh.image, ANSWER) == "1"
    said = fresh.run(fresh.words("cache", "list")).stdout
    assert "one 1.0" in said
    assert ", 0 damaged" in fresh.run(fresh.words("cache", "verify")).stdout
    refused = fresh.run(fresh.words("cache", "clean", "--max-size", "some"))
    check_refused(refused, 2, "must be a size")
    bad = fresh.try_build(recipe, "--force", LIMPET_CACHE_MAX="lots")
    check_refused(bad, 2, "must be a size")


WITHOUT_ZSTD = """#!/bin/sh
PATH=/usr/bin:/bin
# An old squashfuse: it starts gzip and refuses zstd, as the real one was built without it.
for word in "$@"; do
    case $word in *offset=*) offset=${word##*offset=}; offset=${offset%%,*} ;; esac
done
for word in "$@"; do
    case $word in /proc/self/fd/*)
        number=$(dd if="$word" bs=1 skip=$((${offset:-0} + 20)) count=1 2>/dev/null | od -An -tu1)
        if [ "$number" -eq 6 ]; then
            echo "Squashfs image uses zstd compression, this version supports only zlib." >&2
            exit 1
        fi ;;
    esac
done
exec REAL "$@"
"""


def test_where_zstd_cannot_be_started_gzip_is_taken(fresh: Workshop, tmp_path: Path) -> None:
    real = shutil.which("squashfuse_ll", path=f"{os.environ['PATH']}:/usr/libexec/apptainer/bin")
    if not real:
        pytest.skip("this runtime does not mount by squashfuse_ll")
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "squashfuse_ll").write_text(WITHOUT_ZSTD.replace("REAL", real))
    (folder / "squashfuse_ll").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    fresh.add_wheel("one", {"one.py": "answer = 1\n"})
    recipe = fresh.require("one")
    done = fresh.try_build(recipe, PATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot read zstd images: gzip is taken") == 1
    assert fresh.python(fresh.image, ANSWER, PATH=path) == "1"
    # With the real one zstd is back, also for the same cache.
    fresh.build(recipe, "--force")
    refused = fresh.run(["apptainer", "exec", fresh.image, "true"], PATH=path)
    assert refused.returncode and "supports only zlib" in refused.stderr


def test_small_is_smaller_and_the_same_inside(fresh: Workshop) -> None:
    text = "".join(f"value_{i} = {i * i}\n" for i in range(30000))
    fresh.add_wheel("one", {"one.py": f"answer = 1\n{text}"})
    recipe = fresh.require("one")
    usual = fresh.build(recipe, "-o", str(fresh.out / "usual.sif"))
    small = fresh.out / "small.sif"
    done = fresh.try_build(recipe, "--small", "-o", str(small))
    assert "small.sif, with everything compressed anew" in done.stderr, done.stderr
    assert small.stat().st_size < 0.95 * usual.stat().st_size
    assert fresh.python(small, ANSWER) == "1"
