"""Sixteen things that leak, in every combination: as plans, and two by two in real starts.

What a launch makes of one of them does not depend on the others: the plan of each of the 65,536
combinations is composed of what each thing alone changes. So in real starts it is enough that every
two of them, there or not, meet under each policy, in each kind of image and way of starting.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from limpet.core import variables
from limpet.core.launch import Launch, plan_launch
from limpet.core.seen import HostSeen, ImageSeen, Request
from tests.isolation.expected import LOOKS, PASSES, SEEN, looks_seen, numpy_seen
from tests.isolation.poison import POISONS, apply_poisons, poisoned_variables
from tests.isolation.rows import POLICIES, Row, choose_rows, missing_pairs
from tests.isolation.test_matrix import HARMLESS, PROBE
from tests.launch.conftest import FACTS, Person
from tests.launch.test_launch_real import tree

NAMES = tuple(POISONS)
HOME = "/home/u"
VARIABLES = poisoned_variables(Path(HOME))
CASES = [(v, h, kind) for v in PASSES for h in SEEN for kind in ("own", "foreign")]
FOREIGN = ImageSeen(path="/i.sif", kind="sif", identity="img", title="i")
IMAGES = {"foreign": FOREIGN, "own": msgspec.structs.replace(FOREIGN, facts=FACTS)}
PLAIN = {"PATH": "/bin", "HOME": HOME, "SLURM_JOB_ID": "7", "MY_SETTING": "mine"}


def subset(number: int) -> tuple[str, ...]:
    return tuple(name for bit, name in enumerate(NAMES) if number >> bit & 1)


def plan(names: tuple[str, ...], case: tuple[str, str, str]) -> Launch:
    policy, home, kind = case
    personal = [POISONS[name].personal for name in names]
    host = HostSeen(
        runtime="/usr/bin/apptainer",
        runtime_kind="apptainer",
        runtime_version="1.4.5",
        arch=FACTS.arch,
        environment=PLAIN | {v: VARIABLES[v] for name in names for v in POISONS[name].variables},
        home=HOME,
        real_home=HOME,
        account_home=HOME,
        state=f"{HOME}/.local/state/limpet",
        cwd=f"{HOME}/project",
        personal={name: f"{HOME}/{name}" for name in personal if name},
    )
    request = msgspec.convert({"command": ["true"], "variables": policy, "home": home}, Request)
    return plan_launch(IMAGES[kind], host, request)


def parts_of(launch: Launch) -> set[tuple[object, ...]]:
    """All that a start is made of, in pieces that can be there or not."""
    lists = {name: getattr(launch, name) for name in ("mounts", "folders", "files", "notes")}
    return {
        *(("env", *pair) for pair in launch.env.items()),
        *(("verdict", one.name, one.passes, one.reason) for one in launch.verdicts),
        *((kind, piece) for kind, pieces in lists.items() for piece in pieces),
        ("pwd", launch.pwd),
    }


class Composer:
    """What each thing alone changes under one case, and plans composed of that."""

    def __init__(self, case: tuple[str, str, str]) -> None:
        self.none = parts_of(plan((), case))
        alone = {name: parts_of(plan((name,), case)) for name in NAMES}
        self.more = {name: parts - self.none for name, parts in alone.items()}
        self.less = {name: self.none - parts for name, parts in alone.items()}
        self.order = plan(NAMES, case).mounts

    def check(self, names: tuple[str, ...], launch: Launch) -> None:
        parts = self.none.difference(*(self.less[name] for name in names))
        parts = parts.union(*(self.more[name] for name in names))
        assert parts_of(launch) == parts, names
        assert launch.mounts == tuple(m for m in self.order if ("mounts", m) in parts), names


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The verdict on a variable is asked for a million times here, of a few dozen names."""
    judge: Callable[..., Any] = functools.cache(variables.judge_variable)
    monkeypatch.setattr(variables, "judge_variable", judge)
    yield


@pytest.mark.parametrize("part", range(8))
def test_every_combination_is_composed_of_single_ones(quick: None, part: int) -> None:
    """All of them, each under one pair of policies and kind of image, in turn."""
    composers = [Composer(case) for case in CASES]
    for number in range(part, 1 << len(NAMES), 8):
        turn = (number * 2654435761 >> 12) % len(CASES)  # by no bit of the number alone
        names = subset(number)
        composers[turn].check(names, plan(names, CASES[turn]))


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_every_two_of_them_under_every_policy(quick: None, case: tuple[str, str, str]) -> None:
    composer = Composer(case)
    for one in range(len(NAMES)):
        for other in range(one):
            names = subset(1 << one | 1 << other)
            composer.check(names, plan(names, case))


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_no_single_one_reaches_the_plan_where_the_tables_keep_it_out(
    case: tuple[str, str, str],
) -> None:
    policy, home, kind = case
    for name in NAMES:
        launch = plan((name,), case)
        seen = looks_seen((name,), kind, policy, home)[LOOKS[name][0]]
        for variable in POISONS[name].variables:
            values = (launch.env.get(variable), launch.env.get(f"APPTAINERENV_{variable}"))
            assert (VARIABLES[variable] in values) is seen
        if POISONS[name].personal and home == "isolated":
            covered = {mount.target for mount in launch.mounts}
            assert f"{HOME}/{POISONS[name].personal}" in covered


def test_every_two_meet_in_the_real_starts() -> None:
    rows = choose_rows()
    assert missing_pairs(rows) == set()
    assert missing_pairs(rows[1:]) != set()
    assert [(row.variables, row.home, row.way) for row in rows] == POLICIES
    assert rows == choose_rows()


@pytest.fixture(scope="module")
def launchers(work: Path, request: pytest.FixtureRequest) -> Callable[[Path, Row], Path]:
    """The launchers of an image for a pair of policies, made once."""
    made: dict[tuple[Path, str, str], Path] = {}

    def make(image: Path, row: Row) -> Path:
        key = (image, row.variables, row.home)
        if key not in made:
            person = Person(home=Path(tempfile.mkdtemp(dir=work)))
            folder = person.home / "launchers"
            policies = ("--variables", row.variables, "--home", row.home)
            done = person.limpet("wrap", image, folder, "--only", "python3", *policies)
            assert done.returncode == 0, done.stderr
            made[key] = folder
        return made[key] / "bin/python3"

    return make


@pytest.mark.real
@pytest.mark.parametrize("row", choose_rows(), ids=str)
def test_what_is_seen(
    person: Person,
    tmp_path: Path,
    own_image: Path,
    base_image: Path,
    launchers: Callable[[Path, Row], Path],
    row: Row,
) -> None:
    kind, way = row.way.split(" image, ")
    image = own_image if kind == "own" else base_image
    (person.home / "notes.txt").write_text("mine\n")
    session = apply_poisons(person.home, row.poisons, tmp_path) | HARMLESS
    before = tree(person.home)
    if way == "launcher":
        argv = [str(launchers(image, row)), "-c", PROBE]
        environment = {n: v for n, v in person.environment().items() if n != "PYTHONPATH"} | session
    else:
        # limpet's own Python is no subject of this: what is set is set when it has started.
        program = "import os, sys; from limpet.cli.main import main; "
        program += f"os.environ.update({session!r}); sys.exit(main(sys.argv[1:]))"
        policies = ["--variables", row.variables, "--home", row.home]
        words = ["run", *policies, str(image), "python3", "-c", PROBE]
        argv = [sys.executable, "-P", "-c", program, *words]
        environment = person.environment()
    done = subprocess.run(
        argv, env=environment, cwd=person.home, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    looks = {look for look, _ in LOOKS.values()}
    expected = looks_seen(row.poisons, kind, row.variables, row.home)
    assert {look: seen[look] for look in looks} == expected
    assert seen["numpy"] == numpy_seen(kind, row.home, in_home="~/.local" in row.poisons)
    assert seen["python"] == ("/opt/env" if kind == "own" else "/usr")
    assert set(HARMLESS) & set(seen["environment"]) == PASSES[row.variables]
    assert seen["other files"] is (row.home in ("isolated", "host"))
    if row.home != "host":
        assert tree(person.home) == before


@pytest.mark.real
def test_the_probe_sees_what_is_let_in(person: Person, base_image: Path, tmp_path: Path) -> None:
    """Each look finds its thing where that is asked for by name, or the home is the host's."""
    session = apply_poisons(person.home, POISONS, tmp_path)
    program = "import os, sys; from limpet.cli.main import main; "
    program += f"os.environ.update({session!r}); sys.exit(main(sys.argv[1:]))"

    def start(*names: str) -> subprocess.CompletedProcess[str]:
        asked = [word for name in names for word in ("--env", name)]
        words = ["run", "--home", "host", *asked, str(base_image), "python3", "-c", PROBE]
        return subprocess.run(
            [sys.executable, "-P", "-c", program, *words],
            env=person.environment(),
            cwd=person.home,
            capture_output=True,
            text=True,
            timeout=180,
        )

    done = start(*(name for name in session if name not in ("PYTHONHOME", "PYTHONUSERBASE")))
    seen = json.loads(done.stdout)
    unseen = {look for look, _ in LOOKS.values() if not seen[look]}
    assert unseen == {"PYTHONHOME", "PYTHONUSERBASE"}, done.stderr
    assert seen["numpy"] == "0.0.0"
    # It takes the place of ~/.local, so it has a start of its own, as has what breaks Python.
    seen = json.loads(start("PYTHONUSERBASE").stdout)
    assert seen["PYTHONUSERBASE"] and seen["numpy"] == "0.0.1"
    assert "PYTHONHOME names another place" in start("PYTHONHOME").stderr
