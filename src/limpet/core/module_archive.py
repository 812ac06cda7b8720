"""The module archive: the byte code that a start imports, as one file, and a list of its folders.

An import asks the file system for each module's source and byte code by name, opens, reads and
closes the one, and lists each folder; an image answers each request from another process (FUSE).
In the archive the modules lie as they are imported, so that one request brings several, and the
list answers for the names: an import of numpy, scipy, pandas, matplotlib and scikit-learn needs
5,200 requests instead of 11,100 (docs/reference/benchmarks.md). `base_scripts/module_archive` is
the other end.

The archive says what the image holds, so it is used where that is what Python would see: a start
names the image in `LIMPET_MODULES` unless something may lie over the folders in it.
"""

from __future__ import annotations

import marshal
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from limpet.core.facts import PREFIX

FOLDER = f"{PREFIX}/.limpet"
ARCHIVE = f"{FOLDER}/modules"
INDEX = f"{FOLDER}/modules.index"
HOOK = "_limpet_modules"
VARIABLE = "LIMPET_MODULES"
HOOK_LINE = f'import os; os.environ.get("{VARIABLE}") and __import__("{HOOK}")\n'
# By these the session has the runtime lay something over an image, beside limpet (Apptainer 1.4,
# cmd/internal/cli/action_flags.go): a layer over all of it, or mounts on the places that they name.
RUNTIMES = ("APPTAINER", "SINGULARITY")
_LAYERS = ("OVERLAY", "OVERLAYIMAGE", "WRITABLE", "WRITABLE_TMPFS")
_MOUNTS = ("BIND", "BINDPATH", "MOUNT", "SCRATCH", "SCRATCHDIR", "FUSESPEC")
LAYER_VARIABLES = tuple(f"{runtime}_{name}" for name in _LAYERS for runtime in RUNTIMES)
MOUNT_VARIABLES = tuple(f"{runtime}_{name}" for name in _MOUNTS for runtime in RUNTIMES)
# The oldest that knows text: without references, whose number depends on the process that writes.
_MARSHAL = 2
_BYTE_CODE = re.compile(r"(.*)/__pycache__/([^/]+)\.([^/.]+)\.pyc")
_IMPORTABLE = (".py", ".pyc", ".so")

Place = tuple[int, int]  # where in the archive, and how many bytes
Listing = Mapping[str, str]  # what a folder holds, by name: "file" or "dir", links followed


class Modules(msgspec.Struct, frozen=True, kw_only=True):
    """What a start must know of an image's archive: its key, and the topmost folders it is of."""

    key: str
    folders: tuple[str, ...]


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    tag: str
    block_bytes: int
    start: int
    folders: dict[str, int]


def render_index(
    places: Mapping[str, Place],
    list_folder: Callable[[str], Listing],
    *,
    key: str,
    tag: str,
    block_bytes: int,
) -> bytes:
    """The index of an archive that holds `places`, by path of the byte code of a Python's `tag`.

    A dict with the offset of each folder's record behind it; a record is a tuple of the folder's
    importable files, its folders with their `__init__` files, and the places of its modules' code.
    All of it in `marshal`'s format, which every Python reads and which is the quickest to read.
    """
    codes: dict[str, dict[str, Place]] = {}
    for path, place in places.items():
        found = _BYTE_CODE.fullmatch(path)
        if found and found[3] == tag:
            codes.setdefault(found[1], {})[f"{found[2]}.py"] = place
    if not codes:
        return b""
    records: list[bytes] = []
    folders: dict[str, int] = {}
    at = 0
    for folder in sorted(codes):
        record = marshal.dumps(_record(folder, codes[folder], list_folder), _MARSHAL)
        records.append(record)
        folders[folder] = at
        at += len(record)
    head = _Head(key=key, tag=tag, block_bytes=block_bytes, start=0, folders=folders)
    # An integer has one length, so the second writing knows the first one's.
    start = len(marshal.dumps(msgspec.structs.asdict(head), _MARSHAL))
    head = msgspec.structs.replace(head, start=start)
    return b"".join((marshal.dumps(msgspec.structs.asdict(head), _MARSHAL), *records))


def _record(
    folder: str, codes: Mapping[str, Place], list_folder: Callable[[str], Listing]
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]], dict[str, Place]]:
    listing = list_folder(folder)
    files = tuple(sorted(n for n, kind in listing.items() if kind == "file" and _can_import(n)))
    inner = {}
    for name in sorted(name for name, kind in listing.items() if kind == "dir"):
        if "." not in name and name != "__pycache__":
            inside = list_folder(f"{folder}/{name}")
            inits = (n for n, kind in inside.items() if kind == "file" and _can_import(n))
            inner[name] = tuple(sorted(n for n in inits if n.startswith("__init__.")))
    there = set(files)
    return files, inner, {name: codes[name] for name in sorted(codes) if name in there}


def _can_import(name: str) -> bool:
    return name.endswith(_IMPORTABLE)


def read_modules(index: bytes) -> Modules:
    """What a start must know, of an index that limpet wrote."""
    head = msgspec.convert(marshal.loads(index), _Head)
    return Modules(key=head.key, folders=_topmost(head.folders))


def _topmost(folders: Iterable[str]) -> tuple[str, ...]:
    there = set(folders)
    return tuple(sorted(f for f in there if not any(above in there for above in _above(f))))


def _above(folder: str) -> Iterable[str]:
    while folder not in ("", "/"):
        folder = posixpath.dirname(folder)
        yield folder


def plan_modules(
    modules: Modules | None, *, is_whole: bool, targets: Iterable[str], session: Mapping[str, str]
) -> dict[str, str]:
    """The variable that lets Python use the archive; nothing where the image may look otherwise.

    `is_whole`: no layer lies over the image. `targets` is what limpet mounts on.
    """
    if modules is None or not is_whole or any(session.get(name) for name in LAYER_VARIABLES):
        return {}
    if any(covers(target, folder) for target in targets for folder in modules.folders):
        return {}
    said = "\n".join(session.get(name, "") for name in MOUNT_VARIABLES)
    if any(folder in said for folder in modules.folders):
        return {}
    return {VARIABLE: modules.key}


def covers(target: str, folder: str) -> bool:
    """Whether what is mounted there may change what is seen of a folder."""
    target = target.rstrip("/")
    return f"{folder}/".startswith(f"{target}/") or target.startswith(f"{folder}/")
