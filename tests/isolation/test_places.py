"""Where things of the host are seen: links at the top of the file system, temporary folders."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from limpet.core.recipe import HomePolicy
from tests.launch.conftest import Person

pytestmark = pytest.mark.real
WITH_LINKS = Path(__file__).with_name("with_links.sh")
NAMES = ("/limpet-appl", "/limpet-pfs/appl")
GONE_AFTERWARDS = ("--pid", "--fork", "--kill-child", "--mount-proc")
SEEN = 'pwd -P; cat "$@"'


def start_with_links(
    person: Person, *words: str | Path, then: str = ""
) -> subprocess.CompletedProcess[str]:
    """`limpet WORDS` on a machine with such a link; or what a shell reads."""
    root = person.home.parent / "root"
    root.mkdir(exist_ok=True)
    own = ("unshare", "--user", "--map-current-user", "--keep-caps", "--mount", *GONE_AFTERWARDS)
    limpet = (sys.executable, "-P", "-m", "limpet") if words else ("bash", "-c", then)
    return subprocess.run(
        [*own, "bash", WITH_LINKS, root, *limpet, *words],
        env=person.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_the_working_folder_has_both_its_names(person: Person, foreign_sif: Path) -> None:
    data = [f"{name}/project/data" for name in NAMES]
    done = start_with_links(person, "run", foreign_sif, "sh", "-c", SEEN, "-", *data)
    assert done.stdout == "/limpet-pfs/appl/project\ndata\ndata\n", done.stderr


@pytest.mark.parametrize("bound", ["/limpet-appl/other", "/limpet-pfs/appl/other", "/limpet-pfs"])
def test_a_bind_has_both_its_names(person: Person, foreign_sif: Path, bound: str) -> None:
    data = [f"{name}/other/data" for name in NAMES]
    seen = ("sh", "-c", SEEN, "-", *data)
    done = start_with_links(person, "run", "--bind", bound, foreign_sif, *seen)
    assert done.stdout.endswith("\ndata\ndata\n"), done.stderr


def test_launchers_know_both_names(person: Person, foreign_sif: Path) -> None:
    data = [f"{name}/project/data" for name in NAMES]
    folder = person.home.parent / "launchers"
    words = ("wrap", foreign_sif, folder, "--folder", "/usr/bin", "--only", "sh", "--only", "cat")
    limpet = " ".join(shlex.quote(str(word)) for word in (sys.executable, "-P", "-m", "limpet"))
    made = " ".join(shlex.quote(str(word)) for word in words)
    launcher = shlex.quote(str(folder / "bin/sh"))
    seen = " ".join(("-c", shlex.quote(SEEN), "-", *data))
    done = start_with_links(person, then=f"{limpet} {made} >&2 && {launcher} {seen}")
    assert done.stdout == "/limpet-pfs/appl/project\ndata\ndata\n", done.stderr


@pytest.mark.parametrize("named", ["/limpet-appl", "/limpet-pfs/appl"])
def test_a_personal_folder_behind_a_link_at_the_top(
    person: Person, foreign_sif: Path, named: str
) -> None:
    """Inside, the home's own link leads to the image's folder, whichever name it has in it."""
    (person.home / ".cache").symlink_to(f"{named}/other")
    script = 'ls -A "$HOME/.cache"; touch "$HOME/.cache/new" && echo written'
    done = start_with_links(person, "run", foreign_sif, "sh", "-c", script)
    listed = done.stdout.splitlines()
    assert listed[-1:] == ["written"] and "data" not in listed, done.stderr


def test_a_temporary_folder_of_the_job_is_there(person: Person, foreign_sif: Path) -> None:
    scratch = person.home.parent / "node scratch"
    scratch.mkdir()
    script = 'echo "$TMPDIR"; touch "$TMPDIR/made"'
    env = {"TMPDIR": str(scratch)}
    done = person.limpet("run", foreign_sif, "sh", "-c", script, env=env)
    assert done.stdout == f"{scratch}\n", done.stderr
    assert (scratch / "made").exists()
    gone = person.limpet(
        "run", foreign_sif, "sh", "-c", "echo ${TMPDIR-none}", env={"TMPDIR": "/x"}
    )
    assert gone.stdout == "none\n", gone.stderr


STANDS = (".cache/x y/deep", ".local/share/x", ".conda/envs/e", ".jupyter/lab", "linked/x")
STAYS_OUT = (".config", ".local/lib/python3.13/site-packages", ".local/bin", "linked")
LOOK = "pwd; cat mine; echo inside > written; ls -A .."


def fill(person: Person) -> None:
    """Personal folders with something of the host's in them, one of them behind a link."""
    (person.home / "linked").mkdir()
    (person.home / ".keras").symlink_to("linked")
    for place in (*STANDS, *STAYS_OUT):
        folder = person.home / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine").write_text("mine\n")
        (folder.parent / "beside").touch()


@pytest.mark.parametrize(
    ("image", "way"),
    [("foreign_sif", "run"), ("limpet_sif", "run"), ("foreign_sif", "launcher")],
)
@pytest.mark.parametrize("home", ["isolated", "private", "none", "host"])
def test_a_working_folder_below_a_personal_one(
    person: Person, request: pytest.FixtureRequest, image: str, home: HomePolicy, way: str
) -> None:
    """It is there, and nothing beside it; what would be loaded from unasked is not."""
    fill(person)
    sif: Path = request.getfixturevalue(image)
    start: tuple[str | Path, ...] = ("run", "--home", home, sif, "sh")
    if way == "launcher":
        folder = person.home.parent / "launchers"
        words = ("--folder", "/usr/bin", "--only", "sh", "--home", home)
        made = person.limpet("wrap", sif, folder, *words)
        assert made.returncode == 0, made.stderr
        start = (folder / "bin/sh",)

    def stand_in(place: str) -> subprocess.CompletedProcess[str]:
        words = (*start, "-c", LOOK)
        if way == "run":
            return person.limpet(*words, cwd=person.home / place)
        argv = [str(word) for word in words]
        env, cwd = person.environment(), person.home / place
        return subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, timeout=180)

    for place in STANDS:
        done = stand_in(place)
        here, said, *around = done.stdout.splitlines()
        assert (here, said, done.stderr) == (str(person.home / place), "mine", "")
        assert (person.home / place / "written").read_text() == "inside\n"
        assert ("beside" in around) is (home == "host")
    for place in STAYS_OUT:
        if place == "linked" and home != "isolated":
            continue  # without the link in the home it is a folder like others
        done = stand_in(place)
        if home == "host":
            assert done.stdout.splitlines()[1] == "mine"
            continue
        assert "mine" not in done.stdout.splitlines()
        assert done.stdout.startswith("/\n" if home == "none" else f"{person.home}\n")
        assert "the host's personal folders stay outside" in done.stderr
        assert not (person.home / place / "written").exists()
