"""Paths that several packages bring: one of them wins, always the same, and it is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from limpet.actions.assemble import open_root
from limpet.core.overlaps import Overlap, parse_distribution, recorded_paths, say_overlaps
from tests.conda.channel import SITE_PACKAGES, Package, write_channel
from tests.conftest import Limpet

BASE = ("--base", "debian:trixie")
REPLACED = f"{SITE_PACKAGES}/replaced"
OLD = Package(
    name="replaced-base",  # not the name of the distribution, as with matplotlib-base
    depends=("python",),
    files={
        f"{REPLACED}/__init__.py": "from .only_old import VALUE\n",
        f"{REPLACED}/only_old.py": "VALUE = 'old'\n",
        f"{SITE_PACKAGES}/replaced-1.0.dist-info/METADATA": (
            "Metadata-Version: 2.1\nName: replaced\nVersion: 1.0\n"
        ),
        f"{SITE_PACKAGES}/replaced-1.0.dist-info/RECORD": (
            "replaced/__init__.py,,\nreplaced/only_old.py,,\n../../../bin/replaced-old,,\n"
        ),
        "bin/replaced-old": "#!/bin/sh\necho old\n",
        "share/replaced-base/not-pips": "kept\n",
    },
)


def packages() -> tuple[Package, ...]:
    one = {f"share/both/{n:02}": f"from one: {n}\n" for n in range(12)}
    two = {f"share/both/{n:02}": f"from two: {n}\n" for n in range(12)}
    same = {"share/same": "alike\n", "lib/libsame.so": "alike\n"}
    return (
        Package(name="one", files={**one, **same, "etc/needed": "needs\n"}, depends=("two",)),
        Package(name="two", files={**two, **same, "etc/needed": "needed\n"}),
        Package(
            name="module-a",
            depends=("python",),
            files={f"{SITE_PACKAGES}/shared_module.py": "VALUE = 'a'\n"},
        ),
        Package(name="module-b", files={f"{SITE_PACKAGES}/shared_module.py": "VALUE = 'b'\n"}),
        OLD,
    )


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_channel(tmp_path / "own", *packages())


def read(image: Path, path: str) -> bytes:
    with image.open("rb") as file:
        return open_root(file).read(path)


def has(image: Path, path: str) -> bool:
    with image.open("rb") as file:
        return open_root(file).find(path) is not None


@pytest.mark.real
def test_the_package_that_is_linked_last_wins_and_it_is_said(
    limpet: Limpet, own: Path, tmp_path: Path
) -> None:
    recipe, image = tmp_path / "environment.yml", tmp_path / "x.sif"
    recipe.write_text(f"channels: ['{own}']\ndependencies: [one, two]\n")
    done = limpet("build", recipe, *BASE, "-o", image)
    assert done.returncode == 0, done.stderr
    # `one` needs `two`, so it is linked after it, as conda and rattler do.
    for n in range(12):
        assert read(image, f"opt/env/share/both/{n:02}") == b"from one: %d\n" % n
    (said,) = [line for line in done.stderr.splitlines() if "both bring" in line]
    assert "two and one both bring /opt/env/etc/needed (and 12 more)" in said
    assert said.endswith(": one wins.")
    assert "same" not in said and "libsame" not in done.stderr
    first = image.read_bytes()
    again = limpet("build", recipe, *BASE, "-o", image, "--force")
    assert "both bring" in again.stderr and image.read_bytes() == first


@pytest.mark.real
def test_byte_code_of_the_module_that_lost_is_not_run(
    limpet: Limpet, own: Path, channel: Path, channel_folder: Path, tmp_path: Path
) -> None:
    """`module-b` needs no Python, so its module has no byte code to go before the other's."""
    recipe, image = tmp_path / "environment.yml", tmp_path / "x.sif"
    recipe.write_text(
        f"channels: ['{own}', '{channel_folder}']\ndependencies: [module-a, module-b]\n"
    )
    done = limpet("build", recipe, *BASE, "-o", image)
    assert done.returncode == 0, done.stderr
    assert "module-a and module-b both bring" in done.stderr
    ran = limpet("run", image, "python", "-c", "import shared_module as m; print(m.VALUE)")
    assert ran.stdout == "b\n", ran.stderr


@pytest.mark.real
def test_nothing_is_installed_twice(
    limpet: Limpet,
    own: Path,
    channel_folder: Path,
    tmp_path: Path,
    make_wheel: Callable[..., Path],
) -> None:
    """A distribution that conda has under a name that says nothing, and pip as well."""
    wheel = make_wheel({"replaced/__init__.py": b"VALUE = 'new'\n"}, name="replaced", version="2.0")
    recipe, image = tmp_path / "environment.yml", tmp_path / "x.sif"
    recipe.write_text(
        f"channels: ['{own}', '{channel_folder}']\n"
        f"dependencies: [replaced-base, {{pip: ['{wheel}']}}]\n"
    )
    done = limpet("build", recipe, *BASE, "-o", image)
    assert done.returncode == 0, done.stderr
    assert "replaced 1.0 of conda's replaced-base gives way to pip's 2.0" in done.stderr
    assert "both bring" not in done.stderr
    text = "import replaced, importlib.metadata as m; print(replaced.VALUE, "
    text += "[d.version for d in m.distributions() if d.name == 'replaced'])"
    ran = limpet("run", image, "python", "-c", text)
    assert ran.stdout == "new ['2.0']\n", ran.stderr
    for gone in (f"{REPLACED}/only_old.py", "bin/replaced-old"):
        assert not has(image, f"opt/env/{gone}")
    assert not has(image, f"opt/env/{REPLACED}/__pycache__/only_old.cpython-313.pyc")
    assert has(image, "opt/env/share/replaced-base/not-pips")


# ---- values --------------------------------------------------------------------------------------


def test_many_are_summed_up() -> None:
    overlaps = [Overlap(path=f"p/{n}", first=f"a{n}", last="b") for n in range(9)]
    lines = say_overlaps(overlaps)
    assert len(lines) == 6
    assert lines[0] == "a0 and b both bring /p/0: b wins."
    assert lines[-1] == "4 more pairs of packages bring the same 4 paths."
    assert say_overlaps([]) == []


@pytest.mark.parametrize(
    ("path", "name", "version"),
    [
        ("o/lib/python3.13/site-packages/Foo_Bar-1.0.dist-info/METADATA", "foo-bar", "1.0"),
        ("o/lib/python3.13/site-packages/foo-1.0-py3.13.egg-info/PKG-INFO", "foo", "1.0"),
        ("o/lib/python3.13/site-packages/foo-1.0.dist-info/RECORD", "", ""),
        ("o/lib/python3.13/site-packages/a/_vendor/foo-1.0.dist-info/METADATA", "", ""),
    ],
)
def test_distributions_by_their_metadata(path: str, name: str, version: str) -> None:
    found = parse_distribution(path)
    assert (found.name, found.version) == (name, version) if found else name == ""


def test_recorded_paths() -> None:
    one = parse_distribution("e/lib/python3.13/site-packages/foo-1.0.dist-info/METADATA")
    assert one
    assert recorded_paths('foo/a.py,sha256=x,3\n"foo/b,c.py",,\n../../../bin/foo,,\n', one) == (
        "e/lib/python3.13/site-packages/foo/a.py",
        "e/lib/python3.13/site-packages/foo/b,c.py",
        "e/bin/foo",
    )
