"""Recipes changed and closed, and what two locks differ in."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.actions.closed_recipe import close_recipe
from limpet.core.conda import CondaPackage
from limpet.core.errors import RecipeError, UsageError
from limpet.core.lock import Artifact, Lock, LockedBase, LockedPackage
from limpet.core.recipe import Packages, Recipe
from limpet.core.update import Change, Source, change_recipe, find_changes, name_of
from limpet.tools.recipe_edit import change_recipe_text
from limpet.tools.recipes import read_recipe, render_recipe

ENVIRONMENT = """\
# what we need
name: demo
channels:
  - conda-forge
dependencies:
  - python=3.13  # not 3.14
  - conda-forge::hdf5 >=1.14
  - pip:
      - astropy==6.0
"""


def closed(path: Path, **more: str) -> Recipe:
    for name, text in more.items():
        (path.parent / f"{name}.txt").write_text(text)
    return close_recipe(read_recipe([path]))


def test_requirements_are_said_in_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "env.in"
    path.write_text(
        "--extra-index-url https://example.org/simple\n-r more.txt\n-c limits.txt\n"
        "numpy==2.1 \\\n  --hash=sha256:00\nscipy[test] ; python_version > '3'  # why\n"
    )
    recipe = closed(path, more="six\n", limits="numpy<3\n-r more.txt\n")
    assert recipe.packages == Packages(
        pip=("six", "numpy==2.1", "scipy[test] ; python_version > '3'"),
        constraints=("numpy<3", "six"),
        extra_index_urls=("https://example.org/simple",),
    )


@pytest.mark.parametrize("line", ["./here", "-e .", "--no-index", "x --config-settings=a=b"])
def test_what_has_no_word_stays_in_its_file(tmp_path: Path, line: str) -> None:
    (tmp_path / "here").mkdir()
    path = tmp_path / "env.in"
    path.write_text(f"six\n{line}\n")
    recipe = closed(path)
    assert recipe.packages.files == ("env.in",)
    assert recipe.packages.pip == ()


def test_a_projects_dependencies_are_said_with_what_was_chosen(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(
        '[project]\nname = "x"\nversion = "1"\ndependencies = ["six"]\n'
        '[project.optional-dependencies]\nplot = ["matplotlib"]\nother = ["nothing"]\n'
        '[dependency-groups]\ndev = ["pytest"]\n'
    )
    flags = Recipe(packages=Packages(extras=("plot",), groups=("dev",), pip=("attrs",)))
    recipe = close_recipe(read_recipe([path], flags=flags))
    assert recipe.packages == Packages(pip=("six", "matplotlib", "pytest", "attrs"))


def test_an_installed_project_stays_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "x"\nversion = "1"\n[build-system]\nrequires = []\n')
    assert closed(path).packages.files == ("pyproject.toml",)


def test_the_closed_recipe_says_no_password(tmp_path: Path) -> None:
    path = tmp_path / "env.in"
    path.write_text("--index-url https://me:secret@example.org/simple\nsix\n")
    text = render_recipe(closed(path))
    assert "example.org/simple" in text and "secret" not in text


def test_packages_change_places_in_a_recipe() -> None:
    recipe = Recipe(packages=Packages(pip=("Six==1", "numpy"), conda=("hdf5 >=1", "fftw")))
    changed = change_recipe(recipe, pip=["six==2", "attrs"], conda=["fftw=3"], remove=["numpy"])
    assert changed.packages.pip == ("six==2", "attrs")
    assert changed.packages.conda == ("hdf5 >=1", "fftw=3")
    with pytest.raises(UsageError, match="does not ask"):
        change_recipe(recipe, pip=[], conda=[], remove=["scipy"])


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("Foo_Bar[x]>=1", "pip", "foo-bar"),
        ("conda-forge::HDF5=1.14", "conda", "hdf5"),
        ("", "pip", ""),
    ],
)
def test_names(text: str, source: Source, name: str) -> None:
    assert name_of(text, source) == name


def lock(pip: dict[str, str], conda: dict[str, str]) -> Lock:
    return Lock(
        base=LockedBase(reference="debian:trixie", digest="sha256:0", arch="x86_64"),
        python="3.13.5",
        interpreter="/usr/bin/python3",
        packages=tuple(
            LockedPackage(name=n, version=v, artifact=Artifact(kind="wheel", filename="x.whl"))
            for n, v in pip.items()
        ),
        conda=tuple(
            CondaPackage(
                name=n,
                version=v,
                build="0",
                subdir="noarch",
                channel="c",
                filename=f"{n}.conda",
                sha256="0",
            )
            for n, v in conda.items()
        ),
    )


def test_changes_between_locks() -> None:
    before = lock({"a": "1", "b": "1", "c": "1"}, {"a": "1"})
    after = lock({"a": "2", "c": "1", "d": "1"}, {"a": "1"})
    assert find_changes(before, after) == (
        Change(name="a", source="pip", before="1", after="2"),
        Change(name="b", source="pip", before="1"),
        Change(name="d", source="pip", after="1"),
    )


def test_an_environment_keeps_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "environment.yml"
    path.write_text(ENVIRONMENT)
    text = change_recipe_text(
        path, pip={"astropy": "astropy==7.0"}, conda={"fftw": "fftw=3"}, remove=["hdf5"]
    )
    assert text == ENVIRONMENT.replace("  - conda-forge::hdf5 >=1.14\n", "").replace(
        "      - astropy==6.0\n", "      - astropy==7.0\n  - fftw=3\n"
    )
    path.write_text("dependencies:\n  - python\n")
    text = change_recipe_text(path, pip={"six": "six"}, conda={})
    assert text == "dependencies:\n  - python\n  - pip:\n      - six\n"
    path.write_text(text)
    assert change_recipe_text(path, pip={}, remove=["six"]) == "dependencies:\n  - python\n"


def test_lines_and_tables_lose_what_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "env.in"
    path.write_text("# all\nsix==1 \\\n  --hash=sha256:0 \\\n  --hash=sha256:1\nnumpy\n")
    assert change_recipe_text(path, pip={}, remove=["six"]) == "# all\nnumpy\n"
    path = tmp_path / "limpet.toml"
    path.write_text('[packages]\npip = ["six", "numpy"]  # all\nconda = ["hdf5"]\n')
    text = change_recipe_text(path, pip={}, conda={"fftw": "fftw"}, remove=["six", "hdf5"])
    assert text == '[packages]\npip = ["numpy"]  # all\nconda = ["fftw"]\n'
    with pytest.raises(RecipeError, match="no place for conda"):
        change_recipe_text(tmp_path / "env.in", pip={}, conda={"fftw": "fftw"})
    with pytest.raises(UsageError, match="does not ask"):
        change_recipe_text(path, pip={}, remove=["scipy"])
