"""The module archive as values: what its finder finds is what Python's own finder finds."""

from __future__ import annotations

import importlib.util
import marshal
import os
import pkgutil
import subprocess
import sys
from importlib.machinery import FileFinder, SourceFileLoader
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.core.module_archive import (
    ARCHIVE,
    FOLDER,
    INDEX,
    LAYER_VARIABLES,
    MOUNT_VARIABLES,
    VARIABLE,
    Modules,
    covers,
    plan_modules,
    read_modules,
    render_index,
)

SCRIPT = Path(__file__).parents[2] / "src/limpet/base_scripts/module_archive.py"
TAG = sys.implementation.cache_tag or ""
BLOCK = 4096
KEY = "0123"
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


class Built:
    """A folder of modules with an archive of their byte code, as an image has one."""

    def __init__(self, top: Path, sources: dict[str, str], left_out: tuple[str, ...] = ()) -> None:
        self.top = top / "site"
        self.folder = top / "own"
        self.folder.mkdir(parents=True)
        self.top.mkdir()
        places: dict[str, tuple[int, int]] = {}
        data = b""
        for name, text in sources.items():
            path = self.top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if name.endswith(".py") and name not in left_out:
                code = byte_code(path)
                if len(data) % BLOCK + len(code) > BLOCK:
                    data += bytes(-len(data) % BLOCK)
                compiled = importlib.util.cache_from_source(str(path))
                places[compiled] = len(data), len(code)
                data += code
        self.index = render_index(places, listed, key=KEY, tag=TAG, block_bytes=BLOCK)
        (self.folder / "modules").write_bytes(data + bytes(-len(data) % BLOCK))
        (self.folder / "modules.index").write_bytes(self.index)

    def hook(self) -> str:
        """The hook's text, for this folder."""
        return SCRIPT.read_text().replace(f'FOLDER = "{FOLDER}"', f"FOLDER = {str(self.folder)!r}")

    def module(self) -> ModuleType:
        """The hook as a module that has not been installed."""
        text = self.hook().replace("\ninstall(os.environ[VARIABLE])\n", "")
        assert text != self.hook()
        module = ModuleType("hook")
        exec(compile(text, "hook", "exec"), vars(module))
        return module

    def run(self, code: str, *flags: str, key: str = KEY) -> str:
        """A program of a Python of its own that was told of the archive."""
        hook = self.folder / "_limpet_modules.py"
        hook.write_text(self.hook())
        start = f"import sys; sys.path[:0] = [{str(self.top)!r}]\n"
        start += f"import importlib.util as u; s = u.spec_from_file_location('h', {str(hook)!r})\n"
        start += "m = u.module_from_spec(s); s.loader.exec_module(m)\n"
        done = subprocess.run(
            [sys.executable, *flags, "-c", start + code],
            env={"LIMPET_MODULES": key, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def byte_code(path: Path) -> bytes:
    source = path.read_bytes()
    code = compile(source, str(path), "exec", dont_inherit=True)
    return MAGIC_NUMBER + b"\1\0\0\0" + source_hash(source) + marshal.dumps(code)


def listed(folder: str) -> dict[str, str]:
    found = {}
    if Path(folder).is_dir():
        for path in Path(folder).iterdir():
            if path.is_dir() or path.is_file():
                found[path.name] = "dir" if path.is_dir() else "file"
    return found


WORDS = st.sampled_from(["a", "b", "c", "d-e", "é"])
FILES = st.one_of(
    WORDS.map(lambda word: f"{word}.py"),
    WORDS.map(lambda word: f"{word}{SUFFIX}"),
    WORDS.map(lambda word: f"{word}.abi3.so"),
    WORDS.map(lambda word: f"{word}.cpython-36-x.so"),
    WORDS.map(lambda word: f"{word}.pyc"),
    st.sampled_from(
        ["__init__.py", f"__init__{SUFFIX}", "__init__.pyc", "data.txt", "a-1.0.dist-info"]
    ),
)
PATHS = st.lists(WORDS, max_size=2).flatmap(
    lambda folders: FILES.map(lambda name: "/".join([*folders, name]))
)


@settings(max_examples=150, deadline=None)
@given(st.sets(PATHS, min_size=1, max_size=14), st.data())
def test_it_finds_what_python_finds(
    tmp_path_factory: pytest.TempPathFactory, paths: set[str], data: st.DataObject
) -> None:
    sources = {path: f"name = {path!r}\n" for path in sorted(paths)} | {"there.py": ""}
    modules = [path for path in sources if path.endswith(".py") and path != "there.py"]
    left_out = data.draw(st.sets(st.sampled_from(modules)) if modules else st.just(set()))
    built = Built(tmp_path_factory.mktemp("t"), sources, tuple(left_out))
    hook = built.module()
    archive = hook.Archive(KEY)
    for folder in archive.folders:
        mine = archive.finder(folder)
        assert type(mine) is FileFinder
        own = FileFinder(folder, *hook.external._get_supported_file_loaders())
        for word in ("a", "b", "c", "d-e", "é", "there", "site", "__init__", "data", "none"):
            same_spec(mine.find_spec(f"x.{word}"), own.find_spec(f"x.{word}"))
        infos = [(i.name, i.ispkg) for i in pkgutil.iter_modules([folder])]
        sys.path_importer_cache[folder] = mine
        try:
            assert [(i.name, i.ispkg) for i in pkgutil.iter_modules([folder])] == infos
        finally:
            del sys.path_importer_cache[folder]
    for name in modules:
        path = str(built.top / name)
        code = archive.find_code(path)
        assert (code is None) == (name in left_out)
        if code is not None:
            spec = archive.make_spec(SourceFileLoader, "x", path, None)
            assert spec.loader.get_code("x") == SourceFileLoader("x", path).get_code("x")


def same_spec(mine: Any, own: Any) -> None:
    assert (mine is None) == (own is None)
    if own is None:
        return
    for name in ("name", "origin", "cached", "has_location"):
        assert getattr(mine, name) == getattr(own, name)
    assert mine.submodule_search_locations == own.submodule_search_locations
    assert type(mine.loader) is type(own.loader)
    assert getattr(mine.loader, "path", "") == getattr(own.loader, "path", "")


TREE = {
    "top.py": "import tree.used\nvalue = tree.used.answer\n",
    "tree/__init__.py": "",
    "tree/used.py": "def ask():\n    return 42\n\n\nanswer = ask()\n",
    "tree/late.py": "raise RuntimeError('on purpose')\n",
}
# As if it had been changed behind the archive's back: shows which of the two was read.
SHOW = "import top, tree.used; print(top.value, 'get_code' in vars(tree.used.__loader__))"


def changed(built: Built) -> None:
    (built.top / "tree/used.py").write_text("answer = 43\n")


def test_programs_import_from_it(tmp_path: Path) -> None:
    built = Built(tmp_path, TREE)
    changed(built)
    assert built.run(SHOW) == "42 True"
    # What shows a module's source reads the file, as ever.
    assert built.run("import inspect, tree.used; print(inspect.getsource(tree.used))") == (
        "answer = 43"
    )
    failing = "import traceback\ntry: import tree.late\n"
    said = built.run(failing + "except RuntimeError: traceback.print_exc(file=sys.stdout)")
    assert str(built.top / "tree/late.py") in said and "on purpose" in said
    assert built.run("import tree; print(tree.__spec__.cached == tree.__cached__)") == "True"


@pytest.mark.parametrize(
    ("flags", "key"),
    [(("-O",), KEY), ((), "of another image"), (("--check-hash-based-pycs", "always"), KEY)],
)
def test_it_stands_aside(tmp_path: Path, flags: tuple[str, ...], key: str) -> None:
    built = Built(tmp_path, TREE)
    changed(built)
    assert built.run("import top; print(top.value)", *flags, key=key) == "43"


def test_earlier_folders_win(tmp_path: Path) -> None:
    built = Built(tmp_path, TREE)
    (tmp_path / "first/tree").mkdir(parents=True)
    (tmp_path / "first/tree/__init__.py").write_text("")
    (tmp_path / "first/tree/used.py").write_text("answer = 1\n")
    first = f"sys.path[:0] = [{str(tmp_path / 'first')!r}]; "
    assert built.run(first + "import top; print(top.value)") == "1"


@pytest.mark.parametrize("harm", ["index", "cut", "gone", "other"])
def test_what_is_damaged_is_not_used(tmp_path: Path, harm: str) -> None:
    built = Built(tmp_path, TREE)
    changed(built)
    place = built.folder / ("modules.index" if harm == "index" else "modules")
    if harm == "gone":
        place.unlink()
    elif harm == "other":
        place.write_bytes(bytes(len(place.read_bytes())))
    else:
        place.write_bytes(place.read_bytes()[:9])
    assert built.run("import top; print(top.value)") == "43"


def test_closing_all_files_does_not_harm(tmp_path: Path) -> None:
    built = Built(tmp_path, TREE)
    changed(built)
    code = "import os, tree; os.closerange(3, 100); import top; print(top.value)"
    assert built.run(code) == "42"


def test_byte_code_of_another_python_is_none_of_it() -> None:
    places = {"/s/__pycache__/a.cpython-36.pyc": (0, 5), "/s/b.pyc": (5, 5)}
    assert render_index(places, listed, key=KEY, tag="cpython-313", block_bytes=BLOCK) == b""


def test_what_a_start_must_know(tmp_path: Path) -> None:
    built = Built(tmp_path, TREE)
    assert read_modules(built.index) == Modules(key=KEY, folders=(str(built.top),))


MODULES = Modules(key=KEY, folders=("/opt/env/lib/python3.13/site-packages", "/usr/lib/python3"))


def plan(**changes: Any) -> dict[str, str]:
    told: dict[str, Any] = {
        "modules": MODULES,
        "is_whole": True,
        "targets": ["/home/me", "/.limpet/home"],
        "session": {},
    }
    return plan_modules(**(told | changes))


def test_starts_name_the_image() -> None:
    assert plan() == {VARIABLE: KEY}
    assert plan(session={"APPTAINER_BIND": "/data,/scratch:/usr/share/x"}) == {VARIABLE: KEY}
    assert plan(modules=None) == {}
    assert plan(is_whole=False) == {}


@pytest.mark.parametrize(
    "target",
    [
        "/usr",
        "/usr/lib/python3",
        "/usr/lib/python3/x.py",
        "/opt/env/lib/python3.13/site-packages/numpy/",
        "/opt",
    ],
)
def test_not_where_something_lies_over_it(target: str) -> None:
    assert plan(targets=[target]) == {}


@pytest.mark.parametrize("name", LAYER_VARIABLES)
def test_not_where_the_session_lays_something_over_all(name: str) -> None:
    assert plan(session={name: "1"}) == {}


@pytest.mark.parametrize("name", MOUNT_VARIABLES)
def test_not_where_the_session_mounts_something_over_it(name: str) -> None:
    assert plan(session={name: "/data,/home/me/x.py:/usr/lib/python3/x.py:ro"}) == {}


def test_covering() -> None:
    assert covers("/", "/usr/lib") and covers("/usr/lib/a", "/usr/lib") and covers("/usr", "/usr")
    assert not covers("/usr/lib2", "/usr/lib") and not covers("/us", "/usr/lib")


def test_both_ends_mean_the_same_files() -> None:
    text = SCRIPT.read_text()
    assert f'FOLDER = "{FOLDER}"' in text and f'VARIABLE = "{VARIABLE}"' in text
    assert f"{FOLDER}/modules" == ARCHIVE and '"/modules"' in text
    assert f"{FOLDER}/modules.index" == INDEX and '"/modules.index"' in text
