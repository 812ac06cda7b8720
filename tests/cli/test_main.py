"""The command line as a whole: words, exit codes, what is loaded."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from limpet.cli import build as build_module
from limpet.cli.main import COMMANDS, group, main
from limpet.cli.session import Session
from limpet.core.errors import BaseError, ImageError, UsageError
from limpet.core.events import Event, Notify
from limpet.core.plan import BuildPlan, BuildReport, Step
from limpet.core.request import BuildRequest

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("LIMPET_DEBUG", "LIMPET_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


REPORT = BuildReport(
    plan=BuildPlan(
        output=Path("/w/o.sif"),
        base="debian:trixie",
        digest="sha256:0",
        python="3.13.5",
        layout="merged",
        rewrites_base=False,
        packages=(Step(name="a", version="1", way="fetched", filename="a.whl"),),
        provided={},
        image_bytes=10,
    ),
    size_bytes=2048,
    elapsed_s=1.25,
)


class Actions:
    """Stands in for `limpet.actions.build`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.requests: list[tuple[str, BuildRequest]] = []
        self.error = error

    def build(self, request: BuildRequest, notify: Notify) -> BuildReport:
        return self._do("build", request, notify)

    def lock(self, request: BuildRequest, notify: Notify) -> BuildReport:
        return self._do("lock", request, notify)

    def _do(self, verb: str, request: BuildRequest, notify: Notify) -> BuildReport:
        self.requests.append((verb, request))
        notify(Event(stage="base", kind="start", message="pulling"))
        if self.error:
            raise self.error
        return REPORT


def stand_in(monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> Actions:
    import limpet.actions

    actions = Actions(error)
    monkeypatch.setattr(limpet.actions, "build", actions, raising=False)
    return actions


def test_a_build_becomes_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    actions = stand_in(monkeypatch)
    words = (
        "--config C --cache-dir K build r.in pyproject.toml -o o.sif --pip a --pip b>=2 --base B "
        "--python 3.12 --apt x --layout merged --compression gzip --isolated-from-base --extra e "
        "--group g --build-arg N=V=W --index-url U --extra-index-url X --find-links F "
        "--exclude-newer 2026-01-01 --frozen --lock l --upgrade --upgrade-package p --offline "
        "--force --jobs 3 --dry-run --name n --label k=v --build-dir D --system S"
    )
    assert main(words.split()) == 0
    expected = BuildRequest(
        recipes=("r.in", "pyproject.toml"),
        output="o.sif",
        lock="l",
        name="n",
        base="B",
        python="3.12",
        pip=("a", "b>=2"),
        apt=("x",),
        extras=("e",),
        groups=("g",),
        build_args={"N": "V=W"},
        labels={"k": "v"},
        layout="merged",
        compression="gzip",
        isolated_from_base=True,
        index_url="U",
        extra_index_urls=("X",),
        find_links=("F",),
        exclude_newer="2026-01-01",
        frozen=True,
        upgrade=True,
        upgrade_packages=("p",),
        offline=True,
        force=True,
        dry_run=True,
        jobs=3,
        system="S",
        cache_dir="K",
        build_dir="D",
        config_file="C",
    )
    assert actions.requests == [("build", expected)]


def test_every_field_of_a_request_can_be_said() -> None:
    context = click.Context(group)
    said = {"cache_dir", "config_file"}
    for verb in ("build", "lock"):
        command = group.get_command(context, verb)
        assert command
        said |= {parameter.name for parameter in command.params if parameter.name}
    assert said - {"as_json", "help", "debug", "verbose", "quiet"} == set(
        BuildRequest.__struct_fields__
    )


def test_locks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    actions = stand_in(monkeypatch)
    assert main(["lock", "r.in"]) == main(["lock", "--freeze", "i.sif"]) == 0
    assert [request.freeze for _, request in actions.requests] == ["", "i.sif"]
    assert main(["lock", "--freeze", "i.sif", "r.in"]) == 2
    assert "takes no recipe" in capsys.readouterr().err


def test_the_result_in_words_and_in_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch)
    main(["lock", "r.in"])
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "image     /w/o.sif (2.0 kB, merged)",
        "base      debian:trixie (sha256:0)",
        "python    3.13.5",
        "packages  1",
        "time      1.2 s",
    ]
    assert said.err.endswith(" s] base: pulling\n")
    main(["lock", "r.in", "--json"])
    said = capsys.readouterr()
    event, result = map(json.loads, said.out.splitlines())
    assert (event["stage"], event["kind"], said.err) == ("base", "start", "")
    assert (result["kind"], result["result"]["plan"]["output"]) == ("result", "/w/o.sif")
    main(["-q", "lock", "r.in"])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BaseError("What.", why="Why.", now="Now."), 5, "limpet: What.\nWhy.\nNow.\n"),
        (BaseError("A\x1b[2Jb\nc"), 5, "limpet: A\\x1b[2Jb\nc\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_failures_in_words(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand_in(monkeypatch, error)
    if isinstance(error, BrokenPipeError):
        error.errno = 32
        with pytest.raises(SystemExit) as left:
            main(["-q", "lock", "r.in"])
        assert left.value.code == code
        return
    assert main(["-q", "lock", "r.in"]) == code
    assert capsys.readouterr().err.strip() == said.strip()


def test_a_mistake_of_limpets_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, ZeroDivisionError("x\ny"))
    assert main(["-q", "lock", "r.in"]) == 70
    said = capsys.readouterr().err
    assert "ZeroDivisionError: x\\ny" in said and "--debug" in said and said.count("\n") == 1
    assert main(["-q", "--debug", "lock", "r.in"]) == 70
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("LIMPET_DEBUG", "1")
    assert main(["-q", "lock", "r.in"]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("biuld", 2, "Did you mean build?"),
        ("build", 2, "--output"),
        ("build -o x", 2, "nothing to build from"),
        ("build -o x r.in --label k", 2, "must be NAME=VALUE"),
        ("--no-such", 2, "No such option"),
        ("build -o /tmp r.in", 11, "/tmp is a folder."),
        ("build -o x r.in --profile p --no-profile", 2, "exclude each other"),
        ("update no-such.sif", 8, "There is no image"),
        ("run", 125, "Missing argument"),
        ("run --home moon x true", 125, "moon"),
        ("run x", 125, "no command to run"),
        ("run no-such.sif true", 125, "There is no image"),
        ("run x --home none true", 125, "Options stand before the image"),
        ("run x --help", 125, "Options stand before the image"),
        ("run --hom none x true", 125, "No such option '--hom'"),
        ("pip install x.sif six", 125, "limpet pip IMAGE install NAME"),
        ("pip --hom none x install six", 125, "No such option '--hom'"),
        ("run docker://a/b true", 125, "limpet build --base docker://a/b"),
        ("run --system moon x true", 125, "no such preset"),
        ("shell no-such.sif", 125, "There is no image"),
        ("inspect no-such.sif", 8, "There is no image"),
        ("inspect --json --lock x", 2, "exclude each other"),
        ("--config no-such.toml run x true", 125, "no configuration file no-such.toml"),
        ("help", 2, "limpet --help lists them."),
        ("build -o x r.in --base", 2, "limpet build --help shows"),
        ("completion", 2, "Choose from: bash, zsh, fish\n"),
    ],
)
def test_wrong_words(words: str, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == code
    out, err = capsys.readouterr()
    assert said in err and err.startswith("limpet: ") and not out


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == main(["--version"]) == main(["run", "-h"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("words", [[], ["cache"]])
def test_no_words_are_answered_with_the_help(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert err.startswith("Usage: limpet ") and not out
    assert "next build makes it" in " ".join(err.split()) or not words  # sentences are whole


def by_shell(line: str) -> subprocess.CompletedProcess[str]:
    """limpet in a shell's line, as `$limpet`."""
    words = f"limpet='{sys.executable} -P -m limpet'; {line}"
    env = {"PYTHONPATH": str(SOURCE), "HOME": "/", "PATH": os.environ["PATH"]}
    return subprocess.run(
        ["/bin/sh", "-c", words], env=env, capture_output=True, text=True, check=False
    )


def test_output_that_cannot_be_written_is_said_once() -> None:
    done = by_shell("$limpet --version >/dev/full")
    assert (done.returncode, done.stderr.count("No space left on device")) == (10, 1)
    assert "Exception" not in done.stderr
    assert by_shell("$limpet --version >&-").returncode == 0
    assert by_shell("$limpet biuld 2>&-").returncode == 2


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    done = by_shell(f"cd '{folder}' && rmdir '{folder}' && $limpet build r.in -o x.sif")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        9,
        "limpet: The working folder does not exist any more.",
    )


def test_a_commands_own_flags_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from limpet.actions import launch as actions

    seen: list[Any] = []

    def plan_start(image: str, request: Any, **_: str) -> None:
        seen.append((image, request.command, request.gpu))
        raise UsageError("enough")

    monkeypatch.setattr(actions, "plan_start", plan_start)
    words = ["python", "--home", "x", "-c", "--help", "--", "-q"]
    main(["run", "--gpu", "none", "i.sif", *words])
    main(["run", "--gpu", "none", "i.sif", "--", *words])
    assert seen == [("i.sif", tuple(words), "none")] * 2


def loaded(*words: str) -> set[str]:
    """The modules that a command line loads, in a process of its own."""
    script = (
        "import sys; from limpet.cli import main; main(sys.argv[1:]); "
        "print('|'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *words],
        env={"PYTHONPATH": str(SOURCE), "HOME": "/"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split("|"))


HEAVY = {"requests", "rich", "packaging", "tomlkit", "tomllib", "installer", "uv", "ssl", "asyncio"}
HEAVY |= {"backports.zstd", "compression.zstd", "urllib.request", "http.client", "email", "difflib"}


def test_help_loads_little() -> None:
    modules = loaded("--help")
    assert not modules & (HEAVY | {"msgspec", "subprocess", "json"})
    assert not [name for name in modules if name.startswith(("limpet.tools", "limpet.actions"))]


# Python's own that cost a start a millisecond and more each: OpenSSL, bz2, lzma …
SLOW = {"hashlib", "json", "subprocess", "shutil", "tempfile", "random", "dataclasses"}


def test_a_start_loads_little() -> None:
    modules = loaded("run", "no-such.sif", "true")
    assert "limpet.actions.launch" in modules
    assert not modules & (HEAVY | SLOW)
    assert not [name for name in modules if name.startswith("limpet.formats.squashfs")]


def test_pairs_need_both_sides() -> None:
    flags = {"recipes": ("r",), "pip": (), "build_args": ("=x",)}
    with pytest.raises(UsageError, match="--build-arg =x"):
        build_module.make_request(Session(), flags)


@pytest.mark.parametrize(
    ("words", "verbosity", "debug"),
    [
        ("-q inspect X", -1, False),
        ("inspect -q X", -1, False),
        ("inspect X --quiet", -1, False),
        ("-v inspect -v X", 2, False),
        ("-v run -q X -v", 0, False),  # what follows the image is the program's
        ("--debug inspect X", 0, True),
        ("inspect X --debug", 0, True),
    ],
)
def test_flags_of_the_session_before_and_after_the_command(
    words: str, verbosity: int, debug: bool
) -> None:
    session = Session()
    with contextlib.suppress(ImageError, UsageError):
        group.main(words.split(), standalone_mode=False, obj=session)
    assert (session.verbosity, session.debug) == (verbosity, debug)


def test_every_command_takes_the_sessions_flags_and_shows_its_own() -> None:
    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command
        taken = {word for param in command.params for word in param.opts}
        assert taken >= {"-q", "-v", "--debug", "--config", "--cache-dir"}
        assert len(command.params) == len({id(param) for param in command.params})
