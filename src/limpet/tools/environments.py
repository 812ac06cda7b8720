"""Finds environments below folders, and measures one: by names alone, with no look at any file.

Directories are read by several threads, since on a parallel file system the time goes into waiting
for its servers. Links are never followed, so there are no loops.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from limpet.core.advice import Manager
from limpet.core.bench import Installed
from limpet.core.environments import (
    PSEUDO,
    VENV_MARK,
    Environment,
    Scan,
    choose_imports,
    classify,
    estimate_operations,
)
from limpet.core.errors import HostError
from limpet.core.file_systems import parse_mounts
from limpet.tools import process
from limpet.tools.mounts import read_mounts

THREADS = 8
TOLD_PLACES = 20
TOLD_EVERY_S = 1.0
IMPORT_TIMEOUT_S = 60
_DIST = re.compile(r"(.+?)-[^-]+(?:-py\d\S*)?\.(?:dist|egg)-info")
_CONDA = re.compile(r"(.+)-[^-]+-[^-]+\.json")
_COUNTED = "trace=%file,getdents64"


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """An environment's packages (normalised names) and its modules by top-level name."""

    packages: frozenset[str]
    modules: dict[str, int]
    path_entries: int


class _Count:
    """What was counted of one environment."""

    __slots__ = ("files", "folders", "manager", "path")

    def __init__(self, path: str, manager: Manager) -> None:
        self.path = path
        self.manager = manager
        self.files = 0
        self.folders = 1


class _Walk:
    """Folders still to be read, each with the environment that it belongs to."""

    def __init__(self, roots: Sequence[str], passed_over: frozenset[str]) -> None:
        self.found: list[_Count] = []
        self.unreadable: list[str] = []
        self.unreadable_count = 0
        self.files = 0
        self.folders = 0
        self._passed_over = passed_over
        self._waiting: list[tuple[str, _Count | None]] = [(root, None) for root in roots]
        self._working = 0
        self._condition = threading.Condition()
        self._error: BaseException | None = None

    def run(self, on_progress: Callable[[int, int], None]) -> None:
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(TOLD_EVERY_S)
                    on_progress(self.files, len(self.found))
        except BaseException as error:
            self._give_up(error)
            raise
        if self._error:
            raise self._error

    def _work(self) -> None:
        try:
            while batch := self._take():
                below = [one for place, owner in batch for one in self._read(place, owner)]
                with self._condition:
                    self._waiting += below
                    self._working -= 1
                    self._condition.notify_all()
        except BaseException as error:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        with self._condition:
            self._error = error
            self._condition.notify_all()

    def _take(self) -> list[tuple[str, _Count | None]]:
        """A few folders, the last found first, so that few are waiting; none when all is done."""
        with self._condition:
            while not self._waiting and self._working and not self._error:
                self._condition.wait()
            if self._error or not self._waiting:
                return []
            count = max(1, min(32, len(self._waiting) // THREADS))
            batch = self._waiting[-count:]
            del self._waiting[-count:]
            self._working += 1
            return batch

    def _read(self, place: str, owner: _Count | None) -> list[tuple[str, _Count | None]]:
        folders: list[str] = []
        files = 0
        marks: tuple[str, ...] = ()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    else:
                        files += 1
                        if entry.name == VENV_MARK:
                            marks = (VENV_MARK,)
        except OSError as error:
            self._note(f"{place}: {error.strerror}")
            return []
        manager = classify(place, folders, marks) if _may_begin(owner) else ""
        own = _Count(place, manager) if manager else owner
        with self._condition:
            self.files += files
            self.folders += 1
            if own is not None:
                own.files += files
                own.folders += own is owner
                if own is not owner:
                    self.found.append(own)
        below = ((f"{place.rstrip('/')}/{name}", own) for name in folders)
        return [one for one in below if one[0] not in self._passed_over]

    def _note(self, text: str) -> None:
        with self._condition:
            self.unreadable_count += 1
            if len(self.unreadable) < TOLD_PLACES:
                self.unreadable.append(text)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _may_begin(owner: _Count | None) -> bool:
    """conda keeps environments below its own; Spack's and EasyBuild's trees are one each."""
    return owner is None or owner.manager in ("conda", "user")


def scan(
    roots: Sequence[Path], on_progress: Callable[[int, int], None] = lambda files, found: None
) -> Scan:
    """All environments below these folders, largest first; each file is counted once."""
    started_s = time.monotonic()
    places = _outermost([os.path.realpath(root) for root in roots])
    walk = _Walk(places, _pseudo_mounts())
    walk.run(on_progress)
    environments = [
        Environment(
            path=one.path,
            manager=one.manager,
            files=one.files,
            folders=one.folders,
            owner=owner_of(one.path),
        )
        for one in walk.found
    ]
    return Scan(
        roots=tuple(places),
        environments=tuple(sorted(environments, key=lambda one: (-one.files, one.path))),
        files=walk.files,
        folders=walk.folders,
        unreadable=tuple(sorted(walk.unreadable)),
        unreadable_count=walk.unreadable_count,
        elapsed_s=time.monotonic() - started_s,
    )


def _outermost(places: list[str]) -> list[str]:
    """Without folders that lie in another of them."""
    kept: list[str] = []
    for place in sorted(set(places)):
        if not any(place.startswith(f"{above.rstrip('/')}/") for above in kept):
            kept.append(place)
    return kept


def _pseudo_mounts() -> frozenset[str]:
    mounted = parse_mounts(read_mounts())
    return frozenset(one.place for one in mounted if one.kind in PSEUDO)


def owner_of(path: str) -> str:
    """The owner's name, or number."""
    try:
        uid = Path(path).lstat().st_uid
    except OSError:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def read_manager(path: Path) -> Manager:
    """What kind of environment a folder is; "" for none."""
    try:
        with os.scandir(path) as entries:
            listed = [(entry.name, _is_folder(entry)) for entry in entries]
    except OSError:
        return ""
    folders = [name for name, is_folder in listed if is_folder]
    return classify(
        os.path.realpath(path), folders, [name for name, is_folder in listed if not is_folder]
    )


def find_site_packages(prefix: Path) -> list[Path]:
    """Where an environment's packages lie."""
    found = [prefix / "site-packages"] if (prefix / "site-packages").is_dir() else []
    for place in sorted(prefix.glob("lib*/python3*/site-packages")):
        if place.resolve() not in [one.resolve() for one in found]:  # lib64 is often a link to lib
            found.append(place)
    return found


def read_contents(prefix: Path) -> Contents:
    """Packages and modules, by the names of files."""
    packages: set[str] = set()
    modules: Counter[str] = Counter()
    folders = find_site_packages(prefix)
    for folder in folders:
        for name in _names(folder):
            if match := _DIST.fullmatch(name):
                packages.add(_normal(match[1]))
            elif (folder / name).is_dir() and not name.startswith((".", "__")):
                modules[name] += sum(
                    file.endswith(".py") for _, _, files in os.walk(folder / name) for file in files
                )
            elif name.endswith(".py"):
                modules[name.removesuffix(".py")] += 1
    for name in _names(prefix / "conda-meta"):
        if match := _CONDA.fullmatch(name):
            packages.add(_normal(match[1]))
    return Contents(
        packages=frozenset(packages), modules=dict(modules), path_entries=2 + len(folders)
    )


def read_installed(prefix: Path) -> tuple[Installed, ...]:
    """Its Python packages, and which of them pip or conda were asked for by name."""
    from importlib.metadata import distributions

    wanted = {_normal(name) for name in _conda_asked(prefix / "conda-meta")}
    found = {}
    for one in distributions(path=list(map(str, find_site_packages(prefix)))):
        name = one.metadata["Name"] if one.metadata else ""
        if name:
            found[_normal(name)] = Installed(
                name=name,
                asked=_normal(name) in wanted or one.read_text("REQUESTED") is not None,
                requires=tuple(one.requires or ()),
                record=one.read_text("RECORD") or "",
            )
    return tuple(found[name] for name in sorted(found))


def _conda_asked(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, AttributeError, KeyError):
            said = json.loads(path.read_bytes())
            if said.get("requested_spec") or said.get("requested_specs"):
                yield str(said["name"])


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def system_python(prefix: Path) -> str:
    """The operating system's Python that a virtual environment stands on, if it does."""
    with contextlib.suppress(OSError):
        text = (prefix / VENV_MARK).read_text("utf-8", errors="replace")
        found = re.search(r"(?m)^home *= *(.+)$", text)
        if found and found[1].strip() in ("/usr/bin", "/bin"):
            version = re.search(r"(?m)^version(?:_info)? *= *(\d+\.\d+)", text)
            return f"{found[1].strip()}/python3 ({version[1] if version else 'unknown'})"
    return ""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata operations of one start that imports `imports`, and how that is known."""

    operations: int
    how: str
    imports: tuple[str, ...] = ()


def measure_start(prefix: Path, contents: Contents, share: float) -> Cost:
    """Count a start under strace where it is there and the environment is the user's own.

    Nobody else's code is run; then, and without strace, the cost is estimated.
    """
    imports = choose_imports(contents.modules)
    modules = int(sum(contents.modules.values()) * share)
    operations = estimate_operations(modules, len(contents.modules), contents.path_entries)
    how = f"estimated from {modules:,} modules and {contents.path_entries} folders on sys.path"
    estimate = Cost(operations=operations, how=how, imports=imports)
    strace, python = process.find_program("strace"), prefix / "bin" / "python"
    with contextlib.suppress(OSError, HostError):
        if strace and python.exists() and prefix.stat().st_uid == os.geteuid():
            return _count_start(strace, python, imports) or estimate
    return estimate


_IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException:
        pass
"""


def _count_start(strace: Path, python: Path, imports: tuple[str, ...]) -> Cost | None:
    # The count goes to standard error, behind what the imports say.
    argv = ["timeout", "--signal=KILL", str(IMPORT_TIMEOUT_S)]  # all of the process group
    argv += [str(strace), "-f", "-qq", "-c", "-e", _COUNTED, "--"]
    done = process.run([*argv, python, "-I", "-B", "-c", _IMPORT, *imports])
    total = re.findall(r"(?m)^ *[\d.]+ +[\d.]+ +\d* +(\d+) +(?:\d+ )?total$", done.stderr)
    if not total:
        return None
    named = f" that imports {', '.join(imports)}" if imports else ""
    how = f"counted under strace, of a start{named}"
    return Cost(operations=int(total[-1]), how=how, imports=imports)
