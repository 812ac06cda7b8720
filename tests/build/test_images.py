"""What is in an image, through limpet and without it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.build.workshop import Workshop, check_refused, unchanged
from tests.conftest import Base

pytestmark = pytest.mark.real

SHOW = "import sys, tiny; print(sys.prefix, tiny.answer, tiny.__file__)"
SHOWN = "/opt/env 42 /opt/env/lib/python3.13/site-packages/tiny/__init__.py"


def run_bare(workshop: Workshop, *words: str | Path, **env: str) -> str:
    done = workshop.run(("apptainer", "--silent", *words), cwd=None, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("layout", ["merged", "layered"])
def test_bare_apptainer_gets_the_environment(workshop: Workshop, layout: str) -> None:
    image = workshop.build(workshop.require("tiny"), "--layout", layout)
    for verb in ("exec", "run"):
        assert run_bare(workshop, verb, image, "python", "-c", SHOW) == SHOWN
    script = f"echo '{SHOW}' | python -"
    done = subprocess.run(
        ["apptainer", "--silent", "shell", image],
        input=script,
        capture_output=True,
        text=True,
        check=True,
    )
    assert SHOWN in done.stdout
    leaking = {"PYTHONPATH": "/tmp", "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "/nowhere"}
    assert run_bare(workshop, "exec", image, "python", "-c", SHOW, **leaking) == SHOWN
    started = workshop.run(workshop.words("run", image, "python", "-c", SHOW))
    assert started.stdout.strip() == SHOWN, started.stderr


def test_files_land_where_they_belong(workshop: Workshop) -> None:
    """A file, a folder with a link and a program, and a module whose old byte code must go."""
    workshop.write("config.ini", "[x]\n")
    workshop.write("tool/run.sh", "#!/bin/sh\necho ran\n").chmod(0o755)
    workshop.write("tool/data/ü b$(x).txt", "odd")
    (workshop.folder / "tool" / "link").symlink_to("data")
    workshop.write("patched.py", "answer = 'patched'\n")
    workshop.write("tree/other.py", "answer = 'patched, too'\n")
    site = "/opt/env/lib/python3.13/site-packages"
    recipe = workshop.describe(
        f"""[files]
        "config.ini" = "/opt/app/config.ini"
        "tool" = "/opt/app/tool"
        "patched.py" = "{site}/tiny/__init__.py"
        "tree" = "{site}/tiny"
        """,
        "tiny",
    )
    code = """if True:
        import os, subprocess, tiny, tiny.other
        print(tiny.answer, tiny.other.answer, open("/opt/app/config.ini").read().strip())
        print(subprocess.check_output("/opt/app/tool/run.sh", text=True).strip())
        print(os.listdir("/opt/app/tool/link"), os.stat("/opt/app/config.ini").st_uid == 0)
    """
    for layout in ("merged", "layered"):
        image = workshop.build(recipe, "--layout", layout, "--force")
        said = workshop.python(image, code).splitlines()
        assert said[:2] == ["patched patched, too [x]", "ran"]
        assert said[2].startswith("['ü b$(x).txt']")


def test_env_comes_as_it_was_written(workshop: Workshop) -> None:
    odd = "a b'c\"d$HOME`x`;\\n*~é,e=f"
    recipe = workshop.describe(
        f"[env]\nODD = '''{odd}'''\nLINES = 'one\\ntwo'\nEMPTY = ''\n".replace(
            "'one\\ntwo'", '"one\\ntwo"'
        ),
        "tiny",
    )
    image = workshop.build(recipe)
    code = "import os, json; print(json.dumps([os.environ[n] for n in ('ODD', 'LINES', 'EMPTY')]))"
    assert json.loads(workshop.python(image, code)) == [odd, "one\ntwo", ""]
    through = workshop.run(workshop.words("run", image, "python", "-c", code))
    assert json.loads(through.stdout) == [odd, "one\ntwo", ""], through.stderr


@pytest.mark.parametrize("layout", ["merged", "layered"])
def test_warm_keeps_what_an_import_writes(workshop: Workshop, layout: str) -> None:
    born = "import os\np = os.path.join(os.path.dirname(__file__), 'cache.txt')\n"
    born += "fresh = not os.path.exists(p)\nif fresh: open(p, 'w').write('born')\n"
    workshop.add_wheel("warming", {"warming/__init__.py": born, "warming/goes.txt": "x"})
    site = "/opt/env/lib/python3.13/site-packages/warming"
    recipe = workshop.describe(
        f'[warm]\nimports = ["warming"]\ncommands = ["rm {site}/goes.txt; mkdir {site}/new"]\n',
        "warming",
    )
    image = workshop.build(recipe, "--layout", layout)
    code = "import os, warming; d = os.path.dirname(warming.__file__); "
    code += "print(warming.fresh, open(d + '/cache.txt').read(), sorted(os.listdir(d)))"
    listed = "['__init__.py', '__pycache__', 'cache.txt', 'new']"
    assert workshop.python(image, code) == f"False born {listed}"


def test_warm_that_fails_says_how(workshop: Workshop) -> None:
    recipe = workshop.describe('[warm]\nimports = ["no_such_module"]\n', "tiny")
    with unchanged(workshop.folder):
        done = workshop.try_build(recipe)
    check_refused(done, 7, "[warm]", "No module named 'no_such_module'")


def test_labels_lock_sbom_and_recipe_are_inside(workshop: Workshop) -> None:
    recipe = workshop.describe(
        '[image]\nlabels = { "org.example.author" = "Ann O\'Nym, ü" }\n', "tiny"
    )
    image = workshop.build(recipe, "--label", "colour=blue", "--name", "an image")
    labels = json.loads(run_bare(workshop, "inspect", "--labels", "--json", image))
    found = labels["data"]["attributes"]["labels"]
    assert found["org.example.author"] == "Ann O'Nym, ü"
    assert found["colour"] == "blue"
    assert found["org.opencontainers.image.base.name"] == workshop.base
    lock = workshop.run(workshop.words("inspect", "--lock", image)).stdout
    assert lock == (workshop.folder / "pylock.toml").read_text()
    sbom = json.loads(workshop.run(workshop.words("inspect", "--sbom", image)).stdout)
    assert "tiny" in {part["name"] for part in sbom["components"]}
    said = workshop.run(workshop.words("inspect", "--recipe", image)).stdout
    assert "org.example.author" in said
    assert str(workshop.folder) not in said + json.dumps(sbom)


@pytest.mark.parametrize("layout", ["merged", "layered"])
def test_an_image_can_be_signed(workshop: Workshop, tmp_path: Path, layout: str) -> None:
    image = workshop.build(workshop.require("tiny"), "--layout", layout)
    config = {"APPTAINER_CONFIGDIR": str(tmp_path / "keys")}
    secret, public = tmp_path / "key.pem", tmp_path / "key.pub"
    for words in (
        ("openssl", "genrsa", "-out", secret, "2048"),
        ("openssl", "rsa", "-in", secret, "-pubout", "-out", public),
        ("apptainer", "sign", "--key", secret, image),
        ("apptainer", "verify", "--key", public, image),
    ):
        done = workshop.run(words, cwd=None, **config)
        assert done.returncode == 0, done.stderr
    assert workshop.python(image, SHOW) == SHOWN
    with image.open("r+b") as file:  # one bit of the data that was signed
        file.seek(200_000)
        byte = file.read(1)
        file.seek(200_000)
        file.write(bytes([byte[0] ^ 1]))
    broken = workshop.run(("apptainer", "verify", "--key", public, image), cwd=None, **config)
    assert broken.returncode != 0


def test_gzip_for_old_tools(workshop: Workshop) -> None:
    image = workshop.build(workshop.require("tiny"), "--compression", "gzip")
    assert workshop.python(image, SHOW) == SHOWN
    with image.open("rb") as file:
        data = file.read(1 << 20)
    superblock = data[data.index(b"hsqs") :]
    assert int.from_bytes(superblock[20:22], "little") == 1  # gzip


def test_gzip_base_is_rewritten_or_kept(
    workshop: Workshop, debian_base: Base, tmp_path: Path
) -> None:
    """A base as most sites have them: made by `apptainer build`, gzip inside."""
    base = tmp_path / "gzip.sif"
    fast = ("--mksquashfs-args", "-comp gzip -Xcompression-level 1")
    run_bare(workshop, "build", *fast, base, debian_base.sif, APPTAINER_TMPDIR=str(tmp_path))
    recipe = workshop.require("tiny")
    sizes = {}
    for layout in ("merged", "layered"):
        image = workshop.build(recipe, "--base", base, "--layout", layout, "--force")
        assert workshop.python(image, SHOW) == SHOWN
        sizes[layout] = image.stat().st_size
    assert sizes["layered"] > base.stat().st_size > sizes["merged"]


def test_a_dropped_layer_is_an_error(workshop: Workshop, tmp_path: Path) -> None:
    """The real runtime, told to use an underlay, drops the layer without a word."""
    image = workshop.build(workshop.require("tiny"), "--layout", "layered")
    dropping = tmp_path / "dropping" / "apptainer"
    dropping.parent.mkdir()
    dropping.write_text(
        "#!/usr/bin/env python3\nimport os, sys\nwords = sys.argv[1:]\n"
        "if 'exec' in words:\n    words.insert(words.index('exec') + 1, '--underlay')\n"
        "os.execv('/usr/bin/apptainer', ['apptainer', *words])\n"
    )
    dropping.chmod(0o755)
    words = workshop.words("run", image, "python3", "-c", "print('wrong Python')")
    done = workshop.run(words, LIMPET_RUNTIME=str(dropping))
    assert "wrong Python" not in done.stdout
    assert done.returncode == 125, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
