from __future__ import annotations

import pytest

from limpet.core.errors import RecipeError
from limpet.core.recipe import Image, Packages, Recipe
from limpet.core.recipe_text import merge_recipes, parse_recipe

FULL = """
[image]
base = "docker://python:3.13-slim"
apt = ["libgl1", "libc6:i386=2.41-1"]
args = { VERSION = "8.0" }
post = "for f in $${FILES}; do\\n echo ${VERSION}; done"
[packages]
pip = ["astropy==${VERSION}.*"]
exclude_newer = 2026-01-02
[files]
"config.ini" = "/opt/x/config.ini"
[env]
OMP_NUM_THREADS = "1"
[run]
gpu = "none"
"""


def test_a_whole_recipe() -> None:
    recipe = parse_recipe(FULL, "limpet.toml")
    assert recipe.packages.pip == ("astropy==8.0.*",)
    assert recipe.packages.exclude_newer == "2026-01-02"
    assert recipe.image.post == "for f in ${FILES}; do\n echo 8.0; done"
    assert recipe.run.gpu == "none"
    assert recipe.files == {"config.ini": "/opt/x/config.ini"}


def test_arguments_win_over_the_files_own() -> None:
    assert parse_recipe(FULL, "f", arguments={"VERSION": "9"}).packages.pip == ("astropy==9.*",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[image]\nbas = 'x'", ["'bas'", "[image]", "Did you mean base?"]),
        ("[imagee]\nbase = 'x'", ["'imagee'", "Did you mean image?"]),
        ("[image]\nbase = 3", ["image.base", "str", "int"]),
        ("[packages]\npip = 'x'", ["packages.pip", "array"]),
        ("[packages]\npip = [1]", ["packages.pip[0]", "int"]),
        ("[run]\ngpu = 'amdd'", ["run.gpu", "amdd"]),
        ("image = 1", ["image", "table"]),
        ("[env]\nX = 1", ["env[]", "int"]),
        ("[image\n", ["not valid TOML", "line 1", "column 7"]),
        ("[packages]\npip = ['${NOPE}']", ["${NOPE}", "packages.pip[0]", "--build-arg"]),
        (
            "[image]\nargs = {VERSION='1'}\n[packages]\npip = ['${VERSON}']",
            ["Did you mean VERSION?"],
        ),
        ("[packages]\npip = ['''a\nb''']", ["line break"]),
        ("[packages]\npip = ['-r x.txt']", ["packages.pip[0]", "option"]),
        ("[image]\napt = ['x; rm -rf /']", ["image.apt", "rm -rf"]),
        ("[image]\nbase = '''a\nb'''", ["image.base", "line break"]),
        ("[env]\n'A B' = 'x'", ["'A B'", "variable"]),
        ("[files]\na = 'relative'", ["relative", "absolute"]),
        ("[files]\na = '/opt/../etc/x'", ["no place"]),
        ("[files]\n\"a\\nb\" = '/x'", ["line break"]),
    ],
)
def test_errors_name_the_place(text: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "my limpet.toml")
    assert "my limpet.toml" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_recipes_are_merged() -> None:
    one = Recipe(image=Image(python="3.13", apt=("a",)), env={"A": "1"})
    other = Recipe(image=Image(base="b", apt=("b", "a")), env={"B": "2"})
    merged = merge_recipes(one, other)
    assert merged.image == Image(python="3.13", base="b", apt=("a", "b"))
    assert merged.env == {"A": "1", "B": "2"}


def test_contradictions_are_errors_but_flags_win() -> None:
    one, other = Recipe(image=Image(python="3.12")), Recipe(image=Image(python="3.13"))
    with pytest.raises(RecipeError, match=r"image\.python"):
        merge_recipes(one, other)
    assert merge_recipes(one, other, override=True).image.python == "3.13"
    with pytest.raises(RecipeError, match=r"env\.A"):
        merge_recipes(Recipe(env={"A": "1"}), Recipe(env={"A": "2"}))
    assert merge_recipes(one, Recipe(packages=Packages(pip=("x",)))).image.python == "3.12"
