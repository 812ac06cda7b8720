"""Every way in which conda's users describe an environment, built for real and started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from limpet.core.lock import Lock
from limpet.core.pylock import parse_lock
from tests.conda.channel import PYTHON, Package, write_channel
from tests.conftest import Limpet

pytestmark = pytest.mark.real
BASE = ("--base", "debian:trixie")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Small packages; none of them needs Python."""
    return write_channel(
        tmp_path / "own",
        *(
            Package(name="tool", version=version, files={"share/tool": f"tool {version}\n"})
            for version in ("1.0", "1.5", "2.0")
        ),
        Package(name="other", build="blas_3", files={"share/other": "other\n"}),
    )


def build(limpet: Limpet, folder: Path, *words: str | Path) -> tuple[Path, Lock]:
    image, lock = folder / "made.sif", folder / "made.toml"
    done = limpet("build", *words, *BASE, "--lock", lock, "-o", image, "--force")
    assert done.returncode == 0, done.stderr
    return image, parse_lock(lock.read_text(), "lock")


def cat(limpet: Limpet, image: Path, path: str) -> str:
    done = limpet("run", image, "cat", f"/opt/env/{path}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def versions(lock: Lock) -> dict[str, str]:
    return {one.name: one.version for one in lock.conda}


def test_a_file_for_conda_install(limpet: Limpet, own: Path, tmp_path: Path) -> None:
    (tmp_path / "packages.txt").write_text(
        "# $ conda create --name <env> --file <this file>\ntool=1.5\nother 1.0 blas_*  # pinned\n"
    )
    image, lock = build(limpet, tmp_path, tmp_path / "packages.txt", "--channel", own)
    assert versions(lock) == {"tool": "1.5", "other": "1.0"}
    assert cat(limpet, image, "share/tool") == "tool 1.5\n"


def test_what_conda_env_export_wrote(limpet: Limpet, channel_folder: Path, tmp_path: Path) -> None:
    """With builds, a `pip:` section and the prefix of the machine that it was made on."""
    (tmp_path / "exported.yml").write_text(
        f"name: base\nchannels:\n  - {channel_folder}\ndependencies:\n"
        f"  - greeter=1.0=pyhd8ed1ab_0\n  - python={PYTHON}=h1_100_cp313\n"
        "  - libzlib=1.3.1=h0\nprefix: /users/someone/miniconda3\n"
    )
    image, lock = build(limpet, tmp_path, tmp_path / "exported.yml")
    assert (versions(lock)["greeter"], versions(lock)["python"]) == ("1.0", PYTHON)
    assert limpet("run", image, "greet").stdout == "greetings from 1.0\n"
    exported = limpet("export", image, "--to", "environment")
    assert "greeter=1.0=pyhd8ed1ab_0" in exported.stdout, exported.stderr


def test_several_files_are_one_environment(
    limpet: Limpet,
    own: Path,
    channel_folder: Path,
    tmp_path: Path,
    make_wheel: Callable[..., Path],
) -> None:
    """Two environment files, one in a folder of its own whose pip section nests -r twice."""
    (tmp_path / "sub" / "more").mkdir(parents=True)
    wheel = make_wheel({"nested/__init__.py": b"VALUE = 'nested'\n"}, name="nested")
    (tmp_path / "a.yml").write_text(
        f"channels: ['{own}']\ndependencies: [tool<2]\nvariables: {{FROM_A: a}}\n"
    )
    (tmp_path / "sub" / "b.yml").write_text(
        f"channels: ['{channel_folder}']\nvariables: {{FROM_B: b}}\n"
        "dependencies: [greeter, {pip: [-r more/requirements.txt]}]\n"
    )
    (tmp_path / "sub" / "more" / "requirements.txt").write_text("-r deeper.txt\n")
    (tmp_path / "sub" / "more" / "deeper.txt").write_text(f"{wheel}\n")
    image, lock = build(limpet, tmp_path, tmp_path / "a.yml", tmp_path / "sub" / "b.yml")
    assert versions(lock)["tool"] == "1.5"
    text = "import os, nested, greeter; print(nested.VALUE, os.environ['FROM_A'], "
    text += "os.environ['FROM_B'])"
    ran = limpet("run", image, "python", "-c", text)
    assert ran.stdout == "nested a b\n", ran.stderr


def test_conda_beside_pip_in_limpet_toml(
    limpet: Limpet, own: Path, channel_folder: Path, tmp_path: Path, make_wheel: Callable[..., Path]
) -> None:
    wheel = make_wheel({"beside/__init__.py": b"VALUE = 'beside'\n"}, name="beside")
    (tmp_path / "limpet.toml").write_text(
        f"[packages]\nconda = ['tool=1.0', 'greeter']\nchannels = ['{own}', '{channel_folder}']\n"
        f"pip = ['{wheel}']\n"
    )
    image, lock = build(limpet, tmp_path, tmp_path / "limpet.toml")
    assert versions(lock)["tool"] == "1.0"
    ran = limpet("run", image, "python", "-c", "import beside, greeter; print(beside.VALUE)")
    assert ran.stdout == "beside\n", ran.stderr


def test_a_preset_says_base_cuda_rocm_and_binds(
    limpet: Limpet, channel_folder: Path, tmp_path: Path, make_wheel: Callable[..., Path]
) -> None:
    """`--system NAME`, at the build and at the start."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "here").write_text("seen\n")
    config = tmp_path / "config.toml"
    config.write_text(
        '[systems.big]\nbase = "debian:trixie"\ncuda = "12.4"\nrocm = "5.7"\n'
        f'bind = ["{data}:/data"]\n'
    )
    wheel = make_wheel({"torch/__init__.py": b""}, name="torch", version="2.4.1+rocm6.0")
    recipe, image = tmp_path / "environment.yml", tmp_path / "x.sif"
    recipe.write_text(
        f"channels: ['{channel_folder}']\n"
        f"dependencies: [accelerated, greeter, {{pip: ['{wheel}']}}]\n"
    )
    words = ("--config", config, "build", recipe, "-o", image)
    done = limpet(*words)
    assert done.returncode != 0  # nobody said which CUDA there is
    done = limpet(*words, "--system", "big")
    assert done.returncode == 0, done.stderr
    assert "torch 2.4.1+rocm6.0 is for ROCm 6.0; the target has 5.7" in " ".join(
        done.stderr.split()
    )
    lock = parse_lock((tmp_path / "pylock.toml").read_text(), "lock")
    assert lock.base.reference == "debian:trixie" and "accelerated" in versions(lock)
    ran = limpet("--config", config, "run", "--system", "big", image, "cat", "/data/here")
    assert ran.stdout == "seen\n", ran.stderr
    unknown = limpet(
        "--config", config, "build", recipe, "-o", image, "--force", "--system", "bigg"
    )
    assert unknown.returncode != 0 and "big" in unknown.stderr and "Traceback" not in unknown.stderr
