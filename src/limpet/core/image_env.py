"""What an image's own environment scripts set, and where that counts more than limpet's table.

The scripts are shell; what is plain in them is understood, and nothing is run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

from limpet.core.caches import CACHES
from limpet.core.homes import PERSONAL
from limpet.core.mounts import is_below, parse_bind
from limpet.core.recipe import HomePolicy
from limpet.core.seen import ImageSeen, Request

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
# As the runtime writes what a container image's configuration sets.
_OF_CONTAINER = re.compile(rf'export ({_NAME})="\$\{{\1:-"(.*)"\}}"')
_WORD = re.compile(rf"({_NAME})=(.*)", re.DOTALL)
_BEFORE = ("then", "else", "do", "export")
_HOME = re.compile(r"(\$HOME|\$\{HOME\}|~)(/|$)")
_PASSING = ("/tmp", "/var/tmp", "/dev/shm")

# What a start sets in an image, besides what the user names.
SENT = frozenset(
    [*(row.variable for row in CACHES if row.place), "XDG_CACHE_HOME"]
    + [name for personal in PERSONAL for name in personal.variables]
)


def parse_variables(scripts: Iterable[str]) -> dict[str, str]:
    """What the scripts set, as far as it is plain: later ones win. `$` stands as it is written."""
    found: dict[str, str] = {}
    for script in scripts:
        for line in script.splitlines():
            if of_container := _OF_CONTAINER.fullmatch(line.strip()):
                found[of_container[1]] = re.sub(r"\\(.)", r"\1", of_container[2])
            else:
                found |= dict(_read_line(line))
    return found


def _read_line(line: str) -> Iterator[tuple[str, str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    try:
        for word in lexer:
            if word.strip(";&"):
                commands[-1].append(word)
            else:
                commands.append([])
    except ValueError:  # quotes that end on another line
        return
    for words in commands:
        while words and words[0] in _BEFORE:
            del words[0]
        pairs = [_WORD.fullmatch(word) for word in words]
        for pair in pairs if all(pairs) else []:
            if pair:
                default = re.fullmatch(rf"\$\{{{pair[1]}:?-(.*)\}}", pair[2])
                yield pair[1], default[1] if default else pair[2]


def select_sent(scripts: Iterable[str]) -> dict[str, str]:
    """What the scripts set of the variables that a start would set."""
    return {name: value for name, value in parse_variables(scripts).items() if name in SENT}


def inherited_variables(image: ImageSeen) -> Mapping[str, str]:
    """What the image sets by scripts that no recipe of limpet's wrote."""
    return image.facts.base_env if image.facts else image.env


def leave_to_image(variables: Mapping[str, str], image: ImageSeen) -> dict[str, str]:
    """Those that the image does not set itself."""
    theirs = {*inherited_variables(image), *(image.facts.env if image.facts else {})}
    return {name: value for name, value in variables.items() if name not in theirs}


def image_caches(image: ImageSeen, request: Request, home: HomePolicy) -> dict[str, str]:
    """The image's own words on where packages write, as far as they can be followed.

    A recipe's count always: somebody wrote them for this. Others are from an image's maker who may
    have started it as root, with a disk to write on: they count where the place can be written, or
    holds what is only read. Otherwise the package would fail, and limpet's folder works.
    """
    writable = [*_PASSING, *_own_binds(request.binds)]
    inherited = {
        name: value
        for name, value in inherited_variables(image).items()
        if name in _ONLY_READ or name in _OF_FLAGS or _is_writable(value, writable, home)
    }
    return {**inherited, **(image.facts.env if image.facts else {})}


_ONLY_READ = {row.variable for row in CACHES if row.read}
_OF_FLAGS = {row.variable for row in CACHES if row.flag}


def _own_binds(binds: Sequence[str]) -> list[str]:
    mounts = (parse_bind(text, "/") for text in binds)
    return [mount.target for mount in mounts if mount.writable]


def _is_writable(value: str, places: Sequence[str], home: HomePolicy) -> bool:
    if _HOME.match(value):
        return home != "none"
    known = value.partition("$")[0]
    return any(is_below(known, place) for place in places)
