"""What people write for conda, and what limpet makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.core.conda_text import parse_explicit, select_lines
from limpet.core.errors import RecipeError
from limpet.core.recipe import Packages, Recipe
from limpet.tools.recipes import read_recipe, render_recipe

FULL = """\
name: demo   # a comment
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.12
  - numpy >=1.26,<3
  - conda-forge::scipy==1.14.*
  - libblas=*=*openblas
  - pkg=1.0=h123_0
  - 'quoted[version=">=1"]'
  - winpkg  # [win]
  - linpkg  # [linux and not aarch64 or aarch64]
  - pip
  - pip:
    - requests>=2
    - -r more/requirements.txt
    - ./local
    - --extra-index-url https://example.org/simple
variables:
  LEVEL: 1.10
  TRUTH: yes
prefix: /home/somebody/envs/demo
"""


def read(folder: Path, **texts: str) -> Recipe:
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text, "utf-8")
    return read_recipe([folder / name.replace("__", ".") for name in texts]).recipe


def test_an_environment_is_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "local").mkdir()
    (tmp_path / "more" / "requirements.txt").write_text("six\n-r deeper.txt\n")
    (tmp_path / "more" / "deeper.txt").write_text("idna\n")
    recipe = read(tmp_path, environment__yml=FULL)
    assert recipe.packages.conda == (
        "python=3.12",
        "numpy >=1.26,<3",
        "conda-forge::scipy==1.14.*",
        "libblas=*=*openblas",
        "pkg=1.0=h123_0",
        'quoted[version=">=1"]',
        "linpkg",
        "pip",
    )
    assert recipe.packages.channels == ("conda-forge",)
    assert recipe.packages.pip == ("requests>=2", "./local")
    assert recipe.packages.files == ("more/requirements.txt",)
    assert recipe.packages.extra_index_urls == ("https://example.org/simple",)
    assert recipe.env == {"LEVEL": "1.10", "TRUTH": "yes"}


def test_nested_requirements_decide_the_recipe_and_comments_do_not(tmp_path: Path) -> None:
    def digest(comment: str, nested: str) -> str:
        (tmp_path / "r.txt").write_text(nested)
        text = f"# {comment}\ndependencies: [python, {{pip: [-r r.txt]}}]\n"
        (tmp_path / "environment.yml").write_text(text)
        return read_recipe([tmp_path / "environment.yml"]).recipe_sha256

    assert digest("a", "six\n") == digest("b", "six\n") != digest("a", "six<2\n")


def test_several_environments_are_one(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    one = tmp_path / "a.yml"
    one.write_text("channels: [x, y]\ndependencies: [python, six]\nvariables: {A: 1}\n")
    two = tmp_path / "sub" / "b.yaml"
    two.write_text(
        "channels: [y, ./z]\ndependencies: [six, {pip: [./p, -f w]}]\nvariables: {B: 2}\n"
    )
    (tmp_path / "sub" / "p").mkdir()
    recipe = read_recipe([one, two]).recipe
    assert recipe.packages.channels == ("x", "y", "./sub/z")
    assert recipe.packages.conda == ("python", "six")
    assert recipe.packages.pip == ("./sub/p",)
    assert recipe.packages.find_links == ("sub/w",)
    assert recipe.env == {"A": "1", "B": "2"}
    two.write_text("dependencies: [six]\nvariables: {A: 3}\n")
    with pytest.raises(RecipeError, match=r"env\.A is '1' and '3'"):
        read_recipe([one, two])


def test_limpet_toml_has_conda_beside_pip(tmp_path: Path) -> None:
    (tmp_path / "env.yml").write_text("dependencies: [numpy]\n")
    text = '[packages]\nconda = ["python=3.12"]\nchannels = ["bioconda"]\npip = ["six"]\n'
    recipe = read(tmp_path, limpet__toml=f'{text}files = ["env.yml"]\n[image]\ncuda = "12.4"\n')
    assert recipe.packages.conda == ("python=3.12", "numpy")
    assert (recipe.packages.pip, recipe.packages.files) == (("six",), ())
    assert recipe.image.cuda == "12.4"
    with pytest.raises(RecipeError, match="no version of CUDA"):
        read(tmp_path, limpet__toml='[image]\ncuda = "new"\n')


def test_what_conda_env_export_writes(tmp_path: Path) -> None:
    exported = """\
name: base
channels:
  - conda-forge
dependencies:
  - _libgcc_mutex=0.1=conda_forge
  - ca-certificates=2025.1.31=hbd8a1cb_0
  - pip:
      - six==1.17.0
prefix: /opt/conda
"""
    recipe = read(tmp_path, environment__yml=exported)
    pins = ("_libgcc_mutex=0.1=conda_forge", "ca-certificates=2025.1.31=hbd8a1cb_0")
    assert recipe.packages.conda == pins
    assert recipe.packages.pip == ("six==1.17.0",)


@pytest.mark.parametrize(
    "text",
    [
        "numpy=1.26\nscipy\n",
        "conda-forge::numpy\n",
        "numpy 1.26\n",
        "# $ conda create --name <env> --file <this file>\n# platform: linux-64\nnumpy\n",
    ],
)
def test_a_file_for_conda_install_is_told_from_one_for_pip(tmp_path: Path, text: str) -> None:
    recipe = read(tmp_path, packages__txt=text)
    assert recipe.packages.conda and not recipe.packages.files


@pytest.mark.parametrize(
    "text", ["numpy==1.26\n", "numpy >=1.2\n", "a @ https://x/a.whl\n", "-r b\n"]
)
def test_a_file_for_pip_stays_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "b").write_text("")
    assert read(tmp_path, requirements__txt=text).packages.files == ("requirements.txt",)


def test_conda_list_export_has_pip_packages_too(tmp_path: Path) -> None:
    head = "# This file may be used to create an environment using:\n# $ conda create --file <f>\n"
    recipe = read(tmp_path, spec__txt=f"{head}numpy=1.26.4=py312h0_0\nsix=1.17.0=pypi_0\n")
    assert recipe.packages.conda == ("numpy=1.26.4=py312h0_0",)
    assert recipe.packages.pip == ("six==1.17.0",)


def test_pixi_toml(tmp_path: Path) -> None:
    manifest = """\
[workspace]
name = "x"
channels = ["conda-forge", {channel = "bioconda", priority = -1}]
platforms = ["linux-64"]
[dependencies]
python = "3.12.*"
numpy = "*"
torch = {version = ">=2", build = "*cuda*", channel = "pytorch"}
[target.linux.dependencies]
gcc = ">=12"
[target.win-64.dependencies]
msvc = "*"
[pypi-dependencies]
six = "*"
httpx = {version = ">=0.27", extras = ["http2"]}
mine = {git = "https://example.org/mine.git", rev = "abc"}
[system-requirements]
cuda = "12"
[feature.plots.dependencies]
matplotlib = "*"
[feature.other.dependencies]
never = "*"
[environments]
default = ["plots"]
other = ["other"]
[activation.env]
MODE = "fast"
"""
    recipe = read(tmp_path, pixi__toml=manifest)
    assert recipe.packages.channels == ("conda-forge", "bioconda")
    assert recipe.packages.conda == (
        *("python 3.12.*", "numpy", "pytorch::torch >=2 *cuda*", "gcc >=12", "matplotlib"),
    )
    assert recipe.packages.pip == (
        *("six", "httpx[http2]>=0.27", "mine @ git+https://example.org/mine.git@abc"),
    )
    assert (recipe.image.cuda, recipe.env) == ("12", {"MODE": "fast"})


FEATURES = """\
[workspace]
channels = ["conda-forge"]
[dependencies]
python = "*"
[feature.gpu]
channels = ["nvidia"]
dependencies = {cupy = "*"}
[environments]
gpu = ["gpu"]
bare = {features = ["gpu"], no-default-feature = true}
"""


@pytest.mark.parametrize(
    ("name", "specs", "channels"),
    [
        ("", ("python",), ("conda-forge",)),
        ("gpu", ("python", "cupy"), ("conda-forge", "nvidia")),
        ("bare", ("cupy",), ("conda-forge", "nvidia")),
    ],
)
def test_an_environment_of_a_pixi_workspace(
    tmp_path: Path, name: str, specs: tuple[str, ...], channels: tuple[str, ...]
) -> None:
    flags = Recipe(packages=Packages(environment=name))
    (tmp_path / "pixi.toml").write_text(FEATURES)
    recipe = read_recipe([tmp_path / "pixi.toml"], flags=flags).recipe
    assert (recipe.packages.conda, recipe.packages.channels) == (specs, channels)


def test_an_environment_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "pixi.toml").write_text(FEATURES)
    flags = Recipe(packages=Packages(environment="cpu"))
    with pytest.raises(RecipeError, match="no environment 'cpu'"):
        read_recipe([tmp_path / "pixi.toml"], flags=flags)


def test_a_pyproject_with_a_pixi_workspace(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(
        '[project]\nname = "x"\nversion = "1"\ndependencies = ["six"]\n'
        '[tool.pixi.workspace]\nchannels = ["conda-forge"]\n'
        '[tool.pixi.dependencies]\nhdf5 = ">=1.14"\n'
    )
    loaded = read_recipe([path])
    assert loaded.recipe.packages.conda == ("hdf5 >=1.14",)
    assert loaded.recipe.packages.files == ("pyproject.toml",)
    assert [one.kind for one in loaded.inputs] == ["pyproject"]


def test_explicit_lists() -> None:
    sha, md5 = "a" * 64, "b" * 32
    text = f"""\
# platform: linux-64
@EXPLICIT
https://example.org/c/linux-64/a-1.0-0.conda#sha256:{sha}
https://example.org/c/noarch/b-2.0-py_0.tar.bz2#{md5}
/local/c/noarch/c-1-0.conda
"""
    lines = parse_explicit(text, "list.txt")
    assert [(one.url.rpartition("/")[2], one.sha256, one.md5) for one in lines] == [
        ("a-1.0-0.conda", sha, ""),
        ("b-2.0-py_0.tar.bz2", "", md5),
        ("c-1-0.conda", "", ""),
    ]
    with pytest.raises(RecipeError, match=r"list.txt, line 2, column 1"):
        parse_explicit("@EXPLICIT\nnumpy=1.2\n", "list.txt")


@pytest.mark.parametrize(
    ("selector", "kept"),
    [("linux", True), ("win", False), ("not win", True), ("linux64", True), ("osx or unix", True)],
)
def test_selectors(selector: str, kept: bool) -> None:
    text = f"- a\n- b  # [{selector}]\n"
    assert ("- b" in select_lines(text, "linux-64", "e.yml")) == kept


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("dependencies:\n  - a\n - b\n", "line 3, column 2", "YAML"),
        ("name: [x\n", "line 2, column 1", "YAML"),
        ("name: x\n\tdependencies: []\n", "line 2, column 1", "YAML"),
        ("name: x\ndependancies: []\n", "line 2, column 15", "unknown key 'dependancies'"),
        ("dependencies: numpy\n", "line 1, column 15", "must be a list"),
        ("dependencies:\n- a\n- conda:\n  - b\n", "line 4, column 3", "section 'conda'"),
        ("dependencies:\n- a\n- '=1.2'\n", "line 3, column 3", "no conda package"),
        ("dependencies:\n- [a]\n", "line 2, column 3", "must be a table"),
        ("dependencies:\n- pip:\n  - --no-deps\n", "line 3, column 5", "has no place"),
        ("variables: [A]\n", "line 1, column 12", "must be a table"),
        ("variables:\n  A: [b]\n", "line 2, column 6", "no text"),
        ("- a\n- b\n", "line 1, column 1", "must be a table"),
        ("name: a\nname: b\n", "line 2, column 1", "there twice"),
        ("dependencies:\n- a # [amiga]\n", "line 2", "selector"),
    ],
)
def test_a_malformed_environment_is_pointed_at(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, environment__yml=text)
    assert f"environment.yml, {where}" in caught.value.what
    assert what in str(caught.value)


def test_an_empty_or_missing_environment(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is empty"):
        read(tmp_path, environment__yml="# nothing\n")
    with pytest.raises(RecipeError, match=r"There is no recipe .*\n+Check the path"):
        read_recipe([tmp_path / "missing.yml"])


def test_a_token_leaves_neither_hash_nor_text(tmp_path: Path) -> None:
    def told(token: str) -> tuple[str, str]:
        text = f"channels: ['https://example.org/t/{token}/mine']\ndependencies: [python]\n"
        (tmp_path / "environment.yml").write_text(text)
        loaded = read_recipe([tmp_path / "environment.yml"])
        return loaded.recipe_sha256, render_recipe(loaded.recipe)

    first, second = told("sesame-42"), told("other-token-99")
    assert first == second
    assert "sesame" not in first[1]
