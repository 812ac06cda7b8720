"""Images changed in place while programs run from them, with and without their recipe."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conda.channel import Served
from tests.conftest import Limpet
from tests.personal.conftest import User

pytestmark = pytest.mark.real

LATER = "import sys; print('ready', flush=True); sys.stdin.read(); import framework as f; print(f)"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def result(text: str) -> Any:
    return json.loads(text.splitlines()[-1])["result"]


@pytest.fixture
def image(user: User) -> Path:
    recipe, image = user.folder / "env.in", user.folder / "env.sif"
    recipe.write_text("framework==1.0\nhelper==1.0\n")
    user.build(recipe, image)
    return image


def test_the_image_alone_is_enough(user: User, image: Path) -> None:
    recipe = image.with_suffix(".in")
    recipe.unlink()
    running = user.start("run", image, "python", "-c", LATER)
    assert running.stdout and running.stdout.readline() == "ready\n"
    before, was = sorted(user.folder.iterdir()), digest(image)
    user.said("-q", "update", image, "--add", "plain==1.0", "--dry-run")
    assert digest(image) == was
    words = ("update", image, "--add", "plain==1.0", "--add", "framework==2.0")
    changes = result(user.said(*words, "--json"))["changes"]
    assert [(c["name"], c["before"], c["after"]) for c in changes] == [
        ("framework", "1.0", "2.0"),
        ("plain", "", "1.0"),
    ]
    assert sorted(user.folder.iterdir()) == before
    assert user.said("run", image, "plain") == "plain 1.0\n"
    # What runs has the file that it started from.
    assert "framework" in running.communicate("\n", timeout=180)[0]
    assert running.returncode == 0

    said = user.said("update", image, "--remove", "framework")
    assert "- framework 2.0\n" in said
    recipe_inside = user.said("inspect", image, "--recipe")
    assert '"plain==1.0"' in recipe_inside and "framework" not in recipe_inside
    said = user.said("update", image, "--remove", "helper")
    assert "Note: helper stays in the image: another package needs it." in said


def test_a_recipe_is_changed_with_its_image(user: User, image: Path) -> None:
    recipe = image.with_suffix(".in")
    links = ("--find-links", user.wheels)
    user.said("update", image, recipe, "--add", "plain==2.0", *links)
    assert recipe.read_text() == "framework==1.0\nhelper==1.0\nplain==2.0\n"
    assert user.said("run", image, "plain") == "plain 2.0\n"
    # Nothing changes where no lock can be made.
    was = digest(image), recipe.read_text(), digest(user.folder / "pylock.env.toml")
    done = user.limpet("update", image, recipe, "--add", "plugintwo==2.0", *links)
    assert done.returncode == 4 and "framework" in done.stderr
    assert was == (digest(image), recipe.read_text(), digest(user.folder / "pylock.env.toml"))
    recipe.write_text("framework==2.0\nhelper==1.0\nplain==1.0\n")
    said = user.said("update", image, recipe, *links)
    assert "framework 1.0 -> 2.0" in said and "plain 2.0 -> 1.0" in said
    assert user.said("build", recipe, "-o", image, "--force", "--frozen", *links)


def test_launchers_follow_and_go_back(user: User, image: Path) -> None:
    folder, was = user.folder / "env dir", digest(image)
    user.said("wrap", image, folder)
    told = result(user.said("update", folder, "--add", "plain==2.0", "--json"))
    assert "plain" in told["wrap"]["added"]

    def say(name: str) -> str:
        done = subprocess.run([folder / "bin" / name], env=user.env(), capture_output=True)
        return done.stdout.decode() or done.stderr.decode()

    assert say("plain") == "plain 2.0\n"
    assert digest(image) == was and not list(folder.rglob(".*limpet-partial*"))
    user.said("update", folder, "--back")
    assert not (folder / "bin/plain").exists() and say("framework") == "framework 1.0\n"
    user.said("update", folder, "--add", "plain==1.0")
    moved = folder.rename(user.folder / "moved")
    folder = moved
    assert say("plain") == "plain 1.0\n"
    user.said("update", folder, "--remove", "framework")
    assert not (folder / "bin/framework").exists() and say("plain") == "plain 1.0\n"
    # The image of the folder's own is still the one that it follows.
    assert "plain" in user.said("update", folder)


def test_what_is_refused(user: User, image: Path) -> None:
    was = digest(image)
    for words, said in (
        ((image,), "nothing to change"),
        ((image, "--remove", "scipy"), "does not ask for it"),
        ((image, "no such recipe.in", "--add", "plain"), "no such recipe"),
        ((image, "--add", "plain", "other"), "an --add of its own"),
        ((image, "--add", "plain", "--remove", "PLAIN"), "to be added and to be removed"),
        ((image, "--back"), "--back takes a folder"),
        ((user.folder / "absent.sif", "--add", "plain"), "absent.sif"),
        ((user.folder, "--add", "plain"), "no folder of launchers"),
        ((image, "--add", "no-such-package"), "no-such-package"),
    ):
        done = user.limpet("update", *words)
        assert done.returncode not in (0, 70) and said in done.stderr, (words, done.stderr)
    local = user.folder / "local.in"
    local.write_text(
        f"{(user.wheels / 'plain-1.0-py3-none-any.whl').as_uri()}\nframework==1.0\nhelper==1.0\n"
    )
    other = user.folder / "local.sif"
    user.build(local, other)
    user.said("-q", "update", other, "--add", "pluginone==1.0")  # its recipe lies beside it
    local.unlink()
    done = user.limpet("update", other, "--add", "pluginone==1.0")
    assert done.returncode == 3 and "limpet update IMAGE RECIPE" in done.stderr, done.stderr
    assert digest(image) == was


def test_conda_environments_get_conda_packages(
    limpet: Limpet, channel: Served, tmp_path: Path
) -> None:
    image = tmp_path / "x.sif"
    recipe = tmp_path / "environment.yml"
    recipe.write_text(
        f"channels: [{channel.url}]\ndependencies:\n  - python  # ours\n  - greeter\n"
    )
    done = limpet("build", recipe, "--base", "debian:trixie", "-o", image)
    assert done.returncode == 0, done.stderr
    done = limpet("update", image, "--add", "shared<2", "--remove", "greeter", "--json")
    assert done.returncode == 0, done.stderr
    changes = {c["name"]: c for c in result(done.stdout)["changes"]}
    assert changes["shared"]["source"] == "conda" and changes["greeter"]["after"] == ""
    done = limpet("run", image, "cat", "/opt/env/share/shared")
    assert done.stdout.startswith("1"), done.stderr
    done = limpet("update", image, recipe, "--add", "shared>=2")
    assert done.returncode == 0, done.stderr
    assert recipe.read_text().endswith("  - python  # ours\n  - greeter\n  - shared>=2\n")
    assert limpet("run", image, "greet").returncode == 0
