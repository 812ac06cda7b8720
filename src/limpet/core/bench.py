"""What a start costs: what `limpet bench` counts and measures, and what follows from it."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from packaging.utils import canonicalize_name

from limpet.core.errors import UsageError
from limpet.core.profile import parse_modules

# How long programs take is told for each state of the page cache.
State = Literal["cold", "warm"]
Means = Literal["strace", "python", "kernel"]

_PACKAGE = re.compile(r"[A-Za-z0-9][\w.-]*")
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_LINE = re.compile(r"(?P<pid>\d+) +(?P<call>\w+)\((?P<rest>.*)")
_RESUMED = re.compile(r"(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)")
_QUOTED = re.compile(r'(?:\w+<(?P<at>[^>]*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_OPEN_FILE = re.compile(r"\d+<(?P<path>[^>]*)>")
_UNFINISHED = " <unfinished ...>"
_READING = {"read", "pread64", "readv", "preadv", "preadv2"}
_OPENING = {"open", "openat", "openat2"}
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)")
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"v": b"\v", b"f": b"\f"}


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What one start asks of the file system that the folder or image lies on.

    `files` are opened, `metadata` operations are all that is no reading (opens, looks for
    attributes, links and listings, also in vain); of an image, opens only. `read_bytes`: of a
    folder, bytes read and the sizes of mapped files. None: cannot be counted here. `means`: who
    counted; `python`: Python itself, without its own beginnings and the loader's searches.
    """

    means: Means
    files: int
    metadata: int
    reads: int | None = None
    read_bytes: int | None = None
    paths: tuple[str, ...] = ()


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of several rounds."""

    median_s: float
    least_s: float
    most_s: float
    rounds: int


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """How long `processes` started at once take until the last has ended.

    `way`: `folder`; of an image the bare `runtime`, `limpet run`, a `launcher`, or `kept`, in an
    instance that holds it mounted, which has no cold start of its own.
    """

    target: str
    way: str
    state: State
    processes: int
    taken: Spread


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken out of the page cache, in bytes; `unknown_files`: the kernel tells only whom
    may write to them what is left of them.
    """

    files: int = 0
    size_bytes: int = 0
    left_bytes: int = 0
    unknown_files: int = 0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A folder or an image: what it is, where it lies, and what a start of it asks for."""

    path: str
    kind: Literal["folder", "image"]
    file_system: str
    counted: Counted
    dropped: Dropped = Dropped()
    notes: tuple[str, ...] = ()


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """A Python package: whether it was `asked` for by name, what it requires, its RECORD."""

    name: str
    asked: bool = False
    requires: tuple[str, ...] = ()
    record: str = ""


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """What one file in the folder's place would save: operations of `processes` starts."""

    path: str
    processes: int
    files: int
    folder_operations: int
    image_operations: int
    command: tuple[str, ...]


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that was counted and measured; `cores` and `load` are those of the machine.

    `chosen_from`: the target whose own packages are imported, where nobody named any.
    """

    limpet: str
    imports: tuple[str, ...]
    chosen_from: str = ""
    machine: str
    runtime: str = ""
    cores: int
    load: float
    targets: tuple[Target, ...]
    starts: tuple[Start, ...]
    savings: tuple[Saving, ...] = ()


# What an image's start asks besides reading, whatever is in it: limpet, the runtime and what mounts
# it look at the file and open it. Counted by bench/start.py with Apptainer 1.4.5; 6 without limpet.
IMAGE_METADATA = 9


_TOOLS = frozenset(("pip", "setuptools", "wheel", "uv"))  # whoever asked, not for programs
MOST_IMPORTS = 30


def plan_imports(installed: Iterable[Installed]) -> tuple[str, ...]:
    """The modules of the packages that were asked for; where none was, of those that none needs."""
    found = [one for one in installed if canonicalize_name(one.name) not in _TOOLS]
    needed = {
        canonicalize_name(named[0])
        for one in found
        for line in one.requires
        if "extra" not in line and (named := _PACKAGE.match(line))
    }
    chosen = [one for one in found if one.asked]
    chosen = chosen or [one for one in found if canonicalize_name(one.name) not in needed]
    modules = (name for one in chosen for name in parse_modules(one.record))
    return tuple(dict.fromkeys(modules))[:MOST_IMPORTS]


def nothing_to_import(why: str = "") -> UsageError:
    """Nobody named a module, and none is known."""
    return UsageError(
        "There is nothing to import.",
        why=why,
        now="Name what your programs import: --import numpy --import pandas.",
    )


def check_imports(names: Sequence[str]) -> tuple[str, ...]:
    """The modules to import, each once; UsageError where one is no name."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"--import {name}: it must be a module's name, such as scipy.linalg.")
    return tuple(dict.fromkeys(names))


def spread(taken_s: Sequence[float]) -> Spread:
    """The median and its surroundings."""
    return Spread(
        median_s=statistics.median(taken_s),
        least_s=min(taken_s),
        most_s=max(taken_s),
        rounds=len(taken_s),
    )


def plan_saving(target: Target, processes: int) -> Saving:
    """One file instead of a folder: every start mounts it anew, nothing is shared."""
    counted = target.counted
    return Saving(
        path=target.path,
        processes=processes,
        files=counted.files,
        folder_operations=counted.metadata * processes,
        image_operations=IMAGE_METADATA * processes,
        command=("limpet", "pack", target.path, "-o", f"{target.path.rstrip('/')}.sif"),
    )


def compare(starts: Iterable[Start]) -> tuple[tuple[Start, float], ...]:
    """Each start with its median's ratio to the quickest of the same state and number."""
    known = tuple(starts)
    best: dict[tuple[str, int], float] = {}
    for one in known:
        key = (one.state, one.processes)
        best[key] = min(best.get(key, one.taken.median_s), one.taken.median_s)
    return tuple((one, one.taken.median_s / best[one.state, one.processes]) for one in known)


def parse_strace(text: str, roots: Sequence[str], cwd: str) -> tuple[Counted, frozenset[str]]:
    """What `strace -f -y` of a start says of what lies below `roots`, and the files it mapped.

    The bytes are those of reads: a trace does not tell which pages of a mapped file are looked at.
    """
    seen = _Seen(roots, cwd)
    pending: dict[str, str] = {}
    for line in text.splitlines():
        if resumed := _RESUMED.match(line):
            whole = pending.pop(resumed["pid"], "") + resumed["rest"]
        elif line.endswith(_UNFINISHED):
            start = line.removesuffix(_UNFINISHED)
            pending[start.split(" ", 1)[0]] = start
            continue
        else:
            whole = line
        if found := _LINE.match(whole):
            seen.take(found["call"], found["rest"])
    counted = Counted(
        means="strace",
        files=len(seen.opened),
        metadata=seen.metadata,
        reads=seen.reads,
        read_bytes=seen.read_bytes,
        paths=tuple(sorted(seen.opened)),
    )
    return counted, frozenset(seen.mapped)


class _Seen:
    """Adds up the calls of a trace."""

    def __init__(self, roots: Sequence[str], cwd: str) -> None:
        self._roots = tuple(root.rstrip("/") for root in roots)
        self._cwd = cwd
        self.opened: set[str] = set()
        self.mapped: set[str] = set()
        self.metadata = self.reads = self.read_bytes = 0

    def take(self, call: str, rest: str) -> None:
        """One call: its arguments and result as strace writes them."""
        result = rest.rpartition(" = ")[2]
        if call in _READING or call in {"mmap", "getdents64"}:
            found = _OPEN_FILE.search(rest)
            path = _unescape(found["path"]) if found else ""
            if self._counts(path):
                self._read(call, path, result)
        elif found := _QUOTED.search(rest):
            path = self._absolute(_unescape(found["at"] or ""), _unescape(found["path"]))
            if self._counts(path):
                self.metadata += 1
                opened = call in _OPENING and result[:1].isdigit()
                if opened and "O_DIRECTORY" not in rest:
                    self.opened.add(path)

    def _read(self, call: str, path: str, result: str) -> None:
        if call == "mmap":
            self.mapped.add(path)
        elif call == "getdents64":
            self.metadata += 1
        else:
            self.reads += 1
            self.read_bytes += int(result) if result.isdigit() else 0

    def _absolute(self, at: str, path: str) -> str:
        return path if path.startswith("/") else f"{at or self._cwd}/{path}".rstrip("/")

    def _counts(self, path: str) -> bool:
        return any(path == root or path.startswith(f"{root}/") for root in self._roots)


def _unescape(text: str) -> str:
    """A path as strace writes it: bytes that are no ASCII in octal."""

    def one(found: re.Match[bytes]) -> bytes:
        word = found[1]
        return bytes((int(word, 8) & 255,)) if word.isdigit() else _ESCAPED.get(word, word)

    return _ESCAPE.sub(one, text.encode("utf-8", "surrogateescape")).decode(
        "utf-8", "surrogateescape"
    )
