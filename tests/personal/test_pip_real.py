"""Personal packages in real images: found, kept apart, held to what the image has."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.personal.conftest import User

pytestmark = pytest.mark.real

ASK = (
    "import json, sys, importlib.metadata as m, framework, plain; "
    "print(json.dumps([plain.__file__, m.version('plain'), framework.__version__, sys.path, "
    "sys.prefix]))"
)


def test_installed_for_one_image_alone(user: User, images: dict[str, Path]) -> None:
    one, two = images["one"], images["two"]
    assert "Successfully installed plain-2.0" in user.said("pip", one, "install", "plain")
    for flags in ((), ("-I",)):
        place, version, framework, path, prefix = json.loads(
            user.said("run", one, "python", *flags, "-c", ASK)
        )
        assert (version, framework, prefix) == ("2.0", "1.0", "/opt/env")
        site = "/.limpet/packages/lib/python3.13/site-packages"
        assert place == f"{site}/plain.py"
        # behind all that the image has, also the base's own packages
        assert path[-1] == site and "/usr/lib/python3/dist-packages" in path
    assert user.said("run", one, "plain") == "plain 2.0\n"
    shebang = user.said("run", one, "sh", "-c", 'head -n 1 "$(command -v plain)"')
    assert shebang == "#!/opt/env/bin/python\n"
    assert user.said("pip", one, "freeze") == "plain==2.0\n"
    assert "helper" in user.said("run", one, "pip", "list")
    # byte code is written at once, for all later starts
    assert list(user.state.glob("*/packages/lib/*/site-packages/__pycache__/plain.*.pyc"))

    assert user.said("pip", two, "freeze") == ""
    assert user.limpet("run", two, "python", "-c", "import plain").returncode == 1
    assert user.limpet("run", "--home", "none", one, "python", "-c", "import plain").returncode == 1
    assert user.limpet("run", one, "/usr/bin/python3", "-c", "import plain").returncode == 1
    bare = ["apptainer", "--quiet", "exec", str(one), "python", "-c", "import plain"]
    env = user.env(LIMPET_PACKAGES="/nowhere")
    assert subprocess.run(bare, env=env, capture_output=True, check=False).returncode == 1

    user.said("pip", one, "uninstall", "-y", "plain")
    assert user.said("pip", one, "freeze") == ""


def test_plain_pip_in_a_shell(user: User, images: dict[str, Path]) -> None:
    typed = "pip install plain==1.0\npython -m pip install pluginone\nplain; plugin\nexit\n"
    done = user.limpet("shell", images["one"], stdin=typed)
    assert "plain 1.0\npluginone 1.0\n" in done.stdout, done.stdout + done.stderr
    assert user.said("pip", images["one"], "freeze") == "plain==1.0\npluginone==1.0\n"


def test_a_virtual_environment_made_inside_is_its_own(user: User, images: dict[str, Path]) -> None:
    user.said("pip", images["one"], "install", "plain")
    inside = "python -m venv --without-pip v && v/bin/python -c 'import plain'; pip --version"
    done = user.limpet("run", images["one"], "sh", "-c", inside)
    assert "No module named 'plain'" in done.stderr
    assert "/.limpet/pip/pip.zip" in done.stdout
    variables = user.said("run", images["one"], "env")
    assert "PIP_TARGET" not in variables and "PIP_PREFIX" not in variables


def test_held_to_what_the_image_has(user: User, images: dict[str, Path]) -> None:
    one = images["one"]
    for wanted in ("plugintwo", "helper==1.5"):
        done = user.limpet("pip", one, "install", wanted)
        assert done.returncode == 1
        assert "(constraint)" in done.stdout and "--override" in done.stderr
    assert user.said("pip", one, "freeze") == ""

    user.said("pip", one, "install", "--override", "framework==1.1")
    assert user.said("run", one, "python", "-c", "import framework as f; f.main()") == (
        "framework 1.1\n"
    )
    user.said("pip", one, "uninstall", "-y", "framework")
    assert user.said("run", one, "framework") == "framework 1.0\n"


def test_two_versions_of_one_framework_side_by_side(user: User, images: dict[str, Path]) -> None:
    user.said("pip", images["one"], "install", "pluginone")
    user.said("pip", images["two"], "install", "plugintwo")
    script = "import time, framework; from importlib import import_module as i; print('at', "
    script += "framework.__version__, i({!r}).__version__, flush=True); time.sleep(1)"
    running = [
        subprocess.Popen(
            user.argv("run", images[name], "python", "-c", script.format(plugin)),
            env=user.env(),
            cwd=user.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, plugin in (("one", "pluginone"), ("two", "plugintwo"))
    ]
    said = [process.communicate(timeout=180)[0] for process in running]
    assert said == ["at 1.0 1.0\n", "at 2.0 2.0\n"]


def test_a_foreign_image_has_a_local_folder_of_its_own(user: User, images: dict[str, Path]) -> None:
    foreign = images["foreign"]
    user.said("pip", foreign, "install", "plain")
    assert user.said("run", foreign, "plain") == "plain 2.0\n"
    assert user.said("pip", foreign, "freeze") == "helper==1.5\nplain==2.0\n"
    user.said("run", foreign, "sh", "-c", "pip install pluginone")
    assert user.said("run", foreign, "python3", "-c", "import pluginone as p; p.main()") == (
        "pluginone 1.0\n"
    )
    user.said("pip", foreign, "uninstall", "-y", "plain")
    assert "plain" not in user.said("pip", foreign, "freeze")
    assert user.said("pip", images["one"], "freeze") == ""


# ---- bad input -----------------------------------------------------------------------------------


def test_unknown_image_command_and_package(user: User, images: dict[str, Path]) -> None:
    one = images["one"]
    done = user.limpet("pip", "nowhere.sif", "install", "plain")
    assert done.returncode == 125 and "There is no image" in done.stderr
    done = user.limpet("pip", one)
    assert done.returncode == 125 and "limpet pip IMAGE install" in done.stderr
    user.said("pip", one, "install", "plain==1.0")
    done = user.limpet("pip", one, "install", "-U", "plain", "no-such-package")
    assert done.returncode == 1 and "No matching distribution" in done.stderr
    assert user.said("run", one, "plain") == "plain 1.0\n"
    done = user.limpet("pip", "--home", "none", one, "install", "plain")
    assert done.returncode == 125 and "no personal packages" in done.stderr


@pytest.mark.parametrize(("name", "place"), [("one", "packages"), ("foreign", "home/.local")])
def test_two_installs_at_once(user: User, images: dict[str, Path], name: str, place: str) -> None:
    one = images[name]
    user.said("pip", one, "install", "plain==1.0")
    (lock,) = user.state.glob(f"*/{place}/.limpet-lock")
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = user.limpet("pip", one, "install", "-U", "plain")
        assert done.returncode == 75 and "Another pip" in done.stderr
        done = user.limpet("state", "clean", one)
        assert done.returncode == 9 and "just now" in done.stderr
        assert user.said("run", one, "plain") == "plain 1.0\n"
    user.said("pip", one, "install", "-U", "plain")
    assert user.said("run", one, "plain") == "plain 2.0\n"


def test_a_state_folder_that_others_can_write(user: User, images: dict[str, Path]) -> None:
    one = images["one"]
    user.said("pip", one, "install", "plain")
    (packages,) = user.state.glob("*/packages")
    for place in (user.state, packages.parent, packages):
        mode = stat.S_IMODE(place.stat().st_mode)
        assert mode & 0o077 == 0
        place.chmod(mode | 0o020)
        done = user.limpet("run", one, "plain")
        assert done.returncode == 125 and f"chmod go-w '{place}'" in done.stderr
        place.chmod(mode)
    done = user.limpet("run", one, "true", env={"LIMPET_STATE_DIR": "/tmp"})
    assert done.returncode == 125 and "belongs to someone else" in done.stderr
    assert user.said("run", one, "plain") == "plain 2.0\n"


def test_a_read_only_home(user: User, images: dict[str, Path], tmp_path: Path) -> None:
    passing = tmp_path / "passing"
    passing.mkdir()
    env = {"TMPDIR": str(passing)}
    for place in (user.home / ".local", user.home):
        place.chmod(0o555)
    try:
        done = user.limpet("pip", images["one"], "install", "plain", env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "will not last" in done.stderr
        done = user.limpet("run", images["one"], "plain", env=env)
        assert done.stdout == "plain 2.0\n"
    finally:
        for place in (user.home, user.home / ".local"):
            place.chmod(0o755)


@pytest.mark.skipif(not shutil.which("fuse2fs"), reason="needs fuse2fs for a full file system")
def test_no_space_for_state(user: User, images: dict[str, Path], tmp_path: Path) -> None:
    disk, place = tmp_path / "disk.ext4", tmp_path / "small"
    place.mkdir()
    disk.write_bytes(b"\0" * 4_000_000)
    subprocess.run(
        ["mkfs.ext4", "-q", "-E", f"root_owner={os.getuid()}:{os.getgid()}", disk], check=True
    )
    subprocess.run(["fuse2fs", disk, place], check=True, capture_output=True)
    try:
        env = {"LIMPET_STATE_DIR": str(place / "state")}
        done = user.limpet("pip", images["one"], "install", "plain==1.0", env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        done = user.limpet("pip", images["one"], "install", "plain", "huge", env=env)
        assert done.returncode == 1
        assert "No space left" in done.stderr
        done = user.limpet("run", images["one"], "plain", env=env)
        assert done.stdout == "plain 1.0\n", done.stderr
        # and where there is not even space for an image's folder
        with (place / "fill").open("wb", buffering=0) as file:
            for size_bytes in (100_000, 1_000):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size_bytes) == size_bytes:
                        pass
        done = user.limpet("run", images["two"], "true", env=env)
        assert done.returncode == 125 and "No space left" in done.stderr, done.stderr
    finally:
        for _ in range(20):
            if subprocess.run(["fusermount3", "-u", place], check=False).returncode == 0:
                break
            time.sleep(0.2)
