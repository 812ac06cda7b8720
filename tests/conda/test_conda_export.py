"""What `limpet export` writes is read back by the engine that the other tools are made with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from limpet.actions.conda_lock import CondaAnswer, uses_conda
from limpet.actions.export import export_lock, write_export
from limpet.actions.image_lock import lock_image
from limpet.actions.lock import make_lock
from limpet.actions.lock_files import choose_lock_path, read_lock, write_lock
from limpet.core.conda import CondaPackage, conda_interpreter
from limpet.core.conda_export import FORMS, render_export
from limpet.core.errors import ExistsError, LimpetError, LockError, RecipeError, UsageError
from limpet.core.events import ignore
from limpet.core.facts import BaseFacts
from limpet.core.lock import Artifact, Lock, LockedBase, LockedPackage
from limpet.core.pylock import render_lock
from limpet.core.recipe import Recipe
from limpet.core.request import BuildRequest
from limpet.tools.conda_files import read_foreign_lock
from limpet.tools.recipes import read_recipe
from tests.conda.channel import SUBDIR
from tests.conda.conftest import Solve
from tests.launch.test_images import write as write_image

URL = "https://example.org/packages/six-1.17.0-py2.py3-none-any.whl"
SIX = LockedPackage(
    name="six",
    version="1.17.0",
    artifact=Artifact(kind="wheel", filename=URL.rpartition("/")[2], url=URL, sha256="5" * 64),
)


@pytest.fixture
def lock(solve: Solve, small: Path, facts: BaseFacts) -> Lock:
    """Conda packages and a pip one, as a lock beside its environment.yml."""
    conda = solve(f"channels: ['{small}']\ndependencies: [greeter, numeric]\n").packages
    python = conda_interpreter(conda)
    assert python
    base = LockedBase(reference="debian:trixie", digest="sha256:1", arch=facts.arch)
    return Lock(
        base=base, python=python.version, interpreter=python.path, conda=conda, packages=(SIX,)
    )


def seen(packages: tuple[CondaPackage, ...], folder: Path) -> set[tuple[str, str, str]]:
    return {(one.name, (folder / one.path).as_uri(), one.sha256) for one in packages}


@pytest.mark.parametrize(
    ("form", "name"), [("conda-lock", "conda-lock.yml"), ("pixi", "pixi.lock")]
)
def test_locks_are_read_back_by_the_engine(lock: Lock, here: Path, form: str, name: str) -> None:
    chosen = next(one for one in FORMS if one == form)
    (here / name).write_text(render_export(lock, chosen, folder=here, name="x"), "utf-8")
    locked = read_foreign_lock(here / name, SUBDIR)
    records = {
        (one.name.normalized, Path(one.url.removeprefix("file://")).as_uri(), one.sha256.hex())
        for one in locked.records
    }
    assert {(n, h) for n, _, h in records} == {(n, h) for n, _, h in seen(lock.conda, here)}
    assert [(one.name, one.location, one.sha256) for one in locked.pypi] == [("six", URL, "5" * 64)]


def test_an_explicit_list_is_read_back_by_the_engine(lock: Lock, here: Path) -> None:
    from rattler.explicit_environment import ExplicitEnvironmentSpec

    text = render_export(lock, "conda-explicit", folder=here, name="x")
    spec = ExplicitEnvironmentSpec.from_str(text)
    assert str(spec.platform) == SUBDIR
    got = {tuple(one.url.split("#sha256:")) for one in spec.packages}
    assert got == {(url, sha256) for _, url, sha256 in seen(lock.conda, here)}
    order = [one.url.rpartition("/")[2].split("-")[0] for one in spec.packages]
    assert order.index("python") < order.index("greeter")  # conda links them in this order


@pytest.mark.parametrize("form", ["conda-explicit", "environment", "conda-lock", "pixi"])
def test_a_lock_goes_round(solve: Solve, lock: Lock, here: Path, form: str) -> None:
    """What is exported and read again is the same environment, to the last field."""
    chosen = next(one for one in FORMS if one == form)
    names = {"environment": "again.yml", "conda-lock": "again-lock.yml", "pixi": "pixi.lock"}
    name = names.get(form, "again.txt")
    (here / name).write_text(render_export(lock, chosen, folder=here, name="x"), "utf-8")
    again: CondaAnswer = solve("", name)
    plain = {one.name: one for one in lock.conda}
    for one in again.packages:
        other = plain.pop(one.name)
        assert (one.path, one.sha256, one.depends, one.noarch, one.build, one.build_number) == (
            *(other.path, other.sha256, other.depends, other.noarch),
            *(other.build, other.build_number),
        )
    assert plain == {}
    if form in ("conda-lock", "pixi"):
        assert [(one.name, one.version, one.artifact) for one in again.fixed] == [
            ("six", "1.17.0", SIX.artifact)
        ]
    if form == "environment":
        assert read_recipe([here / name]).recipe.packages.pip == ("six==1.17.0",)


def test_a_lock_of_limpets_own_is_a_recipe(solve: Solve, lock: Lock, here: Path) -> None:
    (here / "locks").mkdir()
    write_lock(lock, here / "pylock.toml")
    (here / "pylock.toml").rename(here / "locks" / "pylock.toml")
    moved = [
        msgspec.structs.replace(one, path=os.path.relpath(here / one.path, here / "locks"))
        for one in lock.conda
    ]
    again = msgspec.structs.replace(lock, conda=tuple(moved))
    (here / "locks" / "pylock.toml").write_text(render_lock(again), "utf-8")
    assert solve("", "locks/pylock.toml").packages == lock.conda
    assert uses_conda(read_recipe([here / "locks" / "pylock.toml"]))


def test_python_packages_of_a_foreign_lock(
    solve: Solve, lock: Lock, here: Path, facts: BaseFacts, tmp_path: Path
) -> None:
    """They are installed as they are locked, but for what conda brings in the same version."""
    greeter = LockedPackage(
        name="greeter",
        version="2.0",
        artifact=msgspec.structs.replace(
            SIX.artifact, url=URL.replace("six-1.17.0", "greeter-2.0")
        ),
    )

    def both(version: str) -> Lock:
        told = msgspec.structs.replace(greeter, version=version)
        full = msgspec.structs.replace(lock, packages=(SIX, told))
        (here / "pixi.lock").write_text(render_export(full, "pixi", folder=here, name="x"))
        conda = solve("", "pixi.lock")
        python = conda_interpreter(conda.packages)
        assert python
        loaded = read_recipe([here / "pixi.lock"])
        return make_lock(
            *(loaded, lock.base, facts, python),
            cache=tmp_path / "cache",
            conda=conda.packages,
            fixed=conda.fixed,
        )

    assert both("2.0").packages == (SIX,)
    with pytest.raises(LockError, match=r"do not fit what conda brings: greeter 2\.0"):
        both("1.0")


def test_requirements(lock: Lock, here: Path) -> None:
    text = render_export(lock, "requirements", folder=here, name="x")
    assert text == f"# Python 3.13.5\nsix==1.17.0 --hash=sha256:{'5' * 64}\n"


def test_what_can_be_exported(lock: Lock, here: Path) -> None:
    recipe = here / "environment.yml"
    with pytest.raises(LockError, match="not locked yet"):
        export_lock(str(recipe), "pixi")
    path = choose_lock_path([recipe])
    assert path == here / "pylock.toml"
    write_lock(lock, path)
    text = export_lock(str(recipe), "conda-explicit")
    assert text == export_lock(str(path), "conda-explicit")
    with pytest.raises(UsageError, match="no file"):
        export_lock(str(here / "missing"), "pixi")
    output = here / "out.txt"
    write_export(text, output, force=False)
    assert output.read_text("utf-8") == text
    with pytest.raises(ExistsError):
        write_export("other", output, force=False)
    assert output.read_text("utf-8") == text
    write_export("other", output, force=True)
    assert output.read_text("utf-8") == "other"


def test_an_image_says_its_lock(lock: Lock, here: Path) -> None:
    image = write_image(here / "a.sif", lock=render_lock(lock).encode())
    assert "numeric=2.1.0=0" in export_lock(str(image), "environment")
    report = lock_image(BuildRequest(freeze=str(image), output=str(here / "f.toml")), ignore)
    assert report.lock == lock == read_lock(here / "f.toml")
    bare = write_image(here / "b.sif", facts=None)
    with pytest.raises(LockError, match="no lock in it"):
        export_lock(str(bare), "environment")


def test_a_lock_without_conda_is_for_pip_alone(lock: Lock, here: Path) -> None:
    pure = msgspec.structs.replace(lock, conda=())
    with pytest.raises(UsageError, match="no conda packages"):
        render_export(pure, "pixi", folder=here, name="x")
    assert "six==1.17.0" in render_export(pure, "requirements", folder=here, name="x")


def _broken(text: str) -> str:
    return text.replace("sha256:", "sha999:", 1).replace("version: ", "version: [", 1)


def _other_platform(text: str) -> str:
    return text.replace(SUBDIR, "osx-arm64")


@pytest.mark.parametrize(
    ("harm", "error", "said"),
    [
        (_broken, RecipeError, "cannot be read as a lock"),
        (_other_platform, LockError, f"has nothing for {SUBDIR}"),
    ],
)
@pytest.mark.parametrize("name", ["conda-lock.yml", "pixi.lock"])
def test_locks_that_do_not_fit(
    solve: Solve,
    lock: Lock,
    here: Path,
    name: str,
    harm: Callable[[str], str],
    error: type[LimpetError],
    said: str,
) -> None:
    form = next(one for one in FORMS if one == ("pixi" if name == "pixi.lock" else "conda-lock"))
    (here / name).write_text(harm(render_export(lock, form, folder=here, name="x")), "utf-8")
    with pytest.raises(error, match=said):
        solve("", name, flags=Recipe())
