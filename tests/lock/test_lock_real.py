"""uv for real, against a small index on loopback; once against the real package index."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from limpet.actions.freeze import freeze_distributions
from limpet.actions.lock import make_lock
from limpet.actions.lock_files import check_lock, choose_lock_path, fits, read_lock, write_lock
from limpet.core.errors import ExistsError, FetchError, LimpetError, LockError, RecipeError
from limpet.core.facts import BaseFacts, Distribution, Interpreter, Libc
from limpet.core.lock import Lock, LockedBase
from limpet.core.pylock import render_lock
from limpet.core.recipe import Image, Packages, Recipe
from limpet.tools.files import hash_file
from limpet.tools.process import run
from limpet.tools.recipes import read_recipe
from limpet.tools.uv import uv_program

from .loopback_index import Index, make_wheel

pytestmark = pytest.mark.real

Locker = Callable[..., Lock]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe's folder with a space and an umlaut; the host's own uv settings do not count."""
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("UV_CREDENTIALS_DIR", str(tmp_path / "credentials"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    folder = tmp_path / "my prüject"
    folder.mkdir()
    return folder


@pytest.fixture
def lock_it(
    here: Path,
    index: Index,
    cache: Path,
    base: LockedBase,
    facts: BaseFacts,
    interpreter: Interpreter,
    monkeypatch: pytest.MonkeyPatch,
) -> Locker:
    """Lock requirement text, or the named descriptions, against the small index."""

    def locker(
        text: str = "",
        *names: str,
        python: Interpreter = interpreter,
        facts: BaseFacts = facts,
        flags: Recipe | None = None,
        **options: object,
    ) -> Lock:
        if "UV_DEFAULT_INDEX" not in os.environ:
            monkeypatch.setenv("UV_DEFAULT_INDEX", index.simple)
        if text:
            (here / "requirements.in").write_text(text, "utf-8")
        paths = [here / name for name in (*(["requirements.in"] if text else []), *names)]
        loaded = read_recipe(paths, flags=flags)
        return make_lock(loaded, base, facts, python, cache=cache, **options)  # type: ignore[arg-type]

    return locker


def _versions(lock: Lock) -> dict[str, str]:
    return {package.name: package.version for package in lock.packages}


def test_one_fitting_artifact_each(lock_it: Locker, index: Index) -> None:
    sha256 = index.add("num", "2.0", "six-ish>=1", tag="cp313-cp313-manylinux_2_28_x86_64")
    index.add("num", "2.0", "six-ish>=1", tag="cp313-cp313-win_amd64")
    index.add("num", "2.0", "six-ish>=1", tag="cp312-cp312-manylinux_2_28_x86_64")
    index.add("num", "2.0", "six-ish>=1", tag="cp313-cp313-musllinux_1_2_x86_64")
    index.add("six_ish", "1.0")
    lock = lock_it("num\n")
    num, six = lock.packages
    assert num.artifact.filename == "num-2.0-cp313-cp313-manylinux_2_28_x86_64.whl"
    assert (num.artifact.kind, num.artifact.sha256) == ("wheel", sha256)
    assert num.artifact.url == f"{index.url}/files/{num.artifact.filename}"
    assert six.name == "six-ish"


def test_the_libc_decides(lock_it: Locker, index: Index) -> None:
    index.add("num", "2.0", tag="cp313-cp313-manylinux_2_40_x86_64")
    index.add("num", "1.0", tag="cp313-cp313-manylinux_2_17_x86_64")
    old = BaseFacts(digest="d", arch="x86_64", libc=Libc(family="glibc", version="2.28"))
    assert _versions(lock_it("num")) == {"num": "2.0"}
    with pytest.raises(LockError, match=r"glibc 2\.28") as caught:
        lock_it("num>=2", facts=old)
    assert "manylinux_2_40_x86_64" in str(caught.value)


def test_an_unchanged_recipe_gives_the_same_bytes_and_keeps_versions(
    lock_it: Locker, index: Index, here: Path, base: LockedBase, interpreter: Interpreter
) -> None:
    index.add("one", "1.0")
    index.add("two", "1.0")
    first = lock_it("one\ntwo\n")
    assert render_lock(lock_it("one\ntwo\n", previous=first)) == render_lock(first)
    index.add("one", "2.0")
    index.add("two", "2.0")
    kept = lock_it("one\ntwo\n", previous=first)
    assert render_lock(kept) == render_lock(first)
    some = lock_it("one\ntwo\n", previous=first, upgrade_packages=("two",))
    assert _versions(some) == {"one": "1.0", "two": "2.0"}
    assert _versions(lock_it("one\ntwo\n", previous=first, upgrade=True)) == {
        "one": "2.0",
        "two": "2.0",
    }
    loaded = read_recipe([here / "requirements.in"])
    assert fits(first, loaded, base=base, interpreter=interpreter)
    (here / "requirements.in").write_text("one\n")
    changed = read_recipe([here / "requirements.in"])
    assert not fits(first, changed)
    with pytest.raises(LockError, match="does not fit") as caught:
        check_lock(first, changed)
    assert "changed since" in str(caught.value)


def test_a_lock_is_installed_by_uv_itself(
    lock_it: Locker, index: Index, here: Path, tmp_path: Path
) -> None:
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    host = Interpreter(path="/p", version=f"{minor}.0", prefix="/", magic="")
    index.add("one", "1.0", "two")
    index.add("two", "2.0")
    _project(here / "local")
    lock = lock_it("one\n./local\n", python=host)
    path = choose_lock_path([here / "requirements.in"])
    assert path == here / "pylock.toml"
    write_lock(lock, path)
    assert read_lock(path) == lock
    words: list[str | Path] = [
        "pip",
        "install",
        "--dry-run",
        "--python",
        sys.executable,
        "-r",
        path,
    ]
    words += ["--target", tmp_path / "target", "--cache-dir", tmp_path / "c"]
    done = run([uv_program(), *words], cwd=here)
    assert done.code == 0, done.stderr
    assert "+ one==1.0" in done.stderr and "+ local" in done.stderr


def test_a_foreign_lock_is_never_written_over(lock_it: Locker, index: Index, here: Path) -> None:
    index.add("one", "1.0")
    lock = lock_it("one\n")
    path = here / "pylock.toml"
    foreign = 'lock-version = "1.0"\ncreated-by = "x"\npackages = []\n'
    path.write_text(foreign)
    with pytest.raises(ExistsError):
        write_lock(lock, path)
    assert path.read_text() == foreign
    with pytest.raises(LockError, match="not written by limpet"):
        read_lock(path)


@pytest.mark.parametrize(
    ("name", "lock_name"),
    [
        ("requirements.txt", "pylock.toml"),
        ("limpet.toml", "pylock.toml"),
        ("uv.lock", "pylock.toml"),
        ("gpu.in", "pylock.gpu.toml"),
        ("limpet.gpu.v2.toml", "pylock.gpu-v2.toml"),
        ("requirements-dev.txt", "pylock.requirements-dev.toml"),
        ("pylock.toml", "pylock.limpet.toml"),
        ("pylock.x.toml", "pylock.x-limpet.toml"),
        ("plot.py", "pylock.plot.toml"),
    ],
)
def test_where_the_lock_lies(tmp_path: Path, name: str, lock_name: str) -> None:
    assert choose_lock_path([tmp_path / name]) == tmp_path / lock_name


def test_private_indexes(
    lock_it: Locker, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("secretive", "1.0")
    index.user, index.password = "bob", "hunter2"
    with pytest.raises(FetchError, match="refuses access") as caught:
        lock_it("secretive\n")
    assert caught.value.now
    with pytest.raises(FetchError) as caught:
        lock_it(f"-i {index.with_user('bob', 'wrongpw')}\nsecretive\n")
    assert "wrongpw" not in str(caught.value)
    in_url = lock_it(f"-i {index.with_user('bob', 'hunter2')}\nsecretive\n")
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.with_user("bob", "hunter2"))
    in_variable = lock_it("secretive\n")
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.simple)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login bob password hunter2\n")
    in_netrc = lock_it("secretive\n")
    for lock in (in_url, in_variable, in_netrc):
        assert _versions(lock) == {"secretive": "1.0"}
        assert "hunter2" not in render_lock(lock)
    direct = f"{index.url}/files/secretive-1.0-py3-none-any.whl".replace("//", "//bob:hunter2@")
    lock = lock_it(f"secretive @ {direct}\n")
    assert lock.packages[0].artifact.kind == "archive"
    assert "hunter2" not in render_lock(lock)


def test_limpet_toml_says_the_index(
    lock_it: Locker, index: Index, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    index.add("one", "1.0")
    index.add("one", "2.0")
    (here / "limpet.toml").write_text(
        f"[packages]\npip = ['one']\nconstraints = ['one<2']\nindex_url = '{index.simple}'\n"
    )
    assert _versions(lock_it("", "limpet.toml")) == {"one": "1.0"}


def test_hashes_that_the_recipe_demands(lock_it: Locker, index: Index) -> None:
    sha256 = index.add("one", "1.0")
    assert lock_it(f"one==1.0 --hash=sha256:{sha256}\n").packages
    with pytest.raises(LockError, match="hash that the recipe allows"):
        lock_it(f"one==1.0 --hash=sha256:{'0' * 64}\n")


def test_an_index_without_hashes(lock_it: Locker, index: Index) -> None:
    sha256 = index.add("one", "1.0")
    index.with_hashes = False
    lock = lock_it("one\n", hash_of=lambda url: sha256)
    assert lock.packages[0].artifact.sha256 == sha256


def test_find_links_and_local_wheels(
    lock_it: Locker, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = here / "my links"
    links.mkdir()
    wheel = links / "near-1.0-py3-none-any.whl"
    wheel.write_bytes(make_wheel("near", "1.0"))
    lock = lock_it("--find-links './my links'\n--no-index\nnear\n")
    (near,) = lock.packages
    assert near.artifact.path == "my links/near-1.0-py3-none-any.whl"
    assert near.artifact.sha256 == hash_file(wheel)
    monkeypatch.chdir(here)
    flags = Recipe(packages=Packages(pip=("near",), find_links=("my links",)))
    assert lock_it("", flags=flags).packages == lock.packages


def _project(folder: Path, name: str = "local", build: bool = True, more: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text("x = 1\n")
    text = f'[project]\nname = "{name}"\nversion = "1.0"\n{more}'
    if build:
        text += '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    (folder / "pyproject.toml").write_text(text)


def test_local_projects_are_never_linked(lock_it: Locker, index: Index, here: Path) -> None:
    index.add("dep", "1.0")
    _project(here / "local", more='dependencies = ["dep"]\n')
    plain = lock_it("./local\n")
    linked = lock_it("-e ./local\n")
    assert plain.packages == linked.packages
    local = next(one for one in plain.packages if one.name == "local")
    assert (local.artifact.kind, local.artifact.path) == ("directory", "local")
    assert "editable" not in render_lock(linked)
    assert _versions(plain)["dep"] == "1.0"


def test_pyproject_with_extras_and_groups(lock_it: Locker, index: Index, here: Path) -> None:
    for name in ("dep", "extra", "group"):
        index.add(name, "1.0")
    more = (
        'dependencies = ["dep"]\n[project.optional-dependencies]\nx = ["extra"]\n'
        '[dependency-groups]\ng = ["group"]\n'
    )
    flags = Recipe(packages=Packages(extras=("x",), groups=("g",)))
    for build in (True, False):
        _project(here, build=build, more=more)
        expected = {"dep", "local"} if build else {"dep"}
        assert set(_versions(lock_it("", "pyproject.toml"))) == expected
        everything = lock_it("", "pyproject.toml", flags=flags)
        assert set(_versions(everything)) == {*expected, "extra", "group"}


def test_uv_lock_for_a_python_that_the_host_has_not(
    lock_it: Locker, index: Index, here: Path, interpreter: Interpreter
) -> None:
    index.add("dep", "1.0")
    index.add("windows", "1.0")
    more = (
        'requires-python = ">=3.8"\ndependencies = ["dep", "windows; sys_platform == \'win32\'"]\n'
    )
    _project(here, build=False, more=more)
    words = ["lock", "--python", sys.executable, "--default-index", index.simple, "--quiet"]
    done = run([uv_program(), *words], cwd=here)
    assert done.code == 0, done.stderr
    for name in ("uv.lock", "pyproject.toml"):
        text = (here / name).read_text().replace(">=3.8", ">=3.13.1")
        (here / name).write_text(text)
    index.add("dep", "2.0")
    index.add("beside", "1.0", "dep")
    assert _versions(lock_it("", "uv.lock")) == {"dep": "1.0"}
    assert _versions(lock_it("beside\n", "uv.lock")) == {"beside": "1.0", "dep": "1.0"}
    older = Interpreter(path="/p", version="3.12.1", prefix="/", magic="")
    with pytest.raises(LockError, match=r"requires Python >=3\.13\.1"):
        lock_it("", "uv.lock", python=older)


def test_a_foreign_pylock_is_a_recipe(lock_it: Locker, index: Index, here: Path) -> None:
    index.add("one", "1.0")
    index.add("one", "2.0")
    first = lock_it("one<2\n")
    text = render_lock(first).split("[tool.limpet]")[0]
    (here / "pylock.toml").write_text(text)
    index.asked.clear()
    again = lock_it("", "pylock.toml")
    assert again.packages == first.packages
    assert index.asked == []
    (here / "pylock.toml").write_text(text.replace("py3-none-any", "cp39-cp39-win32"))
    with pytest.raises(LockError, match=r"has no wheel for Python 3\.13\.5") as caught:
        lock_it("", "pylock.toml")
    assert "cp39-cp39-win32" in caught.value.why


def test_git_is_pinned_to_a_commit(lock_it: Locker, here: Path) -> None:
    _project(here / "repository", name="gitted")
    git: list[str | Path] = [
        "git",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-C",
        here / "repository",
    ]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        assert run([*git, *words]).code == 0
    commit = run([*git, "rev-parse", "HEAD"]).text.strip()
    url = (here / "repository").as_uri()
    (gitted,) = lock_it(f"gitted @ git+{url}\n").packages
    assert (gitted.artifact.kind, gitted.artifact.commit) == ("vcs", commit)


def test_on_a_vendor_image(lock_it: Locker, index: Index, vendor: Interpreter) -> None:
    index.add("lightning", "1.0", "torch>=2.0", "lp-numbers")
    index.add("torch", "2.9.0")
    index.add("lp_numbers", "2.0")
    lock = lock_it("lightning\ntorch\n", python=vendor)
    assert _versions(lock) == {"lightning": "1.0"}
    assert lock.provided == {
        "lp-filelock": "3.13.1",
        "lp-numbers": "1.24.4",
        "torch": "2.3.0a0+vendor",
    }
    assert "stubs" not in render_lock(lock)
    with pytest.raises(LockError, match=r"torch 2\.3\.0a0\+vendor") as caught:
        lock_it("torch>=2.4\n", python=vendor)
    assert "--isolated-from-base" in caught.value.now
    isolated = lock_it(
        "lightning\n", python=vendor, flags=Recipe(image=Image(isolated_from_base=True))
    )
    assert _versions(isolated) == {"lightning": "1.0", "torch": "2.9.0", "lp-numbers": "2.0"}
    assert isolated.provided == {} and isolated.isolated_from_base


def test_a_given_lock_against_a_vendor_image(
    lock_it: Locker, index: Index, here: Path, vendor: Interpreter
) -> None:
    index.add("torch", "2.9.0")
    text = render_lock(lock_it("torch\n")).split("[tool.limpet]")[0]
    (here / "pylock.toml").write_text(text)
    with pytest.raises(LockError, match="what the base already has: torch"):
        lock_it("", "pylock.toml", python=vendor)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("no-such-thing\n", LockError, "No package index has no-such-thing"),
        ("one>=5\n", LockError, "only one==1.0 is available"),
        ("one==\n", RecipeError, "Couldn't parse"),
        ("one\n-i http://127.0.0.1:9/simple\n", FetchError, "cannot be reached"),
    ],
)
def test_bad_input(
    lock_it: Locker, index: Index, text: str, kind: type[LimpetError], words: str
) -> None:
    index.add("one", "1.0")
    with pytest.raises(kind, match=words):
        lock_it(text)


def test_offline(lock_it: Locker, index: Index, cache: Path) -> None:
    index.add("one", "1.0")
    with pytest.raises(FetchError, match="not in the cache"):
        lock_it("one\n", offline=True)
    first = lock_it("one\n")
    assert lock_it("one\n", offline=True) == first
    assert [path.name for path in (cache / "work").iterdir()] == [".lock"]


def test_freeze(
    here: Path,
    index: Index,
    cache: Path,
    base: LockedBase,
    facts: BaseFacts,
    interpreter: Interpreter,
) -> None:
    sha256 = index.add("one", "1.0", "two")
    index.add("one", "2.0")
    direct = index.add("far", "1.0")
    found = (Distribution(name="One", version="1.0"), Distribution(name="pip", version="24"))
    far = (Distribution(name="far", version="1.0"),)

    def freeze(distributions: tuple[Distribution, ...]) -> Lock:
        return freeze_distributions(
            distributions,
            base,
            facts,
            interpreter,
            cache=cache,
            folder=here,
            direct_urls={"far": {"url": f"{index.url}/files/far-1.0-py3-none-any.whl"}},
            options=(f"--index-url {index.simple}",),
        )

    lock = freeze(found + far)
    assert [(one.name, one.artifact.sha256) for one in lock.packages] == [
        ("far", direct),
        ("one", sha256),
    ]
    unknown = (Distribution(name="own", version="1"), Distribution(name="one", version="9"))
    with pytest.raises(LockError, match="in no package index") as caught:
        freeze(far + unknown)
    assert caught.value.why == "one==9\nown==1"


def test_against_the_real_package_index(
    tmp_path: Path, cache: Path, base: LockedBase, facts: BaseFacts, interpreter: Interpreter
) -> None:
    (tmp_path / "requirements.in").write_text("astropy\n")
    loaded = read_recipe([tmp_path / "requirements.in"])
    lock = make_lock(loaded, base, facts, interpreter, cache=cache)
    assert {"astropy", "numpy", "pyerfa"} <= set(_versions(lock))
    for package in lock.packages:
        assert package.artifact.kind == "wheel"
        assert len(package.artifact.sha256) == 64
