"""Recipes that cannot be read, or ask for what cannot be."""

from __future__ import annotations

import os

import pytest

from tests.build.workshop import Workshop, check_refused, unchanged

pytestmark = pytest.mark.real


def test_recipe_that_is_not_there(workshop: Workshop) -> None:
    with unchanged(workshop.folder):
        done = workshop.try_build("no-such-recipe.in")
    check_refused(done, 3, "There is no recipe", "no-such-recipe.in")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("requirement.in", "Did you mean requirements.in?"),
        ("tiny", "--pip tiny"),
        (".", "Name the file: requirements.in"),
        ("out", "is a folder, not a recipe"),
        ("out/old.sif", "is an image, not a recipe"),
        ("uv.lock", "has no pyproject.toml beside it"),
        ("poetry.lock", "poetry export -o requirements.txt"),
        ("Pipfile.lock", "pipenv requirements --hash"),
        ("work/gpu.def", "as a limpet.toml"),
        ("Dockerfile", "is another tool's, and no recipe for limpet"),
    ],
)
def test_what_is_typed_in_place_of_a_recipe(workshop: Workshop, typed: str, said: str) -> None:
    workshop.require("tiny")
    workshop.write("out/old.sif", b"\x7fSIF_MAGIC\xff")
    workshop.write("uv.lock", "version = 1\n")
    for name in ("poetry.lock", "Pipfile.lock", "work/gpu.def", "Dockerfile"):
        workshop.write(name, "")
    with unchanged(workshop.folder):
        done = workshop.try_build(typed)
    check_refused(done, 3, said)


def test_what_may_be_a_slip_is_said(workshop: Workshop) -> None:
    done = workshop.try_build(workshop.require(), "--dry-run")
    assert done.returncode == 0 and "The recipe asks for no packages" in done.stderr
    assert "packages  0\n" in done.stdout
    done = workshop.try_build(workshop.require("tiny"), "--dry-run", "--upgrade-package", "tyny")
    assert done.returncode == 0 and "--upgrade-package tyny: the recipe brings no" in done.stderr
    done = workshop.try_build(workshop.write("slip.in", "tiny=1.0\n"), "--offline")
    assert "slip.in is read as conda's" in done.stderr


def test_a_requirement_on_the_command_line_that_cannot_be_read(workshop: Workshop) -> None:
    done = workshop.try_build(workshop.require("tiny"), "--pip", "tiny=>1")
    assert "recipe.in" not in check_refused(done, 3, "tiny=>1")


def test_recipe_that_may_not_be_read(workshop: Workshop) -> None:
    recipe = workshop.require("tiny")
    recipe.chmod(0)
    done = workshop.try_build(recipe)
    recipe.chmod(0o644)
    check_refused(done, 3, "requirements.in cannot be read", "Permission denied")
    assert not workshop.image.exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("requirements.in", b"tiny\n\xff\xfe\n", "not UTF-8"),
        ("requirements.in", b"tiny == == 1\n", "tiny == == 1"),
        ("limpet.toml", b"[packages\npip = 1\n", "not valid TOML"),
        ("limpet.toml", b"[packages]\npip = 'tiny'\n", "packages.pip"),
        ("pyproject.toml", b"[tool.other]\n", "names no packages"),
        ("pyproject.toml", b"[tool.poetry.dependencies]\n", "Poetry can export what it locked"),
        ("environment.yml", b"dependencies: [python\n", "line 2"),
        ("pylock.toml", b"lock-version = '9.0'\ncreated-by = 'x'\npackages = []\n", "9.0"),
        ("limpet.toml", b"[image]\nlabels = 5\n", "image.labels"),
    ],
)
def test_recipe_that_cannot_be_read(workshop: Workshop, name: str, text: bytes, said: str) -> None:
    recipe = workshop.write(name, text)
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 3, name, said)


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("[image]\nbsae = 'x'\n", "bsae", "base"),
        ("[pacakges]\npip = []\n", "pacakges", "packages"),
        ("[warm]\nimport = ['x']\n", "import", "imports"),
        ("[run]\nhmoe = 'none'\n", "hmoe", "home"),
    ],
)
def test_unknown_key(workshop: Workshop, text: str, wrong: str, right: str) -> None:
    recipe = workshop.write("limpet.toml", text)
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 3, f"unknown key '{wrong}'", f"Did you mean {right}?")


def test_files_source_missing(workshop: Workshop) -> None:
    recipe = workshop.describe('[files]\n"not-there.cfg" = "/opt/x/not-there.cfg"\n', "tiny")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 3, "not-there.cfg", "does not exist")


@pytest.mark.parametrize(
    "place", ["relative/place", "/opt/../../etc/passwd", "/proc/1/environ", "/tmp/x", "/opt"]
)
def test_files_destination_outside_the_image(workshop: Workshop, place: str) -> None:
    workshop.write("data.txt", "data")
    recipe = workshop.describe(f'[files]\n"data.txt" = "{place}"\n', "tiny")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 3, place)


def test_files_that_are_neither_file_nor_folder(workshop: Workshop) -> None:
    (workshop.folder / "tree").mkdir()
    os.mkfifo(workshop.folder / "tree" / "pipe")
    recipe = workshop.describe('[files]\n"tree" = "/opt/x/tree"\n', "tiny")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 3, "pipe")


def test_files_that_may_not_be_read(workshop: Workshop) -> None:
    secret = workshop.write("tree/secret", "x")
    secret.chmod(0)
    recipe = workshop.describe('[files]\n"tree" = "/opt/x/tree"\n', "tiny")
    done = workshop.try_build(recipe)
    secret.chmod(0o600)
    check_refused(done, 3, "secret", "Permission denied")
    assert not list(workshop.out.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[image]\napt = ["x; touch /tmp/pwned"]\n', "x; touch"),
        ('[image]\npython = "3.13\\n"\n', "line break"),
        ('[env]\n"A B" = "x"\n', "A B"),
        ('[env]\n"X;touch y" = "x"\n', "X;touch y"),
        ('[files]\n"a\\nb" = "/opt/x/y"\n', "a\\nb"),
        ('[packages]\npip = ["tiny\\n--index-url http://bad"]\n', "line break"),
        ('[packages]\npip = ["$(touch pwned)"]\n', "touch pwned"),
    ],
)
def test_names_with_newlines_and_shell_characters(workshop: Workshop, text: str, said: str) -> None:
    recipe = workshop.write("limpet.toml", text)
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 3, said)


def test_wheel_that_reaches_outside_its_folder(workshop: Workshop) -> None:
    workshop.add_wheel("evil", {"evil.py": "", "../../../../etc/evil": "x"})
    recipe = workshop.require("evil")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 7, "evil")


def test_package_that_the_recipe_calls_by_a_path_of_shell_words(workshop: Workshop) -> None:
    """It is a name like any other: nothing runs it, and it is not found."""
    recipe = workshop.require("./`touch pwned`;$(touch pwned).whl")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 4, "touch pwned")
