from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from limpet.core.login import Login
from limpet.tools.logins import find_login


def write_config(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize("prefix", ["APPTAINER_DOCKER", "SINGULARITY_DOCKER", "DOCKER"])
def test_variables_come_first(tmp_path: Path, prefix: str) -> None:
    write_config(tmp_path / ".docker/config.json", {"auths": {"r.example": auth("file:no")}})
    env = {"HOME": str(tmp_path), f"{prefix}_USERNAME": "u", f"{prefix}_PASSWORD": "p:w"}
    assert find_login("r.example", env) == Login(user="u", password="p:w")


def test_files_in_the_order_of_apptainer(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    assert find_login("r.example", env) is None
    for name, user in (
        (".docker/config.json", "docker"),
        (".singularity/docker-config.json", "ce"),
        (".apptainer/docker-config.json", "apptainer"),
    ):
        write_config(tmp_path / name, {"auths": {"r.example": auth(f"{user}:a:b")}})
        assert find_login("r.example", env) == Login(user=user, password="a:b")
    assert find_login("other.example", env) is None


def test_folders_named_by_variables(tmp_path: Path) -> None:
    write_config(tmp_path / "x/docker-config.json", {"auths": {"r.example": auth("a:b")}})
    env = {"HOME": "/nowhere", "APPTAINER_CONFIGDIR": str(tmp_path / "x")}
    assert find_login("r.example", env) == Login(user="a", password="b")


def test_docker_hub_has_an_old_name(tmp_path: Path) -> None:
    document = {"auths": {"https://index.docker.io/v1/": auth("a:b")}}
    write_config(tmp_path / ".docker/config.json", document)
    assert find_login("docker.io", {"HOME": str(tmp_path)}) == Login(user="a", password="b")


@pytest.mark.real
def test_a_credential_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-fake"
    helper.write_text(
        '#!/bin/sh\nread host\n[ "$1 $host" = "get r.example" ] || exit 1\n'
        'echo \'{"Username": "<token>", "Secret": "s3"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = {"credHelpers": {"r.example": "fake"}, "credsStore": "missing"}
    write_config(tmp_path / ".docker/config.json", config)
    env = {"HOME": str(tmp_path)}
    assert find_login("r.example", env) == Login(identity_token="s3")
    assert find_login("other.example", env) is None


def test_a_broken_file_is_no_login(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("{")
    assert find_login("r.example", {"HOME": str(tmp_path)}) is None


def test_a_login_is_never_shown() -> None:
    assert "geheim" not in repr(Login(user="u", password="geheim", identity_token="geheim"))
