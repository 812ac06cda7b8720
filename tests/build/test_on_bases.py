"""Images on bases of every shape that users have, and from every place that they can come from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from limpet.tools.images import read_image
from tests import images
from tests.build.workshop import Workshop, check_refused
from tests.conftest import Base

pytestmark = pytest.mark.real

WHERE = (
    "import sys, tiny, json; "
    "print(json.dumps([sys.prefix, sys.base_prefix, tiny.__file__, sys.executable]))"
)


@pytest.fixture
def workshop(tmp_path: Path, cache_dir: Path, home: Path, debian_base: Base) -> Workshop:
    made = Workshop(tmp_path / "project", cache=cache_dir, base="")
    made.add_wheel("tiny", {"tiny/__init__.py": "answer = 42\n"})
    made.require("tiny")
    return made


def check_runs(workshop: Workshop, image: Path, base_prefix: str) -> None:
    prefix, under, tiny, python = json.loads(workshop.python(image, WHERE))
    assert (prefix, under) == ("/opt/env", base_prefix)
    assert tiny.startswith("/opt/env/lib/python3.")
    assert python == "/opt/env/bin/python"


def test_python_slim_has_its_python_in_usr_local(workshop: Workshop, python_slim: str) -> None:
    image = workshop.build("requirements.in", "--base", python_slim)
    check_runs(workshop, image, "/usr/local")
    lock = (workshop.folder / "pylock.toml").read_text()
    assert f'reference = "{python_slim}"' in lock
    assert 'digest = "sha256:' in lock


def test_debians_python_is_externally_managed_and_does(
    workshop: Workshop, debian_base: Base
) -> None:
    assert debian_base.interpreter.externally_managed
    image = workshop.build("requirements.in", "--base", debian_base.reference)
    check_runs(workshop, image, "/usr")


def test_a_base_without_python_says_what_would_do(workshop: Workshop, plain_os: str) -> None:
    done = workshop.try_build("requirements.in", "--base", plain_os)
    error = check_refused(done, 5, "no Python")
    assert "docker://python:" in error or "debian:" in error


def test_a_python_that_the_base_lacks(workshop: Workshop, python_slim: str) -> None:
    done = workshop.try_build("requirements.in", "--base", python_slim, "--python", "3.9")
    check_refused(done, 5, "3.9", "3.13")


# ---- on top of a vendor image --------------------------------------------------------------------


def test_what_a_vendor_image_has_is_counted_in_and_neither_installed_nor_shadowed(
    workshop: Workshop, vendor_base: str
) -> None:
    workshop.add_wheel("rider", {"rider.py": "import torch\n"}, requires=["torch>=2.0"])
    workshop.require("rider")
    image = workshop.build("requirements.in", "--base", vendor_base)
    said = workshop.python(
        image,
        "import rider, torch, importlib.metadata as m; print(torch.__file__, m.version('torch'))",
    )
    where, version = said.split()
    assert version == "2.3.0a0+vendor"
    assert not where.startswith("/opt/env")
    lock = (workshop.folder / "pylock.toml").read_text()
    assert 'torch = "2.3.0a0+vendor"' in lock
    assert 'name = "torch"' not in lock


def test_a_conflict_with_the_base_shows_at_lock_time(workshop: Workshop, vendor_base: str) -> None:
    workshop.add_wheel("newer", {"newer.py": ""}, requires=["torch>=2.4"])
    workshop.add_wheel("torch", {"torch/__init__.py": ""}, version="2.4.0")
    workshop.require("newer")
    done = workshop.run(workshop.words("lock", "requirements.in", "--base", vendor_base))
    check_refused(done, 4, "2.3.0a0+vendor", "--isolated-from-base")


def test_isolated_from_base_takes_none_of_it(workshop: Workshop, vendor_base: str) -> None:
    workshop.add_wheel("torch", {"torch/__init__.py": ""}, version="2.4.0")
    workshop.require("torch")
    image = workshop.build("requirements.in", "--base", vendor_base, "--isolated-from-base")
    where = workshop.python(image, "import torch; print(torch.__file__)")
    assert where.startswith("/opt/env/")


def test_what_the_vendor_set_for_caches_counts_where_it_can_be_written(
    workshop: Workshop, tmp_path: Path, cache_dir: Path
) -> None:
    folder = tmp_path / "layout"
    theirs = ("TRITON_CACHE_DIR=/tmp/their triton", "NUMBA_CACHE_DIR=/opt/numba", "OTHER=1")
    env = (f"PATH={images.PATH}", *theirs)
    images.make_oci_layout(folder, [images.debian_tar(cache_dir)], env=env)
    image = workshop.build("requirements.in", "--base", f"oci:{folder}")
    seen = read_image(str(image))
    assert seen.facts is not None
    assert seen.facts.base_env == dict(pair.split("=") for pair in theirs[:2])
    code = "import os; print(os.environ['TRITON_CACHE_DIR'], os.environ['NUMBA_CACHE_DIR'])"
    done = workshop.run(workshop.words("run", image, "python", "-c", code))
    assert done.stdout == "/tmp/their triton /.limpet/home/.cache/node-local/numba\n", done.stderr


# ---- from every place ----------------------------------------------------------------------------


@pytest.fixture
def layout(tmp_path: Path, cache_dir: Path) -> Path:
    folder = tmp_path / "an OCI läyout"
    images.make_oci_layout(folder, [images.debian_tar(cache_dir)])
    return folder


def test_an_oci_layout_and_an_archive_of_it(workshop: Workshop, layout: Path) -> None:
    image = workshop.build("requirements.in", "--base", f"oci:{layout}")
    check_runs(workshop, image, "/usr")
    archive = workshop.folder / "base.tar"
    shutil.make_archive(str(archive.with_suffix("")), "tar", layout)
    again = workshop.out / "again.sif"
    workshop.build("requirements.in", "--base", f"oci-archive:{archive}", "-o", again, "--upgrade")
    check_runs(workshop, again, "/usr")


def test_a_local_sif_is_named_from_where_one_is(workshop: Workshop, debian_base: Base) -> None:
    (workshop.folder / "own base.sif").symlink_to(debian_base.sif)
    image = workshop.build("requirements.in", "--base", "./own base.sif")
    check_runs(workshop, image, "/usr")


@contextmanager
def unpacked(workshop: Workshop, sif: Path) -> Iterator[Path]:
    """A sandbox folder, as `apptainer build --sandbox` makes it."""
    folder = workshop.folder / "sandbox"
    done = workshop.run(["apptainer", "--quiet", "build", "--sandbox", folder, sif])
    assert done.returncode == 0, done.stderr
    yield folder
    # Folders that their owner may not write are part of a root file system.
    workshop.run(["chmod", "-R", "u+rwX", folder])
    shutil.rmtree(folder)


def test_a_sandbox_folder(workshop: Workshop, debian_base: Base) -> None:
    with unpacked(workshop, debian_base.sif) as folder:
        image = workshop.build("requirements.in", "--base", folder)
        check_runs(workshop, image, "/usr")


def test_a_sif_pushed_to_a_registry_as_oras(
    workshop: Workshop, registry: str, debian_base: Base
) -> None:
    target = f"oras://{registry}/shared/base:one"
    pushed = workshop.run(["apptainer", "--quiet", "push", debian_base.sif, target])
    assert pushed.returncode == 0, pushed.stderr
    image = workshop.build("requirements.in", "--base", target)
    check_runs(workshop, image, "/usr")


# ---- resolved once -------------------------------------------------------------------------------


def test_a_tag_that_moves_is_built_as_it_was_locked(
    workshop: Workshop, registry: str, cache_dir: Path, tmp_path: Path
) -> None:
    def push(word: str) -> None:
        layout = tmp_path / word
        marker = images.make_layer({"etc/which": word})
        images.make_oci_layout(layout, [images.debian_tar(cache_dir), marker])
        images.push_image(layout, registry, "shared/moving")

    base = f"docker://{registry}/shared/moving:latest"
    which = "print(open('/etc/which').read())"
    push("one")
    assert workshop.python(workshop.build("requirements.in", "--base", base), which) == "one"
    push("two")
    again = workshop.build("requirements.in", "--base", base, "--force")
    assert workshop.python(again, which) == "one"
    newer = workshop.build("requirements.in", "--base", base, "--force", "--upgrade")
    assert workshop.python(newer, which) == "two"


# ---- apt and post --------------------------------------------------------------------------------


def test_apt_and_post_make_a_derived_base_once(workshop: Workshop, debian_base: Base) -> None:
    post = "hello > /etc/said-hello; find /tmp /var/tmp -mindepth 1 > /etc/found-in-tmp"
    workshop.describe(f'[image]\napt = ["hello"]\npost = "{post}"\n', "tiny")
    base = debian_base.reference
    image = workshop.build("limpet.toml", "--base", base)
    said = workshop.python(
        image,
        "import subprocess, tiny; print(open('/etc/said-hello').read().strip(),"
        " subprocess.check_output(['hello']).decode().strip(),"
        " open('/etc/found-in-tmp').read(), sep='|')",
    )
    assert said == "Hello, world!|Hello, world!|"
    assert 'apt = ["hello' in (workshop.folder / "pylock.toml").read_text()
    second = workshop.try_build("limpet.toml", "--base", base, "--force")
    assert second.returncode == 0
    assert "Building the derived base" not in second.stderr


def test_a_locked_apt_package_comes_in_the_locked_version_or_not_at_all(
    workshop: Workshop, debian_base: Base
) -> None:
    workshop.describe('[image]\napt = ["hello"]\n', "tiny")
    workshop.build("limpet.toml", "--base", debian_base.reference)
    lock = workshop.folder / "pylock.toml"
    text = lock.read_text()
    version = text.split('"hello=' if '"hello=' in text else '"hello:')[1].split('"')[0]
    lock.write_text(text.replace(version, version.replace("2.10", "2.09")))
    done = workshop.try_build("limpet.toml", "--base", debian_base.reference, "--force")
    check_refused(done, 7, "hello")
