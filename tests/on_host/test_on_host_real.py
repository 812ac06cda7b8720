"""Images on a Python of the host: built, started in every way, and held to that very Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import msgspec
import pytest

from limpet.core.errors import BaseError
from limpet.core.host_python import hook_files
from limpet.core.pylock import parse_lock
from limpet.tools.host_python import probe_host_python
from tests.conftest import Limpet
from tests.on_host.conftest import MINOR, BuildOn, add_package, asking

pytestmark = pytest.mark.real

TELL = (
    "import json, numbersite, ours, ssl, sys; "
    "print(json.dumps([sys.prefix, sys.base_prefix, ours.__file__, ours.__cached__, "
    "numbersite.__file__, numbersite.version]))"
)


def out_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_packages_become_one_file_and_the_python_stays(
    module_python: Path, build_on: BuildOn, limpet: Limpet, tmp_path: Path
) -> None:
    image = build_on(module_python, tmp_path / "an image.sif", "--lock", tmp_path / "pylock.toml")
    prefix = module_python.parent.parent
    lock = parse_lock((tmp_path / "pylock.toml").read_text("utf-8"), "")
    assert [one.name for one in lock.packages] == ["ours"]
    assert lock.provided == {"numbersite": "1.2"}
    assert lock.base.reference == f"host:{module_python}"
    assert image.stat().st_size < 200_000  # no system, no interpreter
    ours = f"/opt/env/lib/{MINOR}/site-packages/ours.py"
    for home in ("isolated", "private"):
        told = json.loads(out_of(limpet("run", "--home", home, image, "python", "-c", TELL)))
        assert told[:3] == ["/opt/env", str(prefix), ours]
        assert told[3].endswith(".pyc")
        assert told[4].startswith(f"{prefix}/")
    # The system around it is the host's.
    seen = out_of(limpet("run", image, "cat", "/etc/os-release"))
    assert seen == Path("/etc/os-release").read_text("utf-8")

    launchers = tmp_path / "launchers"
    out_of(limpet("wrap", "--host", image, launchers))
    done = subprocess.run(
        [launchers / "bin/python", "-c", TELL], capture_output=True, text=True, check=False
    )
    assert json.loads(out_of(done))[:3] == ["/opt/env", str(prefix), ours]
    assert done.stderr == ""

    shown = out_of(limpet("inspect", image))
    assert f"host:{module_python}" in shown
    same = tmp_path / "same.sif"
    wheel = tmp_path / "ours-2.0-py3-none-any.whl"
    words = ("--on", module_python, "--lock", tmp_path / "pylock.toml", "--frozen")
    out_of(limpet("build", *asking(wheel), *words, "-o", same, "--name", "an image"))
    assert same.read_bytes() == image.read_bytes()


def test_a_changed_python_is_told_at_every_start(
    own_python: Path, build_on: BuildOn, limpet: Limpet, tmp_path: Path
) -> None:
    image = build_on(own_python, tmp_path / "image.sif", "--lock", tmp_path / "pylock.toml")
    launchers = tmp_path / "launchers"
    out_of(limpet("wrap", image, launchers))
    program = own_python.resolve()

    def starts() -> list[subprocess.CompletedProcess[str]]:
        command = ("python", "-c", "import ours; print('ran')")
        wrapped: list[str | Path] = [launchers / "bin/python", *command[1:]]
        return [
            limpet("run", image, *command),
            subprocess.run(wrapped, capture_output=True, text=True, check=False),
        ]

    os.utime(program, (1, 1))  # a copy of the same is the same
    assert [out_of(done) for done in starts()] == ["ran\n", "ran\n"]

    keep = shutil.copy2(program, tmp_path / "keep")
    with program.open("ab") as file:
        file.write(b"!")
    for done in starts():
        refused(done, 125, f"{own_python.parent.parent}", "again")
    assert "[LMP701]" in limpet("check", image).stdout
    words = ("--on", own_python, "--lock", tmp_path / "pylock.toml", "--frozen")
    wheel = tmp_path / "ours-2.0-py3-none-any.whl"
    again = limpet("build", *asking(wheel), "-o", tmp_path / "no.sif", *words)
    refused(again, 4, "no longer what the lock says")
    assert not (tmp_path / "no.sif").exists()

    program.unlink()
    for done in starts():
        refused(done, 125, str(program), "not")
    shutil.copy2(keep, program)
    assert [out_of(done) for done in starts()] == ["ran\n", "ran\n"]
    with program.open("ab") as file:
        file.write(b"!")
    out_of(limpet("update", image, "--upgrade"))  # as the message says
    assert out_of(limpet("run", image, "python", "-c", "print('again')")) == "again\n"


def test_a_bare_start_says_what_is_missing(
    module_python: Path, build_on: BuildOn, tmp_path: Path
) -> None:
    image = build_on(module_python, tmp_path / "image.sif")
    bare = ["apptainer", "--silent", "exec", "--cleanenv"]
    folders = [name for name in ("/usr", "/bin", "/lib", "/lib64", "/etc") if Path(name).exists()]
    command = [str(image), "python", "-c", "import ours; print('ran')"]
    done = subprocess.run(
        [*bare, "--contain", *command], capture_output=True, text=True, check=False
    )
    refused(done, 125, "of the host, which is not seen here", "limpet run")
    prefix = module_python.parent.parent
    binds = [word for name in (*folders, prefix) for word in ("--bind", f"{name}")]
    done = subprocess.run([*bare, *binds, *command], capture_output=True, text=True, check=False)
    assert out_of(done) == "ran\n"


def test_other_packages_of_the_module_need_another_lock(
    own_python: Path, build_on: BuildOn, limpet: Limpet, tmp_path: Path
) -> None:
    lock = tmp_path / "pylock.toml"
    image = build_on(own_python, tmp_path / "image.sif", "--lock", lock)
    shutil.copytree(  # its folders are links to those that others use
        own_python.parent.parent / "lib", tmp_path / "lib", symlinks=True
    )
    shutil.rmtree(own_python.parent.parent / "lib")
    shutil.move(tmp_path / "lib", own_python.parent.parent / "lib")
    add_package(own_python, "1.5")
    wheel = tmp_path / "ours-2.0-py3-none-any.whl"
    words: tuple[str | Path, ...] = (*asking(wheel), "--on", own_python, "--lock", lock)
    done = limpet("build", *words, "-o", image, "--force", "--frozen")
    refused(done, 4, "numbersite 1.2, and now has 1.5")
    out_of(limpet("build", *words, "-o", image, "--force"))
    assert parse_lock(lock.read_text("utf-8"), "").provided == {"numbersite": "1.5"}


def test_a_recipe_with_sources_and_a_warm_import(
    module_python: Path, limpet: Limpet, tmp_path: Path
) -> None:
    """What a build runs, it runs on the host's Python; `pip` and `update` do as on any base."""
    project = tmp_path / "a project"
    (project / "src/near").mkdir(parents=True)
    (project / "src/near/__init__.py").write_text("where = 'near'\n", encoding="utf-8")
    (project / "pyproject.toml").write_text(
        "[project]\nname = 'near'\nversion = '1.0'\ndependencies = ['numbersite']\n"
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n",
        encoding="utf-8",
    )
    recipe = project / "limpet.toml"
    recipe.write_text(
        f'[image]\non = "{module_python}"\n[packages]\npip = ["./."]\n'
        '[warm]\nimports = ["near", "numbersite"]\n',
        encoding="utf-8",
    )
    image = tmp_path / "image.sif"
    out_of(limpet("build", recipe, "-o", image))
    say = "import near, numbersite; print(near.where, numbersite.version)"
    assert out_of(limpet("run", image, "python", "-c", say)) == "near 1.2\n"
    out_of(limpet("pip", image, "install", "six"))
    out_of(limpet("update", image, recipe, "--add", "markupsafe"))
    say = (
        "import markupsafe._speedups as speedups, six, near; print(speedups.__file__, six.__file__)"
    )
    told = out_of(limpet("run", image, "python", "-c", say)).split()
    assert told[0].startswith("/opt/env/")
    assert told[1].startswith("/.limpet/packages/")
    checked = limpet("check", image)  # libc, which a compiled module needs, is the host's
    assert "near" in out_of(checked)
    assert "LMP6" not in checked.stdout


def test_libraries_that_only_the_session_names(
    module_python: Path, build_on: BuildOn, limpet: Limpet, tmp_path: Path
) -> None:
    """A module's Python that finds its libpython by LD_LIBRARY_PATH alone."""
    config = sysconfig.get_config_vars()
    library = Path(str(config.get("LIBDIR")), str(config.get("INSTSONAME")))
    if not library.name.startswith("libpython") or not library.is_file():
        library = Path(f"/usr/lib/{os.uname().machine}-linux-gnu/lib{MINOR}.so.1.0")
    if not library.is_file():
        pytest.skip(f"There is no {library.name} to link with.")
    folder = tmp_path / "needs, libraries"
    (folder / "bin").mkdir(parents=True)
    (folder / "own libs").mkdir()
    (folder / "lib").symlink_to(module_python.parent.parent / "lib")
    # One more library between: the loader knows this system's own libpython without being told.
    own = folder / "own libs" / "libpython-of-the-module.so"
    source = tmp_path / "source.c"
    source.write_text(
        "int Py_BytesMain(int, char **);\nint begin(int, char **);\n"
        "#ifdef LIBRARY\nint begin(int n, char **words) { return Py_BytesMain(n, words); }\n"
        "#else\nint main(int n, char **words) { return begin(n, words); }\n#endif\n",
        encoding="utf-8",
    )
    python = folder / "bin/python3"
    named = f"-Wl,-soname,{own.name}"
    shared: list[str | Path] = [
        "gcc",
        "-DLIBRARY",
        "-shared",
        "-fPIC",
        source,
        library,
        named,
        "-o",
        own,
    ]
    subprocess.run(shared, check=True)
    links: list[str | Path] = ["gcc", f"-Wl,-rpath-link,{library.parent}", "-o", python]
    subprocess.run([*links, source, own], check=True)
    assert subprocess.run([python, "-V"], check=False, capture_output=True).returncode == 127
    done = limpet("build", "--pip", "x", "--on", python, "-o", tmp_path / "no.sif")
    refused(done, 5, own.name, "Load its module first")
    session = f"/nowhere:{folder / 'own libs'}:/usr/share"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", session)
        found = probe_host_python(python, os.uname().machine)
        assert found.variables == {"LD_LIBRARY_PATH": str(folder / "own libs")}
        assert str(own) in [file.path for file in found.files]
        image = build_on(python, tmp_path / "image.sif")
    # At a start nothing of it is set.
    say = "import ours, sys; print(sys.base_prefix)"
    assert out_of(limpet("run", image, "python", "-c", say)) == f"{folder}\n"
    with own.open("ab") as file:
        file.write(b"!")
    refused(limpet("run", image, "python", "-c", say), 125, own.name)


def test_another_library_than_at_the_build_is_noticed_by_the_python_itself(
    module_python: Path, tmp_path: Path
) -> None:
    found = probe_host_python(module_python, os.uname().machine)
    ask = ["-S", "-c", "import site, sys; site.addsitedir(sys.argv[1]); print('ran')"]
    for hexversion, code in ((found.hexversion, 0), (found.hexversion - 1, 125)):
        other = msgspec.structs.replace(found, hexversion=hexversion)
        for name, text in hook_files(other).items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        done = subprocess.run(
            [module_python, *ask, tmp_path], capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert done.stdout == ("ran\n" if code == 0 else "")
        assert ("built on Python" in done.stderr) is bool(code)


def test_what_is_no_python_to_build_on(module_python: Path, limpet: Limpet, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.write_text("#!/bin/sh\n", encoding="utf-8")
    old = tmp_path / "old"
    told = {
        **dict.fromkeys(("cache_tag", "libc"), ""),
        **dict.fromkeys(("prefix", "base_prefix", "base_exec_prefix"), "/usr"),
        "executable": str(old),
        "version": "3.6.8",
        "hexversion": 0x030608F0,
        "machine": os.uname().machine,
        **dict.fromkeys(("path", "modules", "mapped"), ()),
    }
    old.write_text(f"#!/bin/sh\nprintf '\\nhost %s\\n' '{json.dumps(told)}'\n", encoding="utf-8")
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\nexec "{module_python}" "$@"\n', encoding="utf-8")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "gone")
    for path in (old, script):
        path.chmod(0o755)
    venv = tmp_path / "a venv"
    subprocess.run([module_python, "-m", "venv", "--without-pip", venv], check=True)
    cases = (
        (tmp_path / "nothing", ("There is no such file", "module")),
        (dangling, ("A link leads nowhere",)),
        (module_python.parent.parent, ("It is a folder", "bin/python3")),
        (closed, ("may not be run",)),
        (Path("/bin/true"), ("Is it a Python?",)),
        (old, ("It is Python 3.6.8", "3.8 or newer")),
        (script, ("starts another program", str(module_python.resolve()))),
        (venv / "bin/python", ("virtual environment", f"limpet pack {venv}")),
    )
    for python, words in cases:
        with pytest.raises(BaseError) as raised:
            probe_host_python(python, os.uname().machine)
        assert raised.value.now or python == closed
        for word in words:
            assert word in str(raised.value)


def test_what_does_not_go_with_a_python_of_the_host(
    module_python: Path, limpet: Limpet, tmp_path: Path
) -> None:
    image = tmp_path / "image.sif"
    build = ("build", "--pip", "six", "-o", image)
    refused(limpet(*build, "--on", "no-such-python"), 5, "in PATH")
    on = (*build, "--on", module_python)
    refused(limpet(*on, "--base", "debian:trixie"), 2, "exclude each other")
    refused(limpet(*on, "--apt", "git"), 3, "stay on the host")
    refused(limpet(*on, "--conda", "zlib", "--channel", "x"), 3, "stay on the host")
    assert not image.exists()
