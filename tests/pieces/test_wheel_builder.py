"""What a build in the base is given, and what its failures mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limpet.actions.wheels import work_folder
from limpet.core.facts import Interpreter
from limpet.core.lock import Artifact, LockedPackage
from limpet.tools.wheel_builder import (
    BuildCommand,
    build_failure,
    plan_build,
    scrub,
    with_credentials,
)

PYTHON = Interpreter(path="/usr/bin/python3", version="3.13.5", prefix="/usr", magic="f30d0d0a")
DEMO = LockedPackage(
    name="my-demo", version="1.0", artifact=Artifact(kind="vcs", filename="", url="git+https://x/y")
)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)


def plan(tmp_path: Path, **options: Any) -> BuildCommand:
    return plan_build(
        DEMO,
        PYTHON,
        **{
            "uv": tmp_path / "uv",
            "uv_cache": tmp_path / "cache",
            "folder": tmp_path / "work",
            "source": "src/tree",
            **options,
        },
    )


def test_a_build_runs_uv_with_the_bases_python(tmp_path: Path) -> None:
    command = plan(tmp_path, offline=True)
    assert command.argv[:3] == ("/opt/limpet/uv", "build", "--wheel")
    assert command.argv[command.argv.index("--python") + 1] == "/usr/bin/python3"
    assert command.argv[-2:] == ("--offline", "/opt/limpet/build/src/tree")
    assert command.binds == (
        (tmp_path / "uv", "/opt/limpet/uv", False),
        (tmp_path / "cache", "/opt/limpet/uv-cache", True),
        (tmp_path / "work", "/opt/limpet/build", True),
    )
    for name in ("HOME", "TMPDIR"):
        assert command.variables[name].startswith("/opt/limpet/build/")


def test_a_build_knows_the_locked_version(tmp_path: Path) -> None:
    assert plan(tmp_path).variables["SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MY_DEMO"] == "1.0"


def test_certificates_and_proxies_reach_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("PYTHONPATH", "/leak")
    command = plan(tmp_path, ca_bundle="/etc/ca.pem")
    assert (Path("/etc/ca.pem"), "/opt/limpet/ca.pem", False) in command.binds
    assert command.variables["SSL_CERT_FILE"] == "/opt/limpet/ca.pem"
    assert command.variables["HTTPS_PROXY"] == "http://proxy:3128"
    assert "PYTHONPATH" not in command.variables


def test_index_settings_reach_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    command = plan(tmp_path, indexes=["https://lock/simple"])
    assert command.variables["UV_DEFAULT_INDEX"] == "https://pip/simple"
    assert command.variables["UV_INDEX"] == "https://lock/simple"
    assert (links, str(links), False) in command.binds
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv/simple")
    assert plan(tmp_path).variables["UV_DEFAULT_INDEX"] == "https://uv/simple"


def test_a_lock_from_a_mirror_builds_from_the_mirror(tmp_path: Path) -> None:
    mirrored = plan(tmp_path, indexes=["https://mirror/simple"]).variables
    assert mirrored["UV_DEFAULT_INDEX"] == "https://mirror/simple"
    both = plan(tmp_path, indexes=["https://own/simple", "https://pypi.org/simple"]).variables
    assert both["UV_DEFAULT_INDEX"] == "https://pypi.org/simple"
    assert both["UV_INDEX"] == "https://own/simple"


def test_credentials_are_quoted_and_scrubbed() -> None:
    url = with_credentials("https://host:8443/simple", ("me@site", "p/w"))
    assert url == "https://me%40site:p%2Fw@host:8443/simple"
    assert scrub(f"error: {url} failed") == "error: https://***@host:8443/simple failed"
    assert with_credentials("https://host/simple", None) == "https://host/simple"


@pytest.mark.parametrize(
    ("said", "now"),
    [
        ("error: command 'gcc' failed: No such file or directory", "build-essential"),
        ("error: command 'x86_64-linux-gnu-gcc' failed: No such file", "build-essential"),
        ("ERROR: Unknown compiler(s): [['cc'], ['gcc']]", "build-essential"),
        ("CMake Error: CMAKE_CXX_COMPILER not set", "build-essential"),
        ("error: linker `cc` not found", "build-essential"),
        ("a.c:1:10: fatal error: Python.h: No such file or directory", "python3-dev"),
        ("error: something else", "needs no build"),
    ],
)
def test_failures_say_what_to_do(said: str, now: str) -> None:
    failure = build_failure(DEMO, "\n".join([*(f"line {n}" for n in range(99)), said]))
    assert now in failure.now
    assert said in failure.why
    assert "line 80" not in failure.why


def test_what_a_dead_build_left_is_removed(tmp_path: Path) -> None:
    with work_folder(tmp_path) as living:
        dead = tmp_path / "work" / "dead"
        dead.mkdir()
        (dead / "file").touch()
        (dead / ".held").touch()
        with work_folder(tmp_path) as other:
            assert not dead.exists()
            assert living.is_dir()
            assert other.is_dir()
    assert [path.name for path in (tmp_path / "work").iterdir()] == [".lock"]
