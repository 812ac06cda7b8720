"""Configuration files."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.core.config import Config, System
from limpet.core.errors import UsageError
from limpet.tools.config import read_config


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CONFIG", "CACHE_DIR", "BUILD_DIR", "STATE_DIR", "BASE"):
        monkeypatch.delenv(f"LIMPET_{name}", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / ".config/limpet").mkdir(parents=True)
    return tmp_path


def test_nothing_is_set(folder: Path) -> None:
    assert read_config(site_file=folder / "none") == Config()
    assert Config().base == "docker://python:{python}-slim"


def test_later_files_win_and_presets_add_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, group, own, chosen = (
        folder / name for name in ("s", "g", ".config/limpet/config.toml", "c")
    )
    site.write_text('cache_dir = "s"\nbase = "s"\nbinds = ["/s"]\n[systems.a]\nbase = "s"\n')
    group.write_text('base = "g"\n[systems.b]\ncuda = "12.4"\n')
    own.write_text('build_dir = "o"\nbinds = ["/o"]\n[systems.a]\nbind = ["/a"]\n')
    chosen.write_text('state_dir = "c"\n')
    monkeypatch.setenv("LIMPET_CONFIG", str(group))
    assert read_config(str(chosen), site_file=site) == Config(
        cache_dir="s",
        build_dir="o",
        state_dir="c",
        base="g",
        binds=("/o",),
        systems={"a": System(bind=("/a",)), "b": System(cuda="12.4")},
    )
    monkeypatch.setenv("LIMPET_BASE", "e")
    assert read_config(str(chosen), site_file=site).base == "e"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cache-dir = 'x'", "Did you mean cache_dir?"),
        ("[systems.a]\nbinds = []", "systems.a.binds"),
        ("cache_dir = 1", "cache_dir"),
        ("systems = 1", "systems"),
        ("[systems]\na = 1", "systems"),
        ("cache_dir", "is no TOML"),
    ],
)
def test_mistakes_name_file_and_key(folder: Path, text: str, said: str) -> None:
    path = folder / ".config/limpet/config.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_config(site_file=folder / "none")
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_a_named_file_must_be_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no configuration file"):
        read_config("nowhere", site_file=folder / "none")
    monkeypatch.setenv("LIMPET_CONFIG", "/nowhere")
    with pytest.raises(UsageError, match="/nowhere"):
        read_config(site_file=folder / "none")


def test_presets_by_name() -> None:
    config = Config(systems={"lumi-g": System(rocm="6.2")})
    assert config.system("lumi-g").rocm == "6.2"
    assert config.system("") == System()
    with pytest.raises(UsageError, match="no such preset"):
        config.system("lumi")
