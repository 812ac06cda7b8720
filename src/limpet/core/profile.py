"""Profile: what is run once so that an image can have first what a start reads first."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

import msgspec

from limpet.core.facts import PREFIX
from limpet.core.lock import Lock
from limpet.core.pylock import render_lock
from limpet.core.ranges import Ranges, join_ranges
from limpet.core.recipe import Warm

FORMAT = "limpet order 3"
LIMIT_S = 60  # what runs longer has shown enough: a server never ends
OWN_LIMIT_S = 30  # for imports that nobody asked for
MOST_ROOTS = 30
# Of which parts of files are told, as `base_scripts/note_opened` counts them.
BLOCK_BYTES = 128 << 10

PYTHON = f"{PREFIX}/bin/python"
_NO_MODULES = frozenset(("test", "tests", "doc", "docs", "examples", "benchmarks", "scripts"))
# Read at every start, before any Python could tell.
STARTING = (
    "/.singularity.d/actions/exec",
    "/.singularity.d/env/90-environment.sh",
    "/.singularity.d/env/95-limpet.sh",
    "/.singularity.d/env/99-base.sh",
    "/bin/sh",
    f"{PREFIX}/.limpet/start",
    f"{PREFIX}/pyvenv.cfg",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/ld.so.cache",
    "/etc/localtime",
)
_RUN = r"[0-9]{1,9}(-[0-9]{1,9})?"
_RUNS = re.compile(rf"-|{_RUN}(,{_RUN})*")
_PASSING = ("/proc/", "/sys/", "/dev/", "/tmp/", "/var/tmp/", "/run/", "/opt/limpet/")


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """`commands` are run one after the other, each for at most `limit_s` seconds.

    Without any, the distributions `roots` are imported. `asked`: the user named the commands.
    """

    commands: tuple[tuple[str, ...], ...] = ()
    roots: tuple[str, ...] = ()
    asked: bool = False
    limit_s: int = LIMIT_S


def plan_profile(warm: Warm, command: str, lock: Lock) -> Profile:
    """The flag's command, else `[warm]`'s entry or imports, else what the recipe is about."""
    if command or warm.entry:
        return Profile(
            commands=(("/bin/sh", "-c", command or warm.entry),), asked=True, limit_s=LIMIT_S
        )
    if warm.imports:
        return Profile(commands=(import_command(warm.imports),), asked=True, limit_s=LIMIT_S)
    return Profile(roots=find_roots(lock), limit_s=OWN_LIMIT_S)


def find_roots(lock: Lock) -> tuple[str, ...]:
    """The distributions that no other one of the lock needs, sorted."""
    needed = {_normal(name) for package in lock.packages for name in package.dependencies}
    needed |= {_normal(spec.split()[0]) for one in lock.conda for spec in one.depends if spec}
    names = {_normal(package.name) for package in lock.packages}
    names |= {_normal(package.name) for package in lock.conda}
    return tuple(sorted(names - needed))[:MOST_ROOTS]


def import_command(names: Sequence[str]) -> tuple[str, ...]:
    """Python, importing what can be imported of these."""
    script = (
        "import importlib\n"
        f"for name in {tuple(names)!r}:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except (Exception, SystemExit):\n"
        "        pass\n"
    )
    return (PYTHON, "-c", script)


def parse_modules(record: str) -> tuple[str, ...]:
    """The top-level modules of an installed distribution, from its RECORD."""
    found = set()
    for line in record.splitlines():
        path = line.rsplit(",", 2)[0].strip('"')
        first, _, rest = path.partition("/")
        if rest == "__init__.py":
            found.add(first)
        elif not rest and first.endswith((".py", ".so")):
            found.add(first.split(".")[0])
    return tuple(
        sorted(
            name
            for name in found
            if name.isidentifier() and not name.startswith("_") and name not in _NO_MODULES
        )
    )


def profile_key(profile: Profile, lock: Lock) -> str:
    """What an order was made for: the same key has the same order.

    What users asked for is run again when the lock has changed. The imports that stand in for it
    are not, as long as base, Python and the recipe's own packages are the same: other versions open
    much the same files, and a build after a small change is to stay quick.
    """
    rest = render_lock(lock) if profile.asked else f"{lock.base.digest} {lock.python}"
    said = (FORMAT.encode(), msgspec.json.encode(profile), rest.encode())
    return hashlib.sha256(b"\0".join(said)).hexdigest()


def blocks_key(profile: Profile, lock: Lock) -> str:
    """What an image is likely to have most of its blocks in common with: the one before it."""
    said = msgspec.json.encode([profile, find_roots(lock)])
    return hashlib.sha256(said).hexdigest()


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Files in the order of their opening; `read` has which bytes of some of them were read.

    Of what `read` does not name, all was.
    """

    files: tuple[str, ...] = ()
    read: dict[str, Ranges] = {}


def clean_order(opened: Iterable[str]) -> tuple[str, ...]:
    """What belongs to the image, each once, behind what every start opens."""
    kept = (
        path
        for path in opened
        if path.startswith("/") and not path.startswith(_PASSING) and "\0" not in path
    )
    found = tuple(dict.fromkeys(kept))
    return tuple(dict.fromkeys((*STARTING, *found))) if found else ()


def parse_notes(lines: Iterable[str]) -> Order:
    """What a watched run wrote: paths as they were opened, and what was read of some.

    What several processes read of a file counts together.
    """
    opened: list[str] = []
    read: dict[str, list[tuple[int, int]]] = {}
    for line in lines:
        runs, path = _split_runs(line)
        if runs:
            read.setdefault(path, []).extend(_parse_runs(runs))
        else:
            opened.append(path)
    files = clean_order(opened)
    there = frozenset(files)
    return Order(
        files=files,
        read={path: join_ranges(read[path], gap_bytes=1) for path in read if path in there},
    )


def render_order(key: str, order: Order) -> str:
    """An order as it is kept beside a lock.

    `0-3,7 /a/path` names the blocks that were read, of BLOCK_BYTES each, and `-` none.
    """
    lines = (
        f"# {FORMAT}: the files that a start opens, written by limpet build; keep it with the lock",
        f"# for {key}",
        *(
            f"{_render_runs(order.read[path])} {path}" if path in order.read else path
            for path in order.files
        ),
    )
    return "\n".join(lines) + "\n"


def parse_order(text: str, key: str) -> Order | None:
    """The order, if it is one for this key."""
    lines = text.split("\n")
    if len(lines) < 2 or not lines[0].startswith(f"# {FORMAT}") or lines[1] != f"# for {key}":
        return None
    found = [_split_runs(line) for line in lines[2:]]
    kept = [(runs, path) for runs, path in found if path.startswith("/")]
    return Order(
        files=tuple(path for _, path in kept),
        read={path: _parse_runs(runs) for runs, path in kept if runs},
    )


def _split_runs(line: str) -> tuple[str, str]:
    """Runs of blocks, where a line has some, and the path."""
    runs, _, path = line.partition(" ")
    return (runs, path) if _RUNS.fullmatch(runs) else ("", line)


def _parse_runs(text: str) -> Ranges:
    runs = (run.partition("-") for run in text.split(",") if run != "-")
    blocks = ((int(first), int(last or first)) for first, _, last in runs)
    ranges = ((a * BLOCK_BYTES, (b - a + 1) * BLOCK_BYTES) for a, b in blocks if a <= b)
    return join_ranges(ranges, gap_bytes=1)


def _render_runs(ranges: Ranges) -> str:
    blocks = [(at // BLOCK_BYTES, (at + length) // BLOCK_BYTES - 1) for at, length in ranges]
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in blocks) or "-"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
