"""What is planned for personal packages, as values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from limpet.core.carry import ImageInside, plan_carry
from limpet.core.errors import HostError, RecipeError, SpaceError
from limpet.core.homes import INSIDE, Home
from limpet.core.mounts import Mount
from limpet.core.personal import HOOK_TEXT, KIT, PACKAGES, PipSeen, plan_personal
from limpet.core.recipe import HomePolicy
from limpet.core.state import PersonalPackage, Record, parse_age
from limpet.tools import personal, states
from limpet.tools.host import make_private
from limpet.tools.recipe_edit import change_recipe_text

HOME = Home(start="/home/u", variables={"PYTHONUSERBASE": f"{INSIDE}/.local"})
PIP = PipSeen(kit="/s/.pip/1", config="/etc/pip.conf", certificates="/ca.pem")


@pytest.mark.parametrize("policy", ["isolated", "private", "host"])
def test_our_images_have_a_folder(policy: HomePolicy) -> None:
    plan = plan_personal(policy, prefix="/opt/env", home=HOME, state="/s/a", pip=PIP, path="/mine")
    assert Mount(source="/s/a/packages", target=PACKAGES) in plan.mounts
    assert Mount(source="/s/.pip/1", target=KIT, writable=False) in plan.mounts
    assert plan.variables["LIMPET_PACKAGES"] == PACKAGES
    assert plan.variables["PREPEND_PATH"] == f"/mine:{KIT}/bin:/opt/env/bin:{PACKAGES}/bin"
    assert {plan.variables["PIP_CONFIG_FILE"], plan.variables["PIP_CERT"]} <= {
        mount.target for mount in plan.mounts
    }
    assert plan.folders == ("/s/a/packages", "/s/.pip/1")


def test_foreign_images_have_their_own_local() -> None:
    plan = plan_personal("isolated", prefix="", home=HOME, state="/s/a", pip=PIP, path="")
    assert plan.variables["PREPEND_PATH"] == f"{KIT}/bin:{INSIDE}/.local/bin"
    assert "LIMPET_PACKAGES" not in plan.variables
    covered = Home(start="/home/u")
    plan = plan_personal("private", prefix="", home=covered, state="/s/a", pip=PIP, path="")
    assert plan.variables["PREPEND_PATH"].endswith(":/home/u/.local/bin")


def test_no_home_no_personal_packages() -> None:
    for policy, prefix in (("none", "/opt/env"), ("none", ""), ("host", "")):
        plan = plan_personal(
            policy,  # type: ignore[arg-type]
            prefix=prefix,
            home=HOME,
            state="/s/a",
            pip=PIP,
            path="",
        )
        assert plan.mounts == () and plan.variables == {}


@pytest.mark.real
def test_the_hook_waits_until_all_else_is_on_the_path(tmp_path: Path) -> None:
    """A real Python of the machine, started without `site`'s own run so that the order is known."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "_limpet_personal.py").write_text(HOOK_TEXT)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = tmp_path / "packages"
    (packages / "lib" / python / "site-packages").mkdir(parents=True)
    script = (
        f"import sys; sys.path.append({str(own)!r}); import _limpet_personal; "
        "sys.path.append('/later'); import site; site.execsitecustomize(); print(sys.path[-3:])"
    )
    site = str(packages / "lib" / python / "site-packages")
    for first in (False, True):
        if first:
            (packages / "first").touch()
        names = run_python(script, packages)
        assert names == ([site, str(own), "/later"] if first else [str(own), "/later", site])


def run_python(script: str, packages: Path) -> list[str]:
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        env={"LIMPET_PACKAGES": str(packages)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [word.strip(" '\n[]") for word in said.split(",")]


def package(name: str, version: str = "1.0", *requires: str, tag: str = "") -> PersonalPackage:
    tags = (tag or "py3-none-any",)
    return PersonalPackage(name=name, version=version, requires=requires, tags=tags)


IMAGE = ImageInside(python="3.13.5", libc="2.41", versions={"numpy": "2.3.5", "six": "1.17"})


def left(
    *packages: PersonalPackage, python: str = "3.13.2", same_base: bool = True
) -> dict[str, str]:
    return plan_carry(packages, IMAGE, python=python, same_base=same_base).left


def test_what_fits_is_carried() -> None:
    fine = (package("a", "1.0", "numpy>=2", 'b; extra == "x"'), package("c", "2", "a"))
    assert left(*fine) == {}
    assert plan_carry(fine, IMAGE, python="3.13.2", same_base=True).fit == fine


def test_what_does_not_fit_says_why() -> None:
    assert left(package("a", "1.0", "numpy<2")) == {
        "a": "it needs numpy<2, and the image has 2.3.5"
    }
    # and what needs it stays with it
    assert set(left(package("a", "1.0", "numpy<2"), package("b", "1", "a"))) == {"a", "b"}
    assert "not there" in left(package("a", "1.0", "gone"))["a"]
    assert left(package("a"), python="3.12.1") == {
        "a": "it is for Python 3.12, and the image has 3.13"
    }


def test_what_the_image_has_itself() -> None:
    assert left(package("six", "1.17")) == {}
    assert left(package("six", "1.16")) == {"six": "the image has 1.17 itself"}
    carried = plan_carry((package("six", "1.17"),), IMAGE, python="3.13", same_base=True)
    assert carried.fit == ()


@pytest.mark.parametrize(
    ("tag", "fits"),
    [
        ("py3-none-any", True),
        ("cp313-cp313-manylinux_2_28_x86_64", True),
        ("cp313-cp313-manylinux2014_x86_64", True),
        ("cp313-cp313-manylinux_2_99_x86_64", False),
        ("cp313-cp313-linux_x86_64", False),
    ],
)
def test_compiled_code_on_another_base(tag: str, fits: bool) -> None:
    assert (left(package("a", tag=tag), same_base=False) == {}) is fits
    assert left(package("a", tag=tag)) == {}


def test_ages() -> None:
    assert parse_age("30d") == 30 * 86400
    assert parse_age("12h") == 12 * 3600
    assert parse_age("2w") == 14 * 86400
    assert parse_age("soon") is parse_age("-1d") is None


REQUIREMENTS = "-r other.txt\nnumpy==1.0  # why\n# six is not here\n"
LIMPET = '# top\n[packages]  # these\npip = [\n    "numpy==1.0",  # why\n]\n\n[env]\nA = "1"\n'
PYPROJECT = '[project]\nname = "x"\ndependencies = ["Numpy>=1"]\n\n[tool.y]\nz = 1 # z\n'


@pytest.mark.parametrize(
    ("name", "text", "kept"),
    [
        ("requirements.in", REQUIREMENTS, ("-r other.txt", "numpy==2.0  # why", "# six is not")),
        ("gpu.txt", "six==1.0", ("six==3.0\n", "\nnumpy==2.0\n")),
        ("limpet.toml", LIMPET, ("# top", '"numpy==2.0",', "# why", "[packages]  # these")),
        ("limpet.toml", '[image]\nbase = "b"\n', ("[packages]", 'base = "b"')),
        ("pyproject.toml", PYPROJECT, ('"numpy==2.0"', "z = 1 # z")),
    ],
)
def test_a_recipe_keeps_all_else(
    tmp_path: Path, name: str, text: str, kept: tuple[str, ...]
) -> None:
    path = tmp_path / name
    path.write_text(text)
    after = change_recipe_text(path, pip={"numpy": "numpy==2.0", "six": "six==3.0"})
    assert all(part in after for part in (*kept, "six==3.0"))
    assert after.count("numpy") == 1
    path.write_text(after)
    assert change_recipe_text(path, pip={"numpy": "numpy==2.0", "six": "six==3.0"}) == after


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml", "script.py"])
def test_what_tools_write_is_left_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("")
    with pytest.raises(RecipeError, match=name):
        change_recipe_text(path, pip={"six": "six==1"})


def test_hashes_are_changed_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("six==1.0 \\\n  --hash=sha256:00\n")
    with pytest.raises(RecipeError, match="by hand"):
        change_recipe_text(path, pip={"six": "six==2.0"})


def test_a_state_folder_is_the_users_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    make_private([str(state / "a/home/.cache")], str(state))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (state, *state.rglob("*")))
    (state / "a").chmod(0o770)
    with pytest.raises(HostError, match="written by others"):
        make_private([str(state / "a/home")], str(state))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(HostError, match="someone else"):
        make_private([str(tmp_path / "link/a")], str(tmp_path / "link"))


def test_an_old_kit_that_another_start_removes_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    os.utime(tmp_path / "old", (0, 0))
    (tmp_path / "gone").symlink_to("nowhere")  # listed, and not there any more
    personal.make_kit(tmp_path / "kit", inside=KIT)
    assert (tmp_path / "kit/pip.zip").exists()
    assert not (tmp_path / "old").exists()


def test_a_full_state_folder_says_where_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(_: Path) -> None:
        raise SpaceError("x cannot be written.", why="No space left on device.")

    monkeypatch.setattr(states, "written_beside", full)
    with pytest.raises(SpaceError, match="x cannot be written") as caught:
        states.write_record(tmp_path, Record(title="t"))
    assert "LIMPET_STATE_DIR" in caught.value.now
