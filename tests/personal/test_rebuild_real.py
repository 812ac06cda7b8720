"""Rebuilt images, promoted packages, and what is kept on the disk: with real images."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.personal.conftest import User

pytestmark = pytest.mark.real


def test_a_rebuilt_image_keeps_what_fits(user: User, images: dict[str, Path]) -> None:
    recipe, image = user.folder / "env.in", user.folder / "env.sif"
    recipe.write_text("framework==1.0\nhelper==1.0\n")
    user.build(recipe, image)
    user.said("pip", image, "install", "pluginone", "plain")
    old = image.rename(user.folder / "kept.sif")

    recipe.write_text("framework==2.0\nhelper==1.0\n")
    user.build(recipe, image)
    done = user.limpet("run", image, "plain")
    assert done.stdout == "plain 2.0\n", done.stderr
    assert "taken over: plain 2.0" in done.stderr
    assert "pluginone: it needs framework<2, and the image has 2.0" in done.stderr
    assert user.limpet("run", image, "plugin").returncode != 0
    # it is said once, and the old image has all of its own still
    assert user.limpet("run", image, "plain").stderr == ""
    user.said("pip", image, "uninstall", "-y", "plain")
    assert user.said("run", old, "sh", "-c", "plain; plugin") == "plain 2.0\npluginone 1.0\n"
    # back to where it was: both are there again
    image.unlink()
    old.rename(image)
    assert user.said("pip", image, "freeze") == "plain==2.0\npluginone==1.0\n"


def rebuilt(image: Path, kept: Path, ident: int) -> Path:
    """Another SIF of the same content in the place of `image`; the old one, moved to `kept`."""
    old = image.rename(kept)
    data = bytearray(old.read_bytes())
    data[48:64] = bytes([ident]) * 16  # a SIF's identifier
    image.write_bytes(data)
    return old


def test_a_foreign_image_in_the_place_of_another(user: User, images: dict[str, Path]) -> None:
    """What was installed for it is taken over where it fits, and stays with the old one."""
    image = user.folder / "site.sif"
    image.write_bytes(images["foreign"].read_bytes())
    user.said("pip", image, "install", "plain", "framework==1.0", "pluginone")
    (site,) = user.state.glob("*/home/.local/lib/python3.13/site-packages")
    script = site.parents[2] / "bin/plain"
    script.write_text(script.read_text().replace("/usr/bin/python3", "/opt/other/bin/python3"))
    # The requirement of something that another image's Python had of its own.
    metadata = site / "pluginone-1.0.dist-info/METADATA"
    metadata.write_text(metadata.read_text().replace("framework<2", "of-the-image>=3"))
    old = rebuilt(image, user.folder / "kept.sif", 1)
    done = user.limpet("run", image, "plain")
    assert done.stdout == "plain 2.0\n", done.stderr
    assert "taken over: framework 1.0, helper 1.5, plain 2.0" in done.stderr
    assert "set aside: pluginone: it needs of-the-image, which is not there" in done.stderr
    assert user.limpet("run", image, "python3", "-c", "import pluginone").returncode == 1
    assert user.limpet("run", image, "plain").stderr == ""
    user.said("pip", image, "uninstall", "-y", "plain")
    assert "plain==2.0" in user.said("pip", old, "freeze")


def test_a_foreign_image_with_another_python(user: User, images: dict[str, Path]) -> None:
    image = user.folder / "site.sif"
    image.write_bytes(images["foreign"].read_bytes())
    user.said("pip", image, "install", "plain")
    # What an image with Python 3.12 would have left.
    (folder,) = user.state.glob("*/home/.local/lib/python3.13")
    folder.rename(folder.with_name("python3.12"))
    old = rebuilt(image, user.folder / "kept.sif", 2)
    done = user.limpet("run", image, "python3", "-c", "import plain")
    assert "No module named 'plain'" in done.stderr
    assert "plain: it is for Python 3.12, and the image has 3.13" in done.stderr
    assert "set aside" in done.stderr and "taken over" not in done.stderr
    assert user.limpet("run", image, "true").stderr == ""
    assert (folder.with_name("python3.12") / "site-packages/plain.py").exists()
    assert user.limpet("run", old, "true").returncode == 0


def test_a_foreign_image_without_python(user: User, images: dict[str, Path]) -> None:
    """A start does not fail for what was installed for the image before it."""
    image = user.folder / "site"
    subprocess.run(["apptainer", "-q", "build", "--sandbox", image, images["foreign"]], check=True)
    user.said("pip", image, "install", "plain")
    labels = image / ".singularity.d/labels.json"
    labels.write_text(labels.read_text().replace("}", " }") if labels.exists() else "{}")
    for python in (image / "usr/bin").glob("python3*"):
        python.unlink()
    done = user.limpet("run", image, "echo", "started")
    assert done.stdout == "started\n", done.stderr
    assert "no Python that says what it has" in done.stderr


def test_promote_and_build_again(user: User, images: dict[str, Path]) -> None:
    recipe, image = user.folder / "env.in", user.folder / "env.sif"
    recipe.write_text("# what we need\nframework==1.0  # not 2\nhelper==1.0")
    user.build(recipe, image)
    user.said("pip", image, "install", "pluginone", "plain==1.0")
    links = ("--find-links", user.wheels)
    before = recipe.read_text()
    user.said("pip", image, "promote", "--dry-run", *links)
    assert recipe.read_text() == before
    said = user.said("pip", image, "promote", *links)
    assert recipe.read_text() == (
        "# what we need\nframework==1.0  # not 2\nhelper==1.0\nplain==1.0\npluginone==1.0\n"
    )
    assert "Next: limpet build" in said
    user.said("-q", "build", recipe, "-o", image, "--force", "--frozen", *links)
    done = user.limpet("run", image, "sh", "-c", "plain; plugin")
    assert done.stdout == "plain 1.0\npluginone 1.0\n" and done.stderr == ""
    assert user.said("pip", image, "freeze") == ""


def test_a_recipe_that_cannot_be_locked_stays_as_it_was(
    user: User, images: dict[str, Path]
) -> None:
    one, recipe = images["one"], user.folder / "other.in"
    recipe.write_text("framework==2.0\n")
    done = user.limpet("pip", one, "promote", recipe)
    assert done.returncode == 2 and "no personal packages" in done.stderr
    user.said("pip", one, "install", "pluginone")
    done = user.limpet("pip", one, "promote", recipe, "--find-links", user.wheels)
    assert done.returncode == 4, done.stderr
    assert recipe.read_text() == "framework==2.0\n"
    done = user.limpet("pip", one, "promote")
    assert done.returncode == 2 and "No recipe in this folder" in done.stderr
    done = user.limpet("pip", images["foreign"], "promote", recipe)
    assert done.returncode == 2 and "not made by limpet" in done.stderr


def test_what_is_kept_and_cleaned(user: User, images: dict[str, Path]) -> None:
    assert user.said("state", "list") == "No image keeps anything.\n"
    copy = user.folder / "copy.sif"
    copy.write_bytes(images["two"].read_bytes())
    user.said("pip", images["one"], "install", "plain")
    user.said("run", copy, "true")
    listed = json.loads(user.said("state", "list", "--json"))["images"]
    by_title = {one["record"]["title"]: one for one in listed}
    one, two = by_title["one"], by_title["two"]
    assert [p["name"] for p in one["packages"]] == ["plain"]
    assert (one["whereabouts"], two["whereabouts"]) == ("there", "there")
    files = [path for path in Path(one["folder"]).rglob("*") if path.is_file()]
    assert one["files"] == len(files)
    assert one["size_bytes"] == sum(path.stat().st_size for path in files)
    assert "plain 2.0" in user.said("state", "show", images["one"])

    done = user.limpet("state", "clean")
    assert done.returncode == 2 and "unasked" in done.stderr
    done = user.limpet("state", "clean", "unheard-of")
    assert done.returncode == 2 and "one, two" in done.stderr
    assert "nothing to remove" in user.said("state", "clean", "--older-than", "1d")
    assert "nothing to remove" in user.said("state", "clean", "--gone")
    record = Path(one["folder"], "image.json")
    week_ago_s = time.time() - 7 * 86400
    os.utime(record, (week_ago_s, week_ago_s))
    assert "Would remove" in user.said("state", "clean", "--older-than", "1d", "--dry-run")
    assert record.exists()
    (Path(one["folder"]) / "home/closed").mkdir(mode=0o500)
    user.said("state", "clean", "--older-than", "1d")
    assert not record.parent.exists() and Path(two["folder"]).exists()
    copy.unlink()
    user.said("state", "clean", "--gone")
    assert user.said("state", "list") == "No image keeps anything.\n"
    assert not list(user.state.glob(".removed-*"))
