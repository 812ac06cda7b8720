from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.pylock import Pylock

from limpet.core.conda import CondaPackage
from limpet.core.errors import LockError
from limpet.core.lock import Artifact, Lock, LockedBase, LockedPackage, find_differences
from limpet.core.pylock import is_own_lock, parse_lock, render_lock

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.from_regex(r"[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,3})?", fullmatch=True)
versions = st.sampled_from(["1.0", "2.3.0a0+vendor", "2026.10.18", "1!2.post1"])
hexes = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
paths = st.from_regex(r"(/|\.\./|)[\w é-]{1,5}(/[\w é-]{1,5})?", fullmatch=True)


def _place(draw: st.DrawFn, filename: str) -> dict[str, str]:
    if draw(st.booleans()):
        return {"url": f"https://host/{draw(hexes)[:6]}/{filename}"}
    return {"path": f"{draw(paths)}/{filename}"}


@st.composite
def packages(draw: st.DrawFn) -> LockedPackage:
    name, version = draw(names), draw(versions)
    kind = draw(st.sampled_from(["wheel", "sdist", "archive", "vcs", "directory"]))
    sha256, subdirectory = draw(hexes), draw(st.sampled_from(["", "sub dir"]))
    size = draw(st.none() | st.integers(0, 2**40))
    fields: dict[str, object]
    if kind in ("wheel", "sdist", "archive"):
        wheel = kind != "sdist"
        filename = (
            f"{name.replace('-', '_')}-{version}{'-py3-none-any.whl' if wheel else '.tar.gz'}"
        )
        fields = {"filename": filename, "sha256": sha256, "size_bytes": size}
        fields |= _place(draw, filename)
        if kind == "archive":
            fields["subdirectory"] = subdirectory
    elif kind == "vcs":
        fields = {"filename": name, "url": "https://host/r.git", "commit": draw(hexes)[:40]}
        fields["subdirectory"] = subdirectory
    else:
        fields = {"filename": name, "path": draw(paths), "sha256": sha256}
        fields["subdirectory"] = subdirectory
        version = draw(st.sampled_from(["", "1.0"]))
    artifact = Artifact(kind=kind, **fields)  # type: ignore[arg-type]
    depends = tuple(draw(st.lists(names, max_size=2, unique=True)))
    return LockedPackage(name=name, version=version, artifact=artifact, dependencies=depends)


@st.composite
def conda_packages(draw: st.DrawFn) -> CondaPackage:
    name, version = draw(names), draw(versions)
    filename = f"{name}-{version}-0.conda"
    place = _place(draw, filename)
    return CondaPackage(
        name=name,
        version=version,
        build=draw(words),
        build_number=draw(st.integers(0, 300)),
        subdir=draw(st.sampled_from(["noarch", "linux-64"])),
        channel=draw(names),
        filename=filename,
        sha256=draw(hexes),
        size_bytes=draw(st.none() | st.integers(0, 2**40)),
        depends=tuple(draw(st.lists(words, max_size=2))),
        noarch=draw(st.sampled_from(["", "python"])),
        url=place.get("url", ""),
        path=place.get("path", ""),
    )


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    some = draw(st.lists(packages(), max_size=4, unique_by=lambda package: package.name))
    return Lock(
        base=LockedBase(
            reference=draw(words),
            digest=f"sha256:{draw(hexes)}",
            arch=draw(st.sampled_from(["x86_64", "aarch64"])),
            packages=tuple(draw(st.lists(words, max_size=2))),
        ),
        python="3.13.5",
        interpreter=draw(words),
        packages=tuple(sorted(some, key=lambda package: package.name)),
        conda=tuple(
            sorted(
                draw(st.lists(conda_packages(), max_size=3, unique_by=lambda one: one.name)),
                key=lambda one: one.name,
            )
        ),
        provided=draw(st.dictionaries(names, versions, max_size=3)),
        apt=tuple(draw(st.lists(words, max_size=2))),
        post_sha256=draw(st.sampled_from(["", "ab"])),
        isolated_from_base=draw(st.booleans()),
        recipe_sha256=draw(hexes),
    )


@given(locks())
@settings(max_examples=40, deadline=None)
def test_every_lock_comes_back(lock: Lock) -> None:
    text = render_lock(lock)
    assert parse_lock(text, "pylock.toml") == lock
    assert render_lock(parse_lock(text, "pylock.toml")) == text
    assert is_own_lock(text)
    read = Pylock.from_dict(tomllib.loads(text))
    assert [package.name for package in read.packages] == [one.name for one in lock.packages]


def _lock(**fields: object) -> Lock:
    base = LockedBase(reference="debian:trixie", digest="sha256:1", arch="x86_64")
    told = {"base": base, "python": "3.13.5", "interpreter": "/p", "recipe_sha256": "r", **fields}
    return Lock(**told)  # type: ignore[arg-type]


def test_credentials_never_reach_the_file() -> None:
    artifact = Artifact(
        kind="wheel",
        filename="a-1-py3-none-any.whl",
        url="https://u:hunter2@h/a-1-py3-none-any.whl",
        sha256="0",
    )
    package = LockedPackage(
        name="a", version="1", artifact=artifact, index="https://u:hunter2@h/simple"
    )
    text = render_lock(_lock(packages=(package,)))
    assert "hunter2" not in text
    assert "https://h/simple" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lock-version = ", "no valid lock"),
        ("a = 1", "no valid lock"),
        ('lock-version = "1.0"\ncreated-by = "uv"\npackages = []', "not written by limpet"),
        ('lock-version = "9.0"\ncreated-by = "uv"\npackages = []', "version"),
        (render_lock(_lock()).replace("version = 1\n", "version = 7\n"), "lock version 7"),
        (render_lock(_lock()).replace("python = ", "pithon = "), "damaged"),
        (render_lock(_lock()).replace('python = "3.13.5"', "python = 3"), "damaged"),
    ],
)
def test_what_is_no_lock_of_limpets(text: str, words: str) -> None:
    with pytest.raises(LockError, match=words):
        parse_lock(text, "pylock.toml")


def test_differences() -> None:
    lock = _lock()
    same = lock.base
    assert find_differences(lock, recipe_sha256="r", base=same, python="3.13") == ()
    assert find_differences(lock, recipe_sha256="r", python="3.13.5") == ()
    assert "recipe" in find_differences(lock, recipe_sha256="x")[0]
    assert "Python 3.13.5, not 3.1" in find_differences(lock, recipe_sha256="r", python="3.1")[0]
    arm = LockedBase(reference="debian:trixie", digest="", arch="aarch64")
    assert find_differences(lock, recipe_sha256="r", base=arm) == (
        "it is for x86_64, and this is for aarch64",
    )
    moved = LockedBase(reference="debian:trixie", digest="sha256:2", arch="x86_64")
    assert "sha256:2" in find_differences(lock, recipe_sha256="r", base=moved)[0]
    other = LockedBase(reference="docker://x", digest="", arch="x86_64")
    assert "docker://x" in find_differences(lock, recipe_sha256="r", base=other)[0]
