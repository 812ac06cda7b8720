"""Channels behind a token or a login: found wherever conda's users keep it, written nowhere."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from tests.conda.channel import Package, Served, serve, write_channel
from tests.conftest import Limpet

pytestmark = pytest.mark.real
TOKEN = "sesame-0123456789"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a channel whose package no cache has."""
    files = {"share/fetched": f"{uuid.uuid4()}\n"}
    return write_channel(
        tmp_path / "served" / "own", Package(name="fetched", noarch="generic", files=files)
    )


@pytest.fixture
def closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The channel, behind a token."""
    for name in [name for name in os.environ if name.startswith(("CONDA", "MAMBA", "RATTLER"))]:
        monkeypatch.delenv(name)
    with serve(folder.parent, token=TOKEN) as served:
        yield served


def check_secret(token: str, told: str, *files: Path) -> None:
    assert token not in told
    for file in files:
        assert token.encode() not in file.read_bytes(), file


def leave_token(folder: Path, server: str) -> None:
    """As conda's and anaconda-client's `login` write it: a file that is named by a URL."""
    folder.mkdir(parents=True)
    (folder / f"{quote_plus(server)}.token").write_text(TOKEN)


WAYS = ("spec", "variable", "condarc", "store", "archive", "list", "anaconda", "anaconda-archive")


@pytest.mark.parametrize("way", WAYS)
def test_a_token_opens_what_only_a_spec_names(
    limpet: Limpet,
    closed: Served,
    channel_folder: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """Solved and fetched with it; neither lock nor image nor what is said has it."""
    bare, opened = f"{closed.url}/own", f"{closed.url}/t/{TOKEN}/own"
    archive = "noarch/fetched-1.0-0.conda"
    spec = {
        "spec": f"{opened}::fetched",
        "variable": f"{closed.url}/t/${{MY_TOKEN}}/own::fetched",
        "condarc": "own::fetched",
        "store": f"{bare}::fetched",
        "anaconda": f"{bare}::fetched",
        "anaconda-archive": f"{bare}/{archive}",
        "archive": f"{opened}/{archive}",
        "list": "fetched",
    }[way]
    if way == "variable":
        monkeypatch.setenv("MY_TOKEN", TOKEN)
    if way == "condarc":
        (home / ".condarc").write_text(f"channel_alias: {closed.url}/t/{TOKEN}\n")
    if way == "store":
        store = home / ".rattler" / "credentials.json"
        store.parent.mkdir()
        store.write_text(json.dumps({"127.0.0.1": {"CondaToken": TOKEN}}))
    if way.startswith("anaconda"):
        leave_token(home / ".config" / "binstar", closed.url)
    recipe = tmp_path / "environment.yml"
    recipe.write_text(
        f"channels: ['{channel_folder.as_uri()}']\ndependencies: ['{spec}', python=3.13]\n"
    )
    recipes = [recipe]
    if way == "list":
        recipes.append(tmp_path / "list.txt")
        recipes[1].write_text(f"@EXPLICIT\n{opened}/{archive}\n")
    image, lock = tmp_path / "x.sif", tmp_path / "pylock.toml"
    done = limpet("build", *recipes, "-o", image, "--base", "debian:trixie")
    assert done.returncode == 0, done.stderr
    assert f'url = "{bare}/{archive}"' in lock.read_text()
    check_secret(TOKEN, done.stdout + done.stderr, lock, image)
    assert any(path.startswith(f"/t/{TOKEN}/own/{archive}") for path in closed.asked)
    recipe_inside = limpet("inspect", image, "--recipe").stdout
    assert TOKEN not in recipe_inside and "***" not in recipe_inside


def test_a_wrong_token_is_not_shown(
    limpet: Limpet, closed: Served, channel_folder: Path, home: Path, tmp_path: Path
) -> None:
    spec = f"{closed.url}/t/wrong-9876543210/own::fetched"
    words = ("build", "--conda", spec, "--channel", str(channel_folder))
    done = limpet(*words, "--base", "debian:trixie", "-o", tmp_path / "x.sif")
    assert done.returncode == 6
    assert "refuses access" in done.stderr and "RATTLER_AUTH_FILE" in done.stderr
    check_secret("wrong-9876543210", done.stdout + done.stderr)
    assert not (tmp_path / "x.sif").exists()


def test_a_password_of_the_engines_store_fetches(
    limpet: Limpet,
    channel_folder: Path,
    folder: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same store serves the solver and limpet's own downloads."""
    store = tmp_path / "auth.json"
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(store))
    store.write_text(
        json.dumps({"127.0.0.1": {"BasicHTTP": {"username": "bob", "password": "hunter2-hunter2"}}})
    )
    image = tmp_path / "x.sif"
    with serve(folder, login="bob:hunter2-hunter2") as served:
        specs = ("--conda", "fetched", "--conda", "python")
        channels = ("--channel", served.url, "--channel", channel_folder.as_uri())
        words = ("build", *specs, *channels, "--base", "debian:trixie", "-o", image)
        done = limpet(*words)
    assert done.returncode == 0, done.stderr
    check_secret("hunter2-hunter2", done.stdout + done.stderr, image)


@pytest.mark.parametrize("place", ["named", "home"])
def test_a_bearer_token_of_the_engines_store_fetches(
    limpet: Limpet,
    channel_folder: Path,
    folder: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """As `pixi auth login --token` leaves it; without it, and with a wrong one, none does."""
    monkeypatch.delenv("RATTLER_AUTH_FILE", raising=False)
    store = home / ".rattler" / "credentials.json"
    if place == "named":
        store = tmp_path / "auth.json"
        monkeypatch.setenv("RATTLER_AUTH_FILE", str(store))
    store.parent.mkdir(exist_ok=True)
    image, lock = tmp_path / "x.sif", tmp_path / "pylock.toml"
    recipe = tmp_path / "environment.yml"
    with serve(folder, bearer=TOKEN) as served:
        channels = f"['{served.url}', '{channel_folder.as_uri()}']"
        recipe.write_text(f"channels: {channels}\ndependencies: [fetched, python=3.13]\n")
        words = ("build", recipe, "--base", "debian:trixie", "-o", image)
        refused = limpet(*words)
        store.write_text(json.dumps({"127.0.0.1": {"BearerToken": "other-0123456789"}}))
        wrong = limpet(*words)
        for done in (refused, wrong):
            assert done.returncode == 6 and "refuses access" in done.stderr, done.stderr
        assert not image.exists()
        store.write_text(json.dumps({"127.0.0.1": {"BearerToken": TOKEN}}))
        done = limpet(*words)
    assert done.returncode == 0, done.stderr
    assert f'url = "{served.url}/noarch/fetched-1.0-0.conda"' in lock.read_text()
    check_secret(TOKEN, done.stdout + done.stderr, lock, image)
    check_secret("other-0123456789", wrong.stdout + wrong.stderr)
