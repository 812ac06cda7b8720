"""Starts with the real Apptainer, as a plain user."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.launch.conftest import SOURCE, Person

pytestmark = pytest.mark.real

AWKWARD = "a$HOME `id -u` \"q\" 'x' \\back $(echo x)\nsecond line,comma"


def tree(folder: Path) -> set[str]:
    # The runtime itself keeps its settings in ~/.apptainer, whatever starts it.
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if ".apptainer" not in path.relative_to(folder).parts
    }


def test_exit_code_and_arguments_pass_through(person: Person, foreign_sif: Path) -> None:
    script = 'printf "%s|" "$@"; exit 42'
    done = person.limpet("run", foreign_sif, "sh", "-c", script, "-", "$HOME", "`id`", "a b", "")
    assert (done.stdout, done.stderr, done.returncode) == ("$HOME|`id`|a b||", "", 42)


def test_a_signal_is_seen(person: Person, foreign_sif: Path) -> None:
    done = person.limpet("run", foreign_sif, "sh", "-c", "kill -TERM $$")
    assert done.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_a_closed_pipe_ends_the_program(person: Person, foreign_sif: Path) -> None:
    script = '"$0" -P -m limpet run "$1" sh -c "yes; echo not ended >&2" | head -n 1'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable, str(foreign_sif)],
        env={**os.environ, "HOME": str(person.home), "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=180,
        cwd=person.home,
    )
    assert (done.stdout, "Broken pipe" in done.stderr) == ("y\n", False)


def test_variables_arrive_unchanged_or_not_at_all(person: Person, foreign_sif: Path) -> None:
    host = {
        "SLURM_JOB_NAME": AWKWARD,
        "PYTHONPATH_X": "1",
        "CONDA_PREFIX": "/host",
        "LD_LIBRARY_PATH": "/nowhere",
        "BASH_FUNC_ls%%": "() { echo hijacked; }",
        "NOBODY_ASKED": "1",
        "APPTAINERENV_MINE": "kept",
        "APPTAINERENV_OTHER": "overridden",
    }
    done = person.limpet(
        *("run", "-e", f"NAMED={AWKWARD}", "-e", "OTHER=ours", foreign_sif, "env", "-0"), env=host
    )
    inside = dict(pair.split("=", 1) for pair in done.stdout.rstrip("\0").split("\0"))
    assert inside["SLURM_JOB_NAME"] == inside["NAMED"] == AWKWARD
    assert (inside["MINE"], inside["OTHER"]) == ("kept", "ours")
    assert inside["PATH"].endswith(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    assert not inside.keys() & {"PYTHONPATH", "PYTHONPATH_X", "CONDA_PREFIX", "NOBODY_ASKED"}
    assert inside.get("LD_LIBRARY_PATH", "") in ("", "/.singularity.d/libs")
    assert not [name for name in inside if name.startswith("BASH_FUNC")]


def test_the_printed_command_does_the_same(person: Person, foreign_sif: Path) -> None:
    words = ("-e", f"NAMED={AWKWARD}", foreign_sif, "sh", "-c", 'printf "%s\\n" "$NAMED $BAD"; pwd')
    planned = person.limpet("run", "--dry-run", *words, env={"BAD": "1"})
    env = {"PATH": os.environ["PATH"], "HOME": str(person.home), "BAD": "1"}
    by_hand = subprocess.run(
        ["bash", "-c", planned.stdout], env=env, cwd=person.home, capture_output=True, text=True
    )
    assert by_hand.stdout == f"{AWKWARD} \n{person.home}\n", by_hand.stderr
    assert person.limpet("run", *words, env={"BAD": "1"}).stdout == by_hand.stdout


WRITE = (
    'mkdir -p "$HOME/.cache"; echo new > "${XDG_CACHE_HOME:-$HOME/.cache}/c"; '
    'echo new > "${KERAS_HOME:-$HOME/.keras}/k" 2>/dev/null || { mkdir -p "$KERAS_HOME"; '
    'echo new > "$KERAS_HOME/k"; }; cat "$HOME/.cache/real"; cat "$HOME/notes"'
)


def test_isolated_home(person: Person, foreign_sif: Path) -> None:
    (person.home / ".cache").mkdir()
    (person.home / ".cache/real").write_text("real")
    (person.home / "notes").write_text("my notes")
    before = tree(person.home)
    done = person.limpet("run", foreign_sif, "sh", "-c", WRITE)
    assert done.stdout == "my notes", done.stderr
    assert tree(person.home) == before
    kept = tree(person.home.parent / "state")
    assert {path.split("/", 2)[2] for path in kept if path.count("/") > 1} >= {
        ".cache/c",
        ".keras/k",
    }
    # and it is there again next time, also where the real folder has come into being since
    (person.home / ".keras").mkdir()
    again = person.limpet("run", foreign_sif, "cat", f"{person.home}/.keras/k")
    assert again.stdout == "new\n", again.stderr


def test_isolated_home_with_links(person: Person, foreign_sif: Path) -> None:
    scratch = person.home.parent / "scratch"
    (scratch / "cache").mkdir(parents=True)
    (scratch / "cache/real").write_text("real")
    (person.home / ".cache").symlink_to(scratch / "cache")
    (person.home / ".config").symlink_to(scratch / "nowhere")
    before = tree(person.home.parent)
    script = 'cat "$HOME/.cache/real"; touch "$HOME/.cache/new"; ls "$HOME/.cache"'
    for flags in ((), ("--bind", scratch)):
        done = person.limpet("run", *flags, foreign_sif, "sh", "-c", script)
        assert "new" in done.stdout.splitlines() and "real" not in done.stdout, done.stderr
    after = {
        path for path in tree(person.home.parent) if path.split("/")[0] not in ("state", "cache")
    }
    assert after == before


def test_home_reached_over_a_link(person: Person, foreign_sif: Path) -> None:
    link = person.home.parent / "link"
    link.symlink_to(person.home)
    (person.home / "project").mkdir()
    done = person.limpet(
        *("run", foreign_sif, "sh", "-c", 'pwd; echo "$HOME"'),
        cwd=person.home / "project",
        env={"HOME": str(link)},
    )
    assert done.stdout == f"{link}/project\n{link}\n", done.stderr


def test_read_only_home(person: Person, foreign_sif: Path) -> None:
    (person.home / ".cache").mkdir()
    person.home.chmod(0o555)
    state = person.home / ".local/state/limpet"
    before = tree(person.home)
    done = person.limpet(
        *("run", foreign_sif, "sh", "-c", 'touch "$HOME/.cache/x" && echo ok'),
        env={"LIMPET_STATE_DIR": str(state), "TMPDIR": str(person.home.parent)},
    )
    assert done.stdout == "ok\n", done.stderr
    assert "cannot be written" in done.stderr and "LIMPET_STATE_DIR" in done.stderr
    person.home.chmod(0o755)
    assert tree(person.home) == before


def test_private_home_keeps_apart(person: Person, foreign_sif: Path) -> None:
    (person.home / "notes").write_text("mine")
    project = person.home / "project"
    project.mkdir()
    script = 'ls "$HOME"; echo "$HOME"; touch "$HOME/kept" here; pwd'
    done = person.limpet("run", "--home", "private", foreign_sif, "sh", "-c", script, cwd=project)
    assert done.stdout == f"project\n{person.home}\n{project}\n", done.stderr
    assert tree(person.home) == {"notes", "project", "project/here"}
    assert any(path.endswith("home/kept") for path in tree(person.home.parent / "state"))


@pytest.mark.parametrize("below", ["/tmp", "/var/tmp"])
def test_private_home_keeps_apart_below_tmp(person: Person, foreign_sif: Path, below: str) -> None:
    """The runtime mounts the machine's /tmp over the home that it was told."""
    with tempfile.TemporaryDirectory(dir=below) as name:
        home = Path(name, "home")
        project = home / "project"
        project.mkdir(parents=True)
        (home / "notes").write_text("mine")
        script = 'ls "$HOME"; touch "$HOME/kept" here; pwd'
        words = ("--home", "private", foreign_sif, "sh", "-c", script)
        env = {"HOME": str(home)}
        done = person.limpet("run", *words, cwd=project, env=env)
        assert done.stdout == f"project\n{project}\n", done.stderr
        done = person.limpet("run", *words, cwd=home, env=env)
        assert done.stdout == f"kept\nproject\n{home}\n", done.stderr
        assert tree(home) == {"notes", "project", "project/here"}


def test_no_home_but_the_working_folder(person: Person, foreign_sif: Path) -> None:
    (person.home / "notes").write_text("mine")
    project = person.home / "project"
    project.mkdir()
    script = f'pwd; touch here; ls -A "{person.home}"'
    done = person.limpet("run", "--home", "none", foreign_sif, "sh", "-c", script, cwd=project)
    assert done.stdout == f"{project}\nproject\n", done.stderr
    assert (project / "here").exists()


def test_host_home(person: Person, foreign_sif: Path) -> None:
    (person.home / ".cache").mkdir()
    (person.home / ".cache/real").write_text("real")
    done = person.limpet("run", "--home", "host", foreign_sif, "cat", f"{person.home}/.cache/real")
    assert done.stdout == "real"


def test_the_image_keeps_its_own_folders(person: Person, foreign_sif: Path) -> None:
    done = person.limpet("run", foreign_sif, "cat", "/etc/the-image", cwd=Path("/etc"))
    assert done.stdout == "yes\n"
    assert "/etc is not seen inside" in done.stderr


def test_binds(person: Person, foreign_sif: Path) -> None:
    odd = person.home.parent / "a,b:c d"
    odd.mkdir()
    (odd / "f").write_text("odd")
    plain = person.home.parent / "plain"
    plain.mkdir()
    done = person.limpet(
        *("run", "--home", "none", "--bind", f"{plain}:/data:ro", "--bind", plain, foreign_sif),
        *("sh", "-c", f'touch "{plain}/new" /data/x; ls /data; cat f'),
        cwd=odd,
    )
    assert done.stdout == "new\nodd", done.stderr
    assert "Read-only" in done.stderr
    absent = person.limpet("run", "--bind", "nowhere", foreign_sif, "true")
    assert absent.returncode == 125 and "nowhere: there is no such" in absent.stderr


def test_a_bind_of_the_users_own_session(person: Person, foreign_sif: Path) -> None:
    (person.home.parent / "data").mkdir()
    (person.home.parent / "data/f").touch()
    bind = f"{person.home.parent}/data:/mnt"
    done = person.limpet("run", foreign_sif, "ls", "/mnt", env={"APPTAINER_BIND": bind})
    assert done.stdout == "f\n", done.stderr


def test_a_limpet_image_starts_through_its_layer(person: Person, limpet_sif: Path) -> None:
    done = person.limpet("run", limpet_sif, "sh", "-c", 'echo "$LAYER $1"; exit 3', "-", "a  b")
    assert (done.stdout, done.stderr, done.returncode) == ("there a  b\n", "", 3)


def test_a_dropped_layer_is_an_error(person: Person, limpet_sif: Path) -> None:
    done = person.limpet("run", limpet_sif, "env", env={"APPTAINER_UNDERLAY": "1"})
    assert (done.stdout, done.returncode) == ("", 125)
    assert "without its environment: /opt/env" in done.stderr
    assert "--layout merged" in done.stderr


def test_shell(person: Person, foreign_sif: Path) -> None:
    (person.home / ".bashrc").write_text("echo HIJACKED\n")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(person.home)
        env = {"PATH": os.environ["PATH"], "HOME": str(person.home), "PYTHONPATH": str(SOURCE)}
        env |= {"TERM": "dumb", "LIMPET_STATE_DIR": str(person.home.parent / "state")}
        argv = [sys.executable, "-P", "-m", "limpet", "shell", str(foreign_sif)]
        os.execve(argv[0], argv, env)
    os.write(terminal, b"echo $((40+2)); exit 7\n")
    said = b""
    try:
        while piece := os.read(terminal, 4096):
            said += piece
    except OSError:  # a terminal that nobody holds any more reads as EIO
        pass
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    text = said.decode()
    assert code == 7, text
    assert "\n42\r" in text and "HIJACKED" not in text
    assert re.search(r"\[foreign___touch_x___\] ", text), text


@pytest.mark.parametrize("name", ["absent", "text", "cut", "folder", "unreadable"])
def test_what_is_no_image(person: Person, foreign_sif: Path, name: str) -> None:
    path = person.home.parent / name
    expected = {
        "absent": "There is no image",
        "text": "is no SIF image",
        "cut": "cut off",
        "folder": "no root file system",
        "unreadable": "cannot be read",
    }[name]
    if name == "text":
        path.write_text("hello")
    if name == "cut":
        path.write_bytes(foreign_sif.read_bytes()[:200_000])
    if name == "folder":
        path.mkdir()
    if name == "unreadable":
        path.write_text("")
        path.chmod(0)
    done = person.limpet("run", path, "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert expected in done.stderr and str(path) in done.stderr


def test_a_sandbox_and_a_squashfs(person: Person, work: Path, root_squashfs: Path) -> None:
    for image in (work / "root", root_squashfs):
        done = person.limpet("run", image, "cat", "/etc/the-image")
        assert (done.stdout, done.returncode) == ("yes\n", 0), done.stderr


def test_no_runtime_and_an_old_one(person: Person, foreign_sif: Path) -> None:
    done = person.limpet("run", foreign_sif, "true", env={"PATH": "/nowhere"})
    assert done.returncode == 125 and "No container runtime" in done.stderr
    old = person.home / "apptainer"
    old.write_text("#!/bin/sh\necho apptainer version 1.0.3\n")
    old.chmod(0o755)
    done = person.limpet("run", foreign_sif, "true", env={"LIMPET_RUNTIME": str(old)})
    assert done.returncode == 125 and "too old" in done.stderr


def test_a_reader_that_leaves_early(person: Person, limpet_sif: Path) -> None:
    for words in ("--help", 'inspect "$1"'):
        done = subprocess.run(
            ["bash", "-c", f'"$0" -P -m limpet {words} | true', sys.executable, limpet_sif],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""


def test_completion(person: Person) -> None:
    env = {"_LIMPET_COMPLETE": "bash_complete", "COMP_WORDS": "limpet in", "COMP_CWORD": "1"}
    assert person.limpet(env=env).stdout == "plain,inspect\n"


def test_binds_of_the_configuration(person: Person, foreign_sif: Path) -> None:
    data = person.home.parent / "site data"
    data.mkdir()
    (data / "f").touch()
    config = person.home.parent / "config.toml"
    config.write_text(f'binds = ["/no/such"]\n[systems.big]\nbind = ["{data}:/data"]\n')
    words = ("--config", config, "run", "--system", "big", foreign_sif, "ls", "/data")
    done = person.limpet(*words)
    assert (done.stdout, done.returncode) == ("f\n", 0)
    assert done.stderr == "limpet: /no/such does not exist here.\n"
    assert person.limpet("-q", *words).stderr == ""


def test_the_user_wins_over_the_image_and_the_image_over_the_host(
    person: Person, limpet_sif: Path
) -> None:
    script = 'echo "$COLOUR $SHAPE $PYTHONUSERBASE"'
    words = ("run", "--variables", "host", "-e", "COLOUR=user", limpet_sif, "sh", "-c", script)
    done = person.limpet(*words, env={"COLOUR": "host", "SHAPE": "host"})
    assert done.stdout == "user image /.limpet/home/.local\n", done.stderr


def test_a_shell_in_a_limpet_image_is_in_its_environment(person: Person, limpet_sif: Path) -> None:
    done = person.limpet("shell", limpet_sif, stdin='echo "$LAYER ${PATH%%:*}"; exit 4\n')
    assert (done.stdout, done.returncode) == ("there /.limpet/pip/bin\n", 4), done.stderr
