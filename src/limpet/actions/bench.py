"""`limpet bench`: what starting the user's own environment costs, here."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from limpet import __version__
from limpet.actions.bench_imports import choose_imports
from limpet.actions.keep import none_left
from limpet.actions.launch import make_ready, plan_start
from limpet.actions.wrap import wrap_image
from limpet.core.bench import (
    BenchReport,
    Counted,
    Dropped,
    Start,
    State,
    Target,
    check_imports,
    plan_saving,
    spread,
)
from limpet.core.errors import ExistsError, HostError, ImageError, SpaceError, UsageError
from limpet.core.keep import VARIABLE
from limpet.core.launch import Launch
from limpet.core.seen import Request
from limpet.core.wrap import WrapRequest
from limpet.tools import counting, files, launchers, mounts
from limpet.tools.config import read_config

PATIENCE_S = 300.0
STATES: tuple[State, ...] = ("cold", "warm")
Tell = Callable[[str], None]


class BenchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured, and how often."""

    targets: tuple[str, ...]
    imports: tuple[str, ...]
    rounds: int = 5
    processes: int = 8
    config_file: str = ""
    cache_dir: str = ""


class _Way(msgspec.Struct, frozen=True, kw_only=True):
    """A command that starts Python in a target; `cold` are the files that it is to find cold.

    `kept`: what it starts in is mounted already, so it has no cold start.
    """

    target: str
    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cold: tuple[str, ...] = ()
    kept: bool = False


def bench(request: BenchRequest, tell: Tell = lambda _: None) -> BenchReport:
    """Count one start of each target, then time starts in turn."""
    request, chosen_from = _checked(request, tell)
    cache = files.cache_folder(request.cache_dir or read_config(request.config_file).cache_dir)
    load = os.getloadavg()[0]
    with files.passing_folder(cache / "tmp") as scratch, contextlib.ExitStack() as kept:
        found = [
            _folder(text, request, tell)
            if Path(text).is_dir()
            else _image(text, request, scratch / str(number), kept, tell)
            for number, text in enumerate(request.targets)
        ]
        ways = [way for _, more in found for way in more]
        starts, targets = _time(ways, [target for target, _ in found], request, tell)
    folders = [one for one in targets if one.kind == "folder"]
    return BenchReport(
        limpet=__version__,
        imports=request.imports,
        chosen_from=chosen_from,
        machine=os.uname().nodename,
        cores=len(os.sched_getaffinity(0)),
        load=round(load, 2),
        targets=tuple(targets),
        starts=tuple(starts),
        savings=tuple(plan_saving(one, request.processes) for one in folders),
    )


def _checked(request: BenchRequest, tell: Tell) -> tuple[BenchRequest, str]:
    """With what is to be imported; and the target that it was taken from where nobody said."""
    imports, chosen_from = check_imports(request.imports), ""
    if min(request.rounds, request.processes) < 1:
        raise UsageError("--rounds and --processes must be 1 or more.")
    if not request.targets:
        raise UsageError("There is nothing to measure.", now="Name an image or a folder.")

    for text in request.targets:
        if Path(text).is_dir():
            _python_of(Path(text).absolute())

    def plan(text: str, words: Sequence[str]) -> tuple[Sequence[str], dict[str, str]]:
        if Path(text).is_dir():
            return (_python_of(Path(text).absolute()), *words), dict(os.environ)
        launch = _planned(text, words, request)
        return launch.argv, launch.env

    if not imports:
        tell("finding out what to import")
        imports, chosen_from = choose_imports(request.targets, plan, timeout_s=PATIENCE_S)
    return msgspec.structs.replace(request, imports=imports), chosen_from


def check_output(path: Path, suffixes: Sequence[str], *, force: bool) -> None:
    """Refuse, before anything is measured, what could not be written afterwards."""
    if path.suffix not in suffixes:
        raise UsageError(f"--output {path}: it must end in {' or '.join(suffixes)}.")
    if path.exists() and not force:
        raise ExistsError(f"{path} is there already.", now="Use --force to replace it.")
    if not path.absolute().parent.is_dir():
        raise SpaceError(f"{path} cannot be written.", why="Its folder is not there.")


def write_picture(path: Path, text: str, *, force: bool) -> None:
    """Write it whole or not at all."""
    with files.written_beside(path, replace=force) as file:
        file.write(text.encode())


def _folder(text: str, request: BenchRequest, tell: Tell) -> tuple[Target, list[_Way]]:
    place = Path(text).absolute()
    python = _python_of(place)
    env = dict(os.environ)
    argv = (python, *counting.import_words(request.imports))
    tell(f"counting a start of {place}")
    probed, _ = _count(place, (python, *_probe_words(request)), env)
    roots = _roots(place, probed.bases)
    counted = counting.trace(argv, env, roots, timeout_s=PATIENCE_S)
    notes: list[str] = []
    if counted is None:
        notes.append("strace is not here or may not trace: Python counted its own imports.")
        counted = Counted(
            means="python",
            files=len(probed.paths),
            metadata=probed.opens + probed.stats + probed.lists,
            read_bytes=probed.size_bytes,
            paths=tuple(path for path in probed.paths if path.startswith(roots)),
        )
    elsewhere = [base for base in probed.bases if not base.startswith(roots)]
    if elsewhere:
        notes.append(f"Not counted: Python's own files in {elsewhere[0]}, on this node's disk.")
    way = _Way(target=text, name="folder", argv=argv, env=env, cold=counted.paths)
    kind = mounts.kind_of(place)
    target = Target(path=text, kind="folder", file_system=kind, counted=counted, notes=(*notes,))
    return target, [way]


def _python_of(place: Path) -> str:
    """A folder's own Python; UsageError where it has none."""
    found = [place / name for name in ("bin/python", "bin/python3")]
    python = next((path for path in found if os.access(path, os.X_OK)), None)
    if python is None or (place / ".singularity.d").exists():
        raise UsageError(
            f"{place} has no Python of its own.",
            why="There is no bin/python in it that can be started.",
            now="Name an image file, or the folder of a virtual or conda environment.",
        )
    # A trace that follows into the image traces what serves the image, and waits for itself.
    if any(launchers.is_ours(folder) for folder in python.resolve().parents):
        raise UsageError(
            f"{place} has a launcher for its Python, which starts an image.",
            now="Name that image: its launchers are measured, too.",
        )
    return str(python)


def _roots(place: Path, bases: Sequence[str]) -> tuple[str, ...]:
    """The folder under both its names, and its Python's own where that is on the same device."""
    found = [str(place), os.path.realpath(place)]
    device = place.stat().st_dev
    for base in bases:
        own = not base.startswith("/usr") and Path(base).exists()
        if own and Path(base).stat().st_dev == device:
            found += [base, os.path.realpath(base)]
    return tuple(dict.fromkeys(found))


def _image(
    text: str, request: BenchRequest, scratch: Path, kept: contextlib.ExitStack, tell: Tell
) -> tuple[Target, list[_Way]]:
    words = counting.import_words(request.imports)
    plain = _planned(text, words, request)
    wrap_image(text, scratch, WrapRequest(only=("python3",)), config_file=request.config_file)
    own = (sys.executable, "-P", "-m", "limpet", "--quiet", "run")
    here = {name: value for name, value in os.environ.items() if name != VARIABLE}
    starts = {
        "runtime": (plain.argv, plain.env),
        "limpet run": ((*own, text, "python3", *words), here),
        "launcher": ((str(scratch / "bin/python3"), *words), here),
    }
    path = Path(text).absolute()
    tell(f"counting a start of {path}")
    target = _count_image(text, path, _planned(text, _probe_words(request), request))
    ways = [
        _Way(target=text, name=name, argv=line, env=around, cold=(str(path),))
        for name, (line, around) in starts.items()
    ]
    # Last, so that nothing holds the image while the others' operations are counted.
    is_kept = kept.enter_context(none_left(text, config_file=request.config_file))
    line = (*own, "--keep", text, "python3", *words)
    counting.time_starts(line, here, 1)
    if is_kept():
        ways.append(_Way(target=text, name="kept", argv=line, env=here, kept=True))
    else:
        note = "It cannot be kept mounted here: limpet run --keep says why."
        target = msgspec.structs.replace(target, notes=(*target.notes, note))
    return target, ways


def _planned(text: str, words: Sequence[str], request: BenchRequest) -> Launch:
    """What `limpet run` becomes."""
    command = Request(command=("python3", *words))
    launch = plan_start(text, command, config_file=request.config_file)
    make_ready(launch)
    return launch


def _count_image(text: str, path: Path, launch: Launch) -> Target:
    probed, served = _count(path, launch.argv, launch.env, image=path)
    assert served
    notes = [
        f"Inside, {len(probed.paths)} files are opened; that stays on the node.",
        "Of its metadata operations only opens are counted, not looks at its attributes.",
    ]
    if served.reads is None:
        notes.append("The kernel reads this image itself: its reads cannot be counted.")
    counted = Counted(
        means="kernel",
        files=1,
        metadata=served.opens,
        reads=served.reads,
        read_bytes=served.read_bytes,
        paths=(str(path),),
    )
    kind = mounts.kind_of(path)
    return Target(path=text, kind="image", file_system=kind, counted=counted, notes=tuple(notes))


def _probe_words(request: BenchRequest) -> tuple[str, ...]:
    return counting.probe_words(request.imports)


def _count(
    path: Path, argv: Sequence[str], env: dict[str, str], image: Path | None = None
) -> tuple[counting.Probed, counting.Served | None]:
    try:
        return counting.count_by_python(argv, env, image, timeout_s=PATIENCE_S)
    except HostError as error:
        raise (ImageError if image else HostError)(
            f"The import fails in {path}.", why=error.what, now="Check --import and the packages."
        ) from error


def _time(
    ways: list[_Way], targets: list[Target], request: BenchRequest, tell: Tell
) -> tuple[list[Start], list[Target]]:
    """Every way in turn, so that what else the machine does meets all alike."""
    crowds = tuple(dict.fromkeys((1, request.processes)))
    taken: dict[tuple[str, str, State, int], list[float]] = {}
    dropped: dict[str, Dropped] = {}
    for number in range(request.rounds):
        tell(f"round {number + 1} of {request.rounds}")
        turn = number % len(ways)
        for way in ways[turn:] + ways[:turn]:
            for processes in crowds:
                for state in STATES[1:] if way.kept else STATES:
                    if state == "cold":
                        dropped[way.target] = counting.drop(way.cold)
                    seconds = counting.time_starts(way.argv, way.env, processes)
                    taken.setdefault((way.target, way.name, state, processes), []).append(seconds)
    starts = [
        Start(target=target, way=way, state=state, processes=count, taken=spread(values))
        for (target, way, state, count), values in sorted(
            taken.items(), key=lambda item: (item[0][2], item[0][3])
        )
    ]
    told = [msgspec.structs.replace(one, dropped=dropped[one.path]) for one in targets]
    return starts, told
