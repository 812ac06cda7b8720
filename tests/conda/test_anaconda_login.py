"""What `anaconda login` left, found where conda finds it, and sent to nobody else."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote_plus

import pytest

from limpet.core.conda_channels import Condarc, resolve_channels, with_login
from limpet.tools.condarc import read_condarc

API = "https://api.anaconda.org"
TOKEN = "to-12345678"


def leave(folder: Path, server: str = API, token: str = TOKEN) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{quote_plus(server)}.token").write_text(f"{token}\n")


@pytest.mark.parametrize(
    ("place", "variable"),
    [
        (".config/binstar", ""),
        ("xdg config/binstar", "XDG_CONFIG_HOME"),
        (".local/share/binstar", ""),
        ("xdg data/binstar", "XDG_DATA_HOME"),
        (".continuum/anaconda-client/tokens", ""),
        ("own/data", "BINSTAR_CONFIG_DIR"),
    ],
)
def test_wherever_it_lies(tmp_path: Path, place: str, variable: str) -> None:
    leave(tmp_path / place)
    (tmp_path / place / "config.yaml").write_text("verbose: true\n")
    (tmp_path / place / "a folder.token").mkdir()
    environ = {"HOME": str(tmp_path)}
    if variable:
        environ[variable] = str((tmp_path / place).parent)
    condarc = read_condarc(environ)
    assert condarc.tokens == {API: TOKEN, "https://conda.anaconda.org": TOKEN}
    (found,) = resolve_channels(["my-group"], condarc, tmp_path)
    assert found.url == f"https://conda.anaconda.org/t/{TOKEN}/my-group"
    assert found.shown == "my-group"


@pytest.mark.parametrize("key", ["add_anaconda_token", "add_binstar_token"])
def test_condarc_can_forbid_it(tmp_path: Path, key: str) -> None:
    leave(tmp_path / ".config/binstar")
    environ = {"HOME": str(tmp_path)}
    assert read_condarc(environ).tokens
    (tmp_path / ".condarc").write_text(f"{key}: false\n")
    assert not read_condarc(environ).tokens


def test_the_newest_place_wins(tmp_path: Path) -> None:
    leave(tmp_path / ".local/share/binstar", token="old-12345678")
    leave(tmp_path / ".config/binstar")
    assert set(read_condarc({"HOME": str(tmp_path)}).tokens.values()) == {TOKEN}


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("https://repo.example/conda/lab", f"https://repo.example/conda/t/{TOKEN}/lab"),
        ("https://repo.example/other/lab", f"https://repo.example/t/{TOKEN}/other/lab"),
        ("https://repo.example/t/own-12345678/lab", "https://repo.example/t/own-12345678/lab"),
        ("https://bob:pw@repo.example/lab", "https://bob:pw@repo.example/lab"),
        ("https://repo.example.evil.org/lab", "https://repo.example.evil.org/lab"),
        ("http://repo.example/lab", "http://repo.example/lab"),
        ("https://repo.example:8443/lab", "https://repo.example:8443/lab"),
    ],
)
def test_only_that_server_gets_it(url: str, opened: str) -> None:
    """Behind the alias as conda puts it, else behind the host; never over another way or name."""
    condarc = Condarc(alias="https://repo.example/conda", tokens={"https://repo.example": TOKEN})
    assert with_login(url, condarc) == opened


def test_only_that_part_of_a_server_gets_it() -> None:
    condarc = Condarc(tokens={"https://repo.example/conda": TOKEN})
    assert with_login("https://repo.example/conda/lab", condarc).endswith(f"/t/{TOKEN}/conda/lab")
    for url in ("https://repo.example/condax/lab", "https://repo.example/lab"):
        assert with_login(url, condarc) == url
