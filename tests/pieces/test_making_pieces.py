"""Pieces from real wheels and sources, with a real base."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sysconfig
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from limpet.actions.pieces import make_pieces, open_shelf
from limpet.core.errors import BuildError, FetchError, LimpetError, LockError
from limpet.core.events import Event
from limpet.core.lock import Artifact, Lock, LockedPackage
from limpet.core.piece import Piece
from limpet.formats.squashfs import Entry, Source, Squashfs, compose, write_squashfs
from limpet.tools import process
from limpet.tools.apptainer import Runtime, run_inside

pytestmark = pytest.mark.real
MakeWheel = Callable[..., Path]
SITE = "opt/env/lib/python3.13/site-packages"

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "demo-src"
version = "1.0"
"""
MODULE = b"""
NAMES = {"a", "b", None, (1, 2)}
def pick(word):
    return word in {"one", "two", "three", "four", "five", None, 1.5, (1, 2)}
"""


@pytest.fixture
def cache(tmp_path: Path, cache_dir: Path) -> Path:
    """An empty cache in an awkward place, but for uv's own."""
    folder = tmp_path / "cache é, x"
    folder.mkdir()
    (cache_dir / "uv").mkdir(exist_ok=True)
    (folder / "uv").symlink_to(cache_dir / "uv")
    return folder


class Maker:
    """`make_pieces` for packages on the Debian base."""

    def __init__(self, base: Any, runtime: Runtime, cache: Path, folder: Path) -> None:
        self.base, self.runtime, self.cache, self.folder = base, runtime, cache, folder
        self.events: list[Event] = []

    def __call__(self, *packages: LockedPackage, **options: Any) -> tuple[Piece, ...]:
        python = self.base.interpreter
        lock = Lock(
            base=self.base.locked,
            python=python.version,
            interpreter=python.path,
            packages=packages,
        )
        shelf = open_shelf(
            lock,
            **{
                "lock_folder": self.folder,
                "base_sif": self.base.sif,
                "interpreter": python,
                "arch": self.base.facts.arch,
                "libc": self.base.facts.libc,
                "cache": self.cache,
                "runtime": self.runtime,
                **options,
            },
        )
        return make_pieces(shelf, self.events.append)

    def left_over(self) -> list[Path]:
        """Files that belong to nothing."""
        files = [path for path in self.cache.rglob("*") if path.is_file()]
        passing = [f for f in files if "work" in f.parts and f.name != ".lock"]
        return [*passing, *(f for f in files if "partial" in f.name)]


@pytest.fixture
def make(debian_base: Any, runtime: Runtime, cache: Path, tmp_path: Path) -> Maker:
    return Maker(debian_base, runtime, cache, tmp_path)


def locked(wheel: Path, name: str = "demo", **fields: Any) -> LockedPackage:
    artifact = Artifact(
        kind="wheel",
        filename=wheel.name,
        path=wheel.name,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        size_bytes=wheel.stat().st_size,
    )
    return LockedPackage(
        name=name, version="1.0", artifact=msgspec.structs.replace(artifact, **fields)
    )


def read_piece(piece: Piece) -> set[str]:
    """The paths of all files."""
    with piece.path.open("rb") as file:
        return {path for path, node in Squashfs(file).walk() if node.is_file}


def content(piece: Piece, path: str) -> bytes:
    with piece.path.open("rb") as file:
        return Squashfs(file).read(path)


def test_a_wheel_becomes_a_piece_with_byte_code(make: Maker, make_wheel: MakeWheel) -> None:
    files = {"demo/__init__.py": MODULE, "six.py": b"A = 1\n", "demo/bad.py": b"print 1\n"}
    (piece,) = make(locked(make_wheel(files)))
    found = read_piece(piece)
    cached = [path for path in found if path.endswith(".pyc")]
    assert sorted(cached) == [
        f"{SITE}/__pycache__/six.cpython-313.pyc",
        f"{SITE}/demo/__pycache__/__init__.cpython-313.pyc",
    ]
    pyc = content(piece, f"{SITE}/demo/__pycache__/__init__.cpython-313.pyc")
    assert pyc[:8].hex() == make.base.interpreter.magic + "01000000"
    record = content(piece, f"{SITE}/demo-1.0.dist-info/RECORD").decode().splitlines()
    assert "__pycache__/six.cpython-313.pyc,," in record
    assert "demo/__pycache__/__init__.cpython-313.pyc,," in record
    assert len(record) == len(found)
    assert piece.files == len(found)
    assert piece.size_bytes == piece.path.stat().st_size
    assert make.left_over() == []
    assert make.events[0].kind == "start"
    assert make.events[-1].kind == "end"


def test_a_cached_piece_needs_nothing(
    make: Maker, make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel({"demo/a.py": MODULE})
    packages = [locked(wheel)] * 30
    first = make(packages[0])
    wheel.unlink()
    shutil.rmtree(make.cache / "wheels")
    monkeypatch.setattr(process, "start", None)
    taken_s = []
    for _ in range(5):
        started_s = time.process_time()
        assert make(*packages, offline=True) == first * 30
        taken_s.append(time.process_time() - started_s)
    assert min(taken_s) < 0.03  # the others may have been disturbed


def test_a_damaged_piece_is_made_again(make: Maker, make_wheel: MakeWheel) -> None:
    package = locked(make_wheel({"demo/a.py": MODULE}))
    (piece,) = make(package)
    whole = piece.path.read_bytes()
    piece.path.write_bytes(whole[:4096])
    make(package)
    assert piece.path.read_bytes() == whole


def standard_library(folder: str, count: int) -> dict[str, bytes]:
    """Real code, with all that real code has in it."""
    place = Path(sysconfig.get_path("stdlib")) / folder
    paths = sorted(path for path in place.rglob("*.py") if path.is_file())[:count]
    return {f"demo/{path.relative_to(place)}": path.read_bytes() for path in paths}


def test_the_same_wheel_gives_the_same_bytes(
    make: Maker, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    wheels = [
        make_wheel({**standard_library("", 170), "demo/own.py": MODULE}, name="a"),
        make_wheel(standard_library("email", 40), name="b"),
        make_wheel(standard_library("asyncio", 40), name="c"),
    ]
    packages = [locked(wheel, wheel.name[0]) for wheel in wheels]

    def built(name: str, workers: int, *which: int) -> dict[str, bytes]:
        cache = tmp_path / name
        cache.mkdir()
        made = make(*(packages[n] for n in which), cache=cache, jobs=workers)
        return {piece.name: piece.path.read_bytes() for piece in made}

    together = built("together", 3, 0, 1, 2)
    assert together == built("reversed", 1, 2, 1, 0)
    for number, name in enumerate("abc"):
        assert built(f"alone-{name}", 1, number)[name] == together[name]


def test_the_base_imports_without_compiling(
    make: Maker, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    pieces = make(
        locked(make_wheel({"demo/__init__.py": MODULE, "demo/sub.py": b"from . import *"}))
    )
    image = tmp_path / "image.sqfs"
    skeleton = tmp_path / "skeleton.sqfs"
    python = make.base.interpreter
    config = f"home = {Path(python.path).parent}\ninclude-system-site-packages = false\n"
    with skeleton.open("w+b") as out:
        write_squashfs(
            out,
            [
                Entry("opt/env/bin/python", "symlink", target=python.path),
                Entry("opt/env/pyvenv.cfg", "file", content=config.encode()),
            ],
        )
    with image.open("w+b") as out:
        overlay = [skeleton, *(piece.path for piece in pieces)]
        compose(out, [Source(Squashfs(path.open("rb"))) for path in overlay])
    script = """
import demo.sub, importlib.util
print(demo.__cached__)
print(demo.pick.__code__.co_filename)
print(importlib.util.source_hash(open(demo.__file__, "rb").read())
      == open(demo.__cached__, "rb").read()[8:16])
"""
    # The image goes over the base as `layered` has it, by the runtime itself.
    done = run_inside(
        make.runtime,
        make.base.sif,
        ["/opt/env/bin/python", "-v", "-c", script],
        options=["--overlay", f"{image}:ro"],
    )
    assert done.code == 0, done.stderr
    assert done.text.splitlines() == [
        f"/{SITE}/demo/__pycache__/__init__.cpython-313.pyc",
        f"/{SITE}/demo/__init__.py",
        "True",
    ]
    used = [
        line for line in done.stderr.splitlines() if line.startswith("# code object from '/opt")
    ]
    assert len(used) == 2
    assert all(".pyc" in line for line in used)


# ---- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "what"),
    [
        ({"sha256": "0" * 64}, FetchError, "not the file that was locked"),
        ({"sha256": "0" * 64, "size_bytes": 10**9}, FetchError, "cut short"),
        ({"path": "none.whl"}, FetchError, "cannot be read"),
        ({"path": "", "url": "http://127.0.0.1:1/a.whl"}, FetchError, "cannot be reached"),
        ({"sha256": ""}, LockError, "no hash"),
    ],
)
def test_a_wheel_that_cannot_be_had_leaves_nothing(
    make: Maker,
    make_wheel: MakeWheel,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    error: type[LimpetError],
    what: str,
) -> None:
    monkeypatch.setattr("limpet.tools.download.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("limpet.tools.download.ATTEMPTS", 1)
    with pytest.raises(error, match=what):
        make(locked(make_wheel({"demo/a.py": MODULE}), **fields))
    assert make.left_over() == []
    assert list(make.cache.rglob("*.sqfs")) == list(make.cache.rglob("*.whl")) == []


def test_a_hostile_wheel_stops_the_build_at_once(make: Maker, make_wheel: MakeWheel) -> None:
    good = make_wheel(standard_library("", 170), name="good")
    bad = make_wheel({"bad.py": b""}, name="bad", record={"bad.py": "bad.py,sha256=AAAA,0\n"})
    with pytest.raises(BuildError, match=r"bad-1\.0"):
        make(locked(good, "good"), locked(bad, "bad"))
    assert make.left_over() == []
    assert not [path for path in make.cache.rglob("*.json") if b'"bad"' in path.read_bytes()]


def test_offline_names_all_that_is_missing(make: Maker, make_wheel: MakeWheel) -> None:
    here = locked(make_wheel({"demo/a.py": MODULE}))
    away = [
        locked(make_wheel({}, name=name), name, path="", url=f"http://127.0.0.1:1/{name}")
        for name in ("one", "two")
    ]
    with pytest.raises(FetchError) as caught:
        make(here, *away, offline=True)
    assert "one-1.0-py3-none-any.whl, two-1.0-py3-none-any.whl" in caught.value.what
    assert len(make(here, offline=True)) == 1


# ---- from source ---------------------------------------------------------------------------------


def project(folder: Path, files: dict[str, str]) -> Path:
    for name, text in {"pyproject.toml": PYPROJECT, "demo_src.py": "A = 1\n", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def sdist(folder: Path, files: dict[str, str]) -> LockedPackage:
    path = folder / "demo_src-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(project(folder / "tree", files), "demo_src-1.0")
        info = "Metadata-Version: 2.1\nName: demo-src\nVersion: 1.0\n"
        member = tarfile.TarInfo("demo_src-1.0/PKG-INFO")
        member.size = len(info)
        archive.addfile(member, io.BytesIO(info.encode()))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    artifact = Artifact(kind="sdist", filename=path.name, path=path.name, sha256=sha256)
    return LockedPackage(name="demo-src", version="1.0", artifact=artifact)


def test_an_sdist_is_built_once_in_the_base(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = sdist(tmp_path, {})
    (piece,) = make(package)
    found = read_piece(piece)
    assert f"{SITE}/__pycache__/demo_src.cpython-313.pyc" in found
    assert f"{SITE}/demo_src-1.0.dist-info/direct_url.json" not in found
    monkeypatch.setattr(process, "run", None)
    monkeypatch.setattr(process, "start", None)
    assert make(package) == (piece,)
    assert make.left_over() == []


def test_a_folder_is_copied_and_its_origin_recorded(make: Maker, tmp_path: Path) -> None:
    tree = project(tmp_path / "my project", {})
    before = sorted(tree.rglob("*"))
    artifact = Artifact(kind="directory", filename="", path="my project", sha256="aa")
    package = LockedPackage(name="demo-src", version="1.0", artifact=artifact)
    with pytest.raises(LockError, match="has changed"):
        make(package, hash_directory=lambda folder: "bb")
    (piece,) = make(package, hash_directory=lambda folder: "aa")
    origin = content(piece, f"{SITE}/demo_src-1.0.dist-info/direct_url.json")
    assert msgspec.json.decode(origin) == {"url": "file:./my project", "dir_info": {}}
    assert sorted(tree.rglob("*")) == before


def test_a_commit_is_cloned(make: Maker, tmp_path: Path) -> None:
    version = 'dynamic = ["version"]\n[tool.setuptools_scm]\nroot = ".."\n'
    text = PYPROJECT.replace('version = "1.0"\n', version)
    text = text.replace('"setuptools"]', '"setuptools", "setuptools-scm"]')
    tree = project(tmp_path / "repo" / "sub", {"pyproject.toml": text}).parent
    git = ["git", "-C", str(tree), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    (tree / "sub" / "demo_src.py").write_text("B = 2\n")
    subprocess.run([*git, "commit", "-qam", "two"], check=True)
    artifact = Artifact(
        kind="vcs", filename="", url=f"git+file://{tree}", commit=commit, subdirectory="sub"
    )
    (piece,) = make(LockedPackage(name="demo-src", version="1.0", artifact=artifact))
    assert content(piece, f"{SITE}/demo_src.py") == b"A = 1\n"
    origin = content(piece, f"{SITE}/demo_src-1.0.dist-info/direct_url.json")
    assert msgspec.json.decode(origin)["vcs_info"]["commit_id"] == commit


def test_a_missing_compiler_is_named(make: Maker, tmp_path: Path) -> None:
    setup = (
        "from setuptools import Extension, setup\nsetup(ext_modules=[Extension('_c', ['_c.c'])])\n"
    )
    package = sdist(tmp_path, {"setup.py": setup, "_c.c": "int x;\n", "MANIFEST.in": "include *.c"})
    with pytest.raises(BuildError, match=r"demo-src 1\.0 could not be built") as caught:
        make(package)
    assert "no compiler" in caught.value.why
    assert 'apt = ["build-essential"]' in caught.value.now
    assert make.left_over() == []


def test_a_failing_build_shows_its_last_lines(make: Maker, tmp_path: Path) -> None:
    setup = "raise SystemExit('no luck with https://user:secret@example.org/simple')\n"
    with pytest.raises(BuildError) as caught:
        make(sdist(tmp_path, {"setup.py": setup}))
    assert "no luck with https://***@example.org/simple" in caught.value.why
    assert len(caught.value.why.splitlines()) <= 15
    assert "secret" not in str(caught.value)
