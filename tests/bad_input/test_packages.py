"""Packages that cannot be had, or are not what they should be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.build.loopback import add_simple_index, served
from tests.build.workshop import Workshop, check_refused, unchanged

pytestmark = pytest.mark.real


@pytest.mark.parametrize("way", ["nowhere", "version"])
def test_unknown_package(workshop: Workshop, way: str) -> None:
    asked = {"nowhere": "no-such-package-here", "version": "tiny==99"}[way]
    recipe = workshop.require(asked)
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    error = check_refused(done, 4, asked.partition("=")[0])
    assert ("No package index has" in error) == (way == "nowhere")


def test_impossible_versions(workshop: Workshop) -> None:
    """uv's explanation comes through: who wants what."""
    workshop.add_wheel("first", {"first.py": ""}, requires=["tiny<1"])
    workshop.add_wheel("second", {"second.py": ""}, requires=["tiny>=1"])
    recipe = workshop.require("first", "second")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 4, "No set of packages fits", "first", "second", "tiny<1", "Python 3.13")


def test_long_explanations_are_shortened(workshop: Workshop) -> None:
    for number in range(30):
        workshop.add_wheel("many", {}, version=f"{number}.0", requires=[f"tiny=={number + 2}.0"])
    recipe = workshop.require("many", "tiny==1.0")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    error = check_refused(done, 4, "many", "tiny")
    assert len(error) < 1200


def test_hash_that_does_not_match(workshop: Workshop) -> None:
    recipe = workshop.require(f"tiny==1.0 --hash=sha256:{'0' * 64}")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 4, "tiny", "0" * 64)


def test_wheel_that_changed_since_it_was_locked(fresh: Workshop) -> None:
    recipe = fresh.require("tiny")
    assert fresh.run(fresh.words("lock", recipe, "--base", fresh.base)).returncode == 0
    wheel = fresh.add_wheel("tiny", {"tiny/__init__.py": "answer = 'another'\n"})
    got = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with unchanged(fresh.folder):
        done = fresh.try_build(recipe)
    check_refused(done, 6, str(wheel), "is not the file that was locked", got)
    assert not list(fresh.cache.rglob("*.whl"))


def test_wheel_cut_short_in_a_folder(fresh: Workshop) -> None:
    wheel = fresh.add_wheel("tiny", {"tiny/__init__.py": b"#" * 100_000})
    wheel.write_bytes(wheel.read_bytes()[:-60])
    recipe = fresh.require("tiny")
    with unchanged(fresh.folder):
        done = fresh.try_build(recipe)
    check_refused(done, 6, "file is damaged", "tiny")


@pytest.mark.parametrize(
    ("tag", "word"),
    [
        ("cp39-cp39-manylinux_2_17_x86_64", "Python"),
        ("py3-none-musllinux_1_2_x86_64", "platform"),
        ("py3-none-manylinux_2_99_x86_64", "platform"),
        ("py3-none-win_amd64", "platform"),
    ],
)
def test_no_wheel_for_this_python_or_libc(workshop: Workshop, tag: str, word: str) -> None:
    workshop.add_wheel("other", {"other.py": ""}, tag=tag)
    recipe = workshop.require("other")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 4, "other", tag.rpartition("-")[2] if word == "platform" else "cp39", word)


# ---- over the network ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_index_that_refuses(fresh: Workshop, tmp_path: Path, status: int) -> None:
    recipe = fresh.write("requirements.in", "tiny\n")
    with served(tmp_path, status=status) as url, unchanged(fresh.folder):
        secret = url.replace("//", "//someone:hunter2@") + "/simple"
        done = fresh.try_build(recipe, "--index-url", secret)
    check_refused(done, 6, "refuses access", "Give credentials")
    assert "hunter2" not in done.stderr + done.stdout


def test_wheel_that_breaks_off_on_its_way(fresh: Workshop, tmp_path: Path) -> None:
    fresh.add_wheel("tiny", {"tiny/__init__.py": b"", "tiny/data": bytes(range(256)) * 4000})
    add_simple_index(fresh, tmp_path / "site", "tiny")
    recipe = fresh.write("requirements.in", "tiny\n")
    with served(tmp_path / "site") as url:
        fresh.run(fresh.words("lock", recipe, "--base", fresh.base, "--index-url", url + "/simple"))
        port = int(url.rpartition(":")[2])
    lock = fresh.folder / "pylock.toml"
    with served(tmp_path / "site", cut=True) as url:
        lock.write_text(lock.read_text().replace(f":{port}/", f":{url.rpartition(':')[2]}/"))
        with unchanged(fresh.folder):
            done = fresh.try_build(lock)
    check_refused(done, 6, ".whl is cut short")
    assert not list(fresh.cache.rglob("*.whl"))


def test_no_network(fresh: Workshop) -> None:
    """An index that nobody serves: said at once, by its address."""
    recipe = fresh.write("requirements.in", "tiny\n")
    with unchanged(fresh.folder):
        done = fresh.try_build(
            recipe, "--index-url", "http://127.0.0.1:9/simple", UV_HTTP_RETRIES="0"
        )
    check_refused(done, 6, "cannot be reached", "127.0.0.1:9", "Check the network")
