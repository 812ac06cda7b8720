"""Where caches go, decided as values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from limpet.core.caches import CACHES, plan_caches
from limpet.core.homes import INSIDE, plan_home
from limpet.core.image_env import SENT, image_caches, parse_variables
from limpet.core.launch import plan_launch
from limpet.core.mounts import Mount
from limpet.core.recipe import HomePolicy
from limpet.core.seen import HostSeen, ImageSeen, Request
from limpet.core.slurm import JOB_VARIABLES, PLACES
from limpet.tools.mounts import is_shared
from limpet.tools.node_local import find_node_local
from tests.launch.conftest import FACTS

OWN = "/state/img/home"
HOST = HostSeen(
    runtime="/usr/bin/apptainer",
    runtime_kind="apptainer",
    runtime_version="1.4.5",
    arch="x86_64",
    environment={},
    home="/home/u",
    real_home="/home/u",
    account_home="/home/u",
    state="/state",
    cwd="/home/u",
)


def caches(policy: HomePolicy = "isolated", local: str = "", **taken: str) -> Any:
    home = plan_home(policy, home="/home/u", account_home="/home/u", state="/state/img", present={})
    return plan_caches(policy, home, state="/state/img", local=local, taken=taken)


def test_without_a_job_they_are_in_the_images_own_cache_folder() -> None:
    plan = caches()
    assert plan.variables["NUMBA_CACHE_DIR"] == f"{INSIDE}/.cache/node-local/numba"
    assert plan.variables["NLTK_DATA"] == f"{INSIDE}/.cache/nltk_data"
    assert plan.mounts == ()
    assert f"{OWN}/.cache/nltk_data" in plan.folders


def test_in_a_job_what_is_compiled_is_node_local_and_downloads_are_not() -> None:
    plan = caches(local="/local/limpet-7")
    target = f"{INSIDE}/.cache/node-local"
    assert plan.mounts == (Mount(source="/local/limpet-7/img", target=target),)
    assert plan.variables["TRITON_CACHE_DIR"].startswith(target)
    assert not plan.variables["NLTK_DATA"].startswith(target)
    assert plan.local == "/local/limpet-7"
    # the mount point in the image's own folder, and the folder itself
    assert {f"{OWN}/.cache/node-local", "/local/limpet-7/img"} <= set(plan.folders)


def test_every_home_has_a_place() -> None:
    # The runtime mounts a private home after all binds, so nothing can be bound below it.
    private = caches("private", "/local")
    assert [mount.target for mount in private.mounts] == [INSIDE, f"{INSIDE}/.cache/node-local"]
    assert "XDG_CACHE_HOME" not in private.variables
    homeless = caches("none")
    assert homeless.variables["XDG_CACHE_HOME"] == f"{INSIDE}/.cache"
    assert homeless.mounts == (Mount(source=OWN, target=INSIDE),)
    host = caches("host", "/local")
    assert (host.variables, host.mounts, host.folders) == ({}, (), ())


def test_what_the_user_or_the_image_sets_wins() -> None:
    plan = caches("none", NUMBA_CACHE_DIR="/mine", XDG_CACHE_HOME="/x")
    assert "NUMBA_CACHE_DIR" not in plan.variables
    assert "XDG_CACHE_HOME" not in plan.variables
    assert "CUPY_CACHE_DIR" in plan.variables


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "base_compiledir=PLACE"),
        ("floatX=float32", "floatX=float32,base_compiledir=PLACE"),
        ("base_compiledir=/mine", None),
        ("compiledir=/mine,floatX=float32", None),
        ("$FLAGS", None),
    ],
)
def test_a_variable_of_flags_gets_one_more(given: str, expected: str | None) -> None:
    place = f"{INSIDE}/.cache/node-local/pytensor"
    value = caches(PYTENSOR_FLAGS=given).variables.get("PYTENSOR_FLAGS")
    assert value == (expected and expected.replace("PLACE", place))


def test_flags_of_the_user_and_ours_both_arrive() -> None:
    image = ImageSeen(path="/i.sif", kind="sif", identity="img", title="i")
    environment = {"APPTAINERENV_CUPY_CACHE_DIR": "/mine"}
    host = msgspec.structs.replace(HOST, environment=environment)
    request = Request(command=("true",), env=("PYTENSOR_FLAGS=floatX=float32", "NLTK_DATA=/n"))
    launch = plan_launch(image, host, request)
    assert launch.env["APPTAINERENV_PYTENSOR_FLAGS"].startswith("floatX=float32,base_compiledir=/")
    assert launch.env["APPTAINERENV_NLTK_DATA"] == "/n"
    assert launch.env["APPTAINERENV_CUPY_CACHE_DIR"] == "/mine"
    assert "/state/img/home/.cache/nltk_data" not in launch.folders


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('export A="${A:-"two words: \\$x \\"q\\""}"', {"A": 'two words: $x "q"'}),
        ("export A=1 B='2 3' # why", {"A": "1", "B": "2 3"}),
        ("A=1; export A", {"A": "1"}),
        ('if [ -z "$B" ]; then export B=${B:-/tmp/b}; fi', {"B": "/tmp/b"}),
        ("A=1 some-program --of A=2", {}),
        ("export A='begins here", {}),
        ("echo A=1", {}),
    ],
)
def test_what_a_script_sets(line: str, found: dict[str, str]) -> None:
    assert parse_variables([f"#!/bin/sh\n{line}\n"]) == found


# What the maker of an image set: whether it counts for what is written there.
THEIRS = {
    "/tmp/numba": True,
    "/tmp/$USER/numba": True,
    "/dev/shm": True,
    "$HOME/numba": True,
    "${HOME}/numba": True,
    "~/numba": True,
    "/bound/numba": True,
    "/read-only/numba": False,
    "/opt/cache": False,
    "/root/.cache/numba": False,
    "/tmpfoo": False,
    "$SOMEWHERE/numba": False,
}


@pytest.mark.parametrize("value", THEIRS)
@pytest.mark.parametrize("made", ["foreign", "on a base"])
def test_what_an_images_maker_set_counts_where_it_can_be_written(value: str, made: str) -> None:
    theirs = {"NUMBA_CACHE_DIR": value, "NLTK_DATA": "/usr/share/nltk_data", "KERAS_HOME": "/k"}
    image = ImageSeen(path="/i.sif", kind="sif", identity="img", title="i", env=theirs)
    if made == "on a base":
        facts = msgspec.structs.replace(FACTS, base_env=theirs, env={"CUPY_CACHE_DIR": "/opt/c"})
        image = msgspec.structs.replace(image, facts=facts, env={})
    request = Request(command=("true",), binds=("/scratch:/bound", "/x:/read-only:ro"))
    launch = plan_launch(image, HOST, request)
    assert ("NUMBA_CACHE_DIR" not in launch.added) is THEIRS[value]
    assert not {"NLTK_DATA", "KERAS_HOME"} & launch.added.keys()
    assert ("CUPY_CACHE_DIR" in launch.added) is (made == "foreign")
    homeless = image_caches(image, request, "none")
    assert ("NUMBA_CACHE_DIR" in homeless) is (THEIRS[value] and value[0] not in "$~")


def test_only_what_a_start_sets_is_asked_for() -> None:
    assert {"NUMBA_CACHE_DIR", "XDG_CONFIG_HOME", "PYTENSOR_FLAGS", "XDG_CACHE_HOME"} <= SENT
    assert not {"PATH", "HF_HOME", "CUDA_VERSION"} & SENT


def test_each_row_has_a_source_and_either_a_place_or_a_reason() -> None:
    for cache in CACHES:
        assert cache.source.startswith("https://"), cache
        assert bool(cache.place) != bool(cache.reason), cache


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*JOB_VARIABLES, *PLACES):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_jobs_own_folder(quiet: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet.setenv("TMPDIR", str(tmp_path))
    assert find_node_local() == ""  # no job: a login node's TMPDIR is not one
    quiet.setenv("SLURM_JOB_ID", "1")
    assert find_node_local().startswith(f"{tmp_path}/limpet-")
    better = tmp_path / "scratch"
    better.mkdir()
    quiet.setenv("LOCAL_SCRATCH", str(better))
    assert find_node_local().startswith(f"{better}/limpet-")
    quiet.setenv("LOCAL_SCRATCH", "/nowhere")
    assert find_node_local().startswith(f"{tmp_path}/limpet-")


def test_a_network_file_system_is_not_node_local(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    place = str(tmp_path.resolve()).replace(" ", "\\040")
    root = "22 1 0:1 / / rw - ext4 /dev/a rw\n"
    mounts.write_text(f"{root}23 22 0:2 / {place} rw shared:1 - lustre x@tcp:/s rw\n")
    assert is_shared(tmp_path / "job", mounts)
    mounts.write_text(
        f"{root}23 22 0:2 / {place} rw - lustre x rw\n24 23 0:3 / {place} rw - xfs b rw\n"
    )
    assert not is_shared(tmp_path / "job", mounts)
    assert not is_shared(Path("/"), mounts)
