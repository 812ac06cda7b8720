"""Where things of the host are seen: links at the top of the file system, temporary folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.conftest import Person

pytestmark = pytest.mark.real
WITH_LINKS = Path(__file__).with_name("with_links.sh")
NAMES = ("/limpet-appl", "/limpet-pfs/appl")
GONE_AFTERWARDS = ("--pid", "--fork", "--kill-child", "--mount-proc")
SEEN = 'pwd -P; cat "$@"'


def start_with_links(person: Person, *words: str | Path) -> subprocess.CompletedProcess[str]:
    root = person.home.parent / "root"
    root.mkdir(exist_ok=True)
    own = ("unshare", "--user", "--map-current-user", "--keep-caps", "--mount", *GONE_AFTERWARDS)
    limpet = (sys.executable, "-P", "-m", "limpet")
    return subprocess.run(
        [*own, "bash", WITH_LINKS, root, *limpet, *words],
        env=person.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
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
