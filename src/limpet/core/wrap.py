"""A folder of launchers: what is asked for, which programs it holds, and what is written down."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from limpet.core.errors import ImageError, UsageError
from limpet.core.seen import ImageSeen, Request

FORMAT = 1
RECORD = "wrap.json"
SOURCES = "sources"
OWN = ".limpet"


class WrapRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for.

    `launch` is how each program is started; `host` lets the host's folders and commands be seen.
    `sources`: editors find the image's Python sources on the host, too.
    `kernel` is the name of a Jupyter kernel and `module` a modulefile's path, empty for none.
    `config_file` is the one that `--config` named, an absolute path.
    """

    only: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    launch: Request = msgspec.field(default_factory=Request)
    state_dir: str = ""
    host: bool = False
    copy: bool = False
    sources: bool = False
    kernel: str = ""
    module: str = ""
    config_file: str = ""


class Wrap(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a folder of launchers, as it is recorded beside them.

    `image` is a path; for a copy, relative to the folder. `source` is the image that the user
    named. `programs` are paths inside by the launcher's name; `root_names` what the image's own
    root folder holds, which the host's never covers.
    """

    format: int = FORMAT
    limpet: str
    number: int
    image: str
    source: str
    identity: str
    title: str
    programs: dict[str, str]
    root_names: tuple[str, ...] = ()
    request: WrapRequest


class WrapReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `wrap` or `update` did, or would do."""

    folder: str
    version: int
    image: str
    programs: tuple[str, ...]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kernel: str = ""
    module: str = ""
    sources: str = ""
    source_files: int = 0
    notes: tuple[str, ...] = ()


def choose_programs(
    found: Mapping[str, str], request: WrapRequest, *, title: str, strict: bool = True
) -> dict[str, str]:
    """The programs that get a launcher; UsageError for a name that does not exist.

    Names may be patterns. `strict` is off for an update, where a program may have gone since.
    """
    if request.only and request.excluded:
        raise UsageError("--only and --except exclude each other.")
    if not found:
        where = ", ".join(request.folders) or "the folders of its own PATH"
        raise ImageError(
            f"{title} has no programs in {where}.",
            now="Name the folders that hold them: --folder /opt/conda/bin.",
        )
    asked = request.only or request.excluded
    unknown = [name for name in asked if not any(fnmatchcase(n, name) for n in found)]
    if strict and unknown:
        raise UsageError(
            f"{title} has no program {', '.join(unknown)}.", why=_near(unknown[0], found)
        )
    chosen = {
        name: path
        for name, path in sorted(found.items())
        if any(fnmatchcase(name, pattern) for pattern in asked) is not bool(request.excluded)
        or not asked
    }
    if not chosen:
        raise UsageError("No program is left to make a launcher for.")
    return chosen


def _near(name: str, found: Mapping[str, str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, found, n=3)
    return f"Near it are: {', '.join(near)}." if near else f"It has {len(found)} others."


def check_host_allowed(image: ImageSeen) -> None:
    """ImageError where the recipe wants its programs apart from the host."""
    run = image.facts.run if image.facts else None
    if run and (run.variables == "strict" or run.home in ("none", "private")):
        raise ImageError(
            f"{image.path} is not made to be mixed with the host.",
            why=f'Its recipe says [run] variables = "{run.variables}", home = "{run.home}".',
            now="Leave out --host, or build the image with another [run].",
        )


_SCRIPT_PATH = re.compile(r"""^\s*(?:export\s+)?PATH=["']?([^"'\n]*)""", re.MULTILINE)
STANDARD_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
SYSTEM_FOLDERS = frozenset({"/usr/sbin", "/usr/bin", "/sbin", "/bin"})


def parse_path(scripts: Sequence[str]) -> tuple[str, ...]:
    """The folders of the PATH that an image's environment scripts set; else the usual ones."""
    folders: list[str] = []
    for script in scripts:
        for found in _SCRIPT_PATH.findall(script):
            words = [posixpath.normpath(word) for word in found.split(":") if word[:1] == "/"]
            folders = [*words, *(folder for folder in folders if folder not in words)]
    return tuple(dict.fromkeys([*folders, *STANDARD_PATH]))
