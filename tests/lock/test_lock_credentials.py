from __future__ import annotations

from pathlib import Path

import pytest

from limpet.tools.credentials import find_credentials
from limpet.tools.process import run
from limpet.tools.uv import uv_program


def _find(url: str, *urls: str, **environ: str) -> tuple[str, str] | None:
    return find_credentials(url, urls=urls, environ={"HOME": "/nonexistent", **environ})


def test_nothing_known() -> None:
    assert _find("https://h/x.whl") is None
    assert _find("file:///x") is None
    assert _find("https://h/x", "not a url", "https://[bad/") is None


def test_from_urls_of_the_same_place() -> None:
    index = "https://u:p%40ss@h/simple"
    assert _find("https://h/files/x.whl", index) == ("u", "p@ss")
    assert _find("https://h:443/x.whl", index) == ("u", "p@ss")
    assert _find("https://H/x.whl", index) == ("u", "p@ss")
    for other in ("http://h/x.whl", "https://h:444/x.whl", "https://h2/x", "https://sub.h/x"):
        assert _find(other, index) is None


def test_the_nearest_path_wins() -> None:
    urls = ("https://a:1@h/team-a/simple", "https://b:2@h/team-b/simple")
    assert _find("https://h/team-b/files/x.whl", *urls) == ("b", "2")
    assert _find("https://h/team-a/files/x.whl", *urls) == ("a", "1")


def test_a_token_may_stand_alone() -> None:
    assert _find("https://h/x", "https://0123456789abcdef@h/s") == ("0123456789abcdef", "")
    assert _find("https://h/x", "https://bob@h/s") is None


@pytest.mark.parametrize(
    "environ",
    [
        {"UV_INDEX_URL": "https://u:p@h/simple"},
        {"UV_DEFAULT_INDEX": "https://u:p@h/simple"},
        {"UV_EXTRA_INDEX_URL": "https://other/simple https://u:p@h/simple"},
        {"UV_INDEX": "https://other/simple mine=https://u:p@h/simple"},
        {
            "UV_INDEX": "my-own=https://h/simple",
            "UV_INDEX_MY_OWN_USERNAME": "u",
            "UV_INDEX_MY_OWN_PASSWORD": "p",
        },
    ],
)
def test_from_the_environment(environ: dict[str, str]) -> None:
    assert _find("https://h/x.whl", **environ) == ("u", "p")


def test_from_the_environment_for_an_index_that_the_recipe_names() -> None:
    environ = {"HOME": "/nonexistent", "UV_INDEX_LAB_USERNAME": "u", "UV_INDEX_LAB_PASSWORD": "p"}
    named = {"lab": "https://h/simple"}
    assert find_credentials("https://h/x", named=named, environ=environ) == ("u", "p")
    assert find_credentials("https://h2/x", named=named, environ=environ) is None


def test_from_netrc(tmp_path: Path) -> None:
    place = tmp_path / "my netrc"
    place.write_text("machine h login u password p\n")
    place.chmod(0o600)
    assert _find("https://h/x.whl", NETRC=str(place)) == ("u", "p")
    assert _find("https://other/x.whl", NETRC=str(place)) is None
    place.write_text("machine h login u 'broken\n")
    assert _find("https://h/x.whl", NETRC=str(place)) is None


def test_from_keyring(tmp_path: Path) -> None:
    program = tmp_path / "keyring"
    program.write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "get https://h/x.whl bob" ] && echo "$1-pw" && exit 0\nexit 1\n'
    )
    program.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    asked = ("https://h/x.whl", "https://bob@h/simple")
    assert _find(*asked, PATH=path, UV_KEYRING_PROVIDER="subprocess") == ("bob", "get-pw")
    assert _find(*asked, PATH=path) is None


@pytest.mark.real
def test_from_uvs_own_store(tmp_path: Path) -> None:
    environ = {"UV_CREDENTIALS_DIR": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    login = ["auth", "login", "https://h.invalid", "-u", "bob", "--password", "pw", "--no-config"]
    assert run([uv_program(), *login], env=environ).code == 0
    found = find_credentials("https://h.invalid/simple/x", environ=environ, uv_program=uv_program())
    assert found == ("bob", "pw")
    other = find_credentials("https://o.invalid/x", environ=environ, uv_program=uv_program())
    assert other is None
