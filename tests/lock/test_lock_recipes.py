from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from limpet.core.errors import RecipeError
from limpet.core.recipe import Image, Packages, Recipe
from limpet.tools.files import hash_tree
from limpet.tools.recipes import read_recipe


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with one of each description, at a path with a space and an umlaut."""
    folder = tmp_path / "my prüject"
    _write(
        folder,
        requirements_DOT_in="numpy>=1\n-r sub/more.txt\n./local\n",
        sub__more_DOT_txt="six  # nested\n-c limits.txt\n",
        sub__limits_DOT_txt="six<2\n",
        local__pyproject_DOT_toml="[project]\nname='local'\nversion='1'\n",
        limpet_DOT_toml="[packages]\npip=['astropy']\nfiles=['requirements.in']\n",
    )
    return folder


def _hash(path: Path, **flags: object) -> str:
    return read_recipe([path], **flags).recipe_sha256  # type: ignore[arg-type]


def test_nested_files_are_relative_to_their_file(project: Path) -> None:
    loaded = read_recipe([project / "requirements.in"])
    names = {source.path.relative_to(project).as_posix() for source in loaded.sources}
    assert names == {"requirements.in", "sub/more.txt", "sub/limits.txt", "local"}
    assert loaded.folder == project
    assert [one.kind for one in loaded.inputs] == ["requirements"]


@pytest.mark.parametrize("changed", ["requirements.in", "sub/more.txt", "sub/limits.txt"])
def test_the_hash_covers_every_file_named(project: Path, changed: str) -> None:
    before = _hash(project / "requirements.in")
    path = project / changed
    path.write_text("# only a comment\n" + path.read_text("utf-8"), "utf-8")
    assert _hash(project / "requirements.in") == before
    path.write_text(path.read_text("utf-8") + "\nattrs\n", "utf-8")
    assert _hash(project / "requirements.in") != before


def test_the_hash_covers_local_trees_but_not_what_tools_leave(project: Path) -> None:
    before = _hash(project / "requirements.in")
    for name in ("__pycache__/x.pyc", "build/y", "local.egg-info/z", "pylock.gpu.toml"):
        left = project / "local" / name
        left.parent.mkdir(exist_ok=True)
        left.write_text("x")
    assert _hash(project / "requirements.in") == before
    _write(project / "local", module_DOT_py="x = 1\n")
    assert _hash(project / "requirements.in") != before


def test_the_hash_depends_on_no_place(project: Path, tmp_path: Path) -> None:
    text = (project / "requirements.in").read_text("utf-8")
    absolute = (project / "local").as_uri()
    (project / "requirements.in").write_text(f"{text}local2 @ {absolute}\n", "utf-8")
    before = _hash(project / "limpet.toml")
    moved = tmp_path / "elsewhere"
    shutil.copytree(project, moved)
    (moved / "requirements.in").write_text(f"{text}local2 @ {(moved / 'local').as_uri()}\n")
    assert _hash(moved / "limpet.toml") == before


def test_the_hash_depends_on_no_secret_and_no_layout(tmp_path: Path) -> None:
    path = tmp_path / "limpet.toml"
    one = "[packages]\npip = ['a', 'b']\nindex_url = 'https://u:one@h/simple'\n"
    other = "# c\npackages = { index_url = 'https://v:two@h/simple', pip = ['a',   'b'] }\n"
    hashes = set()
    for text in (one, other, one + "[run]\ngpu = 'none'\n[env]\nA = '1'\n"):
        path.write_text(text)
        hashes.add(_hash(path))
    assert len(hashes) == 1
    path.write_text(one.replace("'b'", "'c'"))
    assert _hash(path) not in hashes
    path.write_text(one + "[image]\napt = ['libgl1']\n")
    assert _hash(path) not in hashes


def test_secrets_are_kept_for_downloads_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "requirements.in"
    path.write_text("-i https://me:${TOKEN}@h/simple\nx\n")
    loaded = read_recipe([path], environ={"TOKEN": "hunter2"})
    assert loaded.secret_urls == ("https://me:hunter2@h/simple",)
    assert "hunter2" not in repr(loaded)


def test_several_at_once_and_flags(project: Path) -> None:
    _write(
        project,
        pyproject_DOT_toml="[project]\nname='p'\nversion='1'\ndependencies=['x']\n"
        "[project.optional-dependencies]\nPlots=['y']\n[build-system]\nrequires=[]\n",
    )
    flags = Recipe(image=Image(python="3.12"), packages=Packages(extras=("plots",)))
    paths = [project / name for name in ("requirements.in", "pyproject.toml", "limpet.toml")]
    loaded = read_recipe(paths, flags=flags)
    assert loaded.recipe.image.python == "3.12"
    assert loaded.recipe.packages.pip == ("astropy",)
    assert [(one.kind, one.project, one.extras) for one in loaded.inputs] == [
        ("requirements", "", ()),
        ("pyproject", "p", ("plots",)),
    ]


def test_a_script(tmp_path: Path) -> None:
    path = tmp_path / "plot.py"
    path.write_text(
        "# /// script\n# requires-python = '>=3.12'\n# dependencies = ['rich']\n# ///\nprint()\n"
    )
    (one,) = read_recipe([path]).inputs
    assert (one.kind, one.requires_python) == ("script", ">=3.12")
    path.write_text("print()\n")
    with pytest.raises(RecipeError, match="names no packages"):
        read_recipe([path])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.in", None, "There is no recipe"),
        ("latin.in", b"ok\ncaf\xe9\n", "Line 2"),
        ("loop.in", b"-r loop.in\n", "includes itself"),
        ("nested.in", b"-r gone.txt\n", "gone.txt cannot be read"),
        ("local.in", b"a\n./gone\n", "line 2, names"),
        ("limpet.toml", b"[image\n", "line 1, column"),
        ("limpet.toml", b"[packages]\nfiles = ['gone.in']\n", "gone.in cannot be read"),
        ("pyproject.toml", b"[tool.x]\n", "names no packages"),
        ("pyproject.toml", b"project = 'x'\n", "not shaped"),
        ("pyproject.toml", b"[project]\nname='x'\n[tool.uv]\nsources = 3\n", "not shaped"),
        ("uv.lock", b"package = 'x'\n", "not shaped"),
        ("pylock.toml", b"packages = 'x'\n", "no valid pylock"),
        ("environment.yml", b"", "is empty"),
        ("uv.lock", b"version = 1\n", "no pyproject.toml beside it"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_recipe([path])
    assert words in str(caught.value)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a folder"):
        read_recipe([tmp_path])


def test_files_of_other_tools(tmp_path: Path) -> None:
    """Also those that a limpet.toml names; not those that only begin like one."""
    for name in ("poetry.lock", "Pipfile", "Dockerfile.gpu", "gpu.def"):
        (tmp_path / name).write_text("[[package]]\n", "utf-8")
        told = tmp_path / "limpet.toml"
        told.write_text(f"[packages]\nfiles = ['{name}']\n", "utf-8")
        for path in (tmp_path / name, told):
            with pytest.raises(RecipeError, match=f"{name} is another tool's"):
                read_recipe([path])
    for name in ("dockerfile-requirements.txt", "pipfile.in", "Dockerfile.toml"):
        (tmp_path / name).write_text("# nothing\n", "utf-8")
        read_recipe([tmp_path / name])
    with pytest.raises(RecipeError, match=r"There is no recipe .*other\.def"):
        read_recipe([tmp_path / "other.def"])


def test_an_unknown_extra_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text("[project]\nname='p'\nversion='1'\n[dependency-groups]\ndev=[]\n")
    with pytest.raises(RecipeError, match="extra 'nope'"):
        read_recipe([path], flags=Recipe(packages=Packages(extras=("nope",))))
    assert read_recipe([path], flags=Recipe(packages=Packages(groups=("dev",))))


def test_a_local_path_that_a_marker_may_rule_out(tmp_path: Path) -> None:
    path = tmp_path / "r.in"
    path.write_text("./gone ; sys_platform == 'win32'\n")
    assert read_recipe([path]).recipe_sha256


def test_hash_tree_sees_names_modes_and_links(tmp_path: Path) -> None:
    tree = _write(tmp_path / "t", a="1", b__c="2")
    seen = {hash_tree(tree)}
    (tree / "a").chmod(0o755)
    seen.add(hash_tree(tree))
    (tree / "link").symlink_to("a")
    seen.add(hash_tree(tree))
    (tree / "b/c").rename(tree / "b/d")
    seen.add(hash_tree(tree))
    assert len(seen) == 4
