"""requirements.txt, as far as limpet itself must look into one: uv parses the requirements.

The format is pip's (https://pip.pypa.io/en/stable/reference/requirements-file-format/).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import unquote

import msgspec
from packaging.utils import canonicalize_name

from limpet.core.errors import RecipeError

LineKind = Literal["requirement", "editable", "nested", "constraints", "find_links", "option"]

_COMMENT = re.compile(r"(^|\s+)#.*$")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")  # pip: only this form, only upper case
_NAME = re.compile(r"^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")
_HASH = re.compile(r"--hash[= ]\s*([a-z0-9]+):([0-9A-Fa-f]+)")
_OPTIONS: tuple[tuple[LineKind, tuple[str, ...]], ...] = (
    ("nested", ("-r", "--requirement", "--requirements")),
    ("constraints", ("-c", "--constraint", "--constraints")),
    ("editable", ("-e", "--editable")),
    ("find_links", ("-f", "--find-links")),
)
_ARCHIVES = (".whl", ".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One logical line: its number, what it is, and its text (an option's value)."""

    number: int
    kind: LineKind
    text: str


def parse_requirements(text: str) -> tuple[Line, ...]:
    """The logical lines of a requirements file: comments gone, continuations joined."""
    lines = []
    for number, joined in _joined(text.removeprefix("\ufeff")):
        bare = _COMMENT.sub("", joined).strip()
        if bare:
            lines.append(_classified(number, bare))
    return tuple(lines)


def _joined(text: str) -> list[tuple[int, str]]:
    joined: list[tuple[int, str]] = []
    start, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if not parts:
            start = number
        comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not comment:
            parts.append(line[:-1])
            continue
        # A comment line ends a continuation, and is none of the requirement's text.
        parts.append(" " + line if comment else line)
        joined.append((start, "".join(parts)))
        parts = []
    if parts:
        joined.append((start, "".join(parts)))
    return joined


def _classified(number: int, bare: str) -> Line:
    if not bare.startswith("-"):
        return Line(number=number, kind="requirement", text=bare)
    for kind, flags in _OPTIONS:
        for flag in flags:
            value = _value_of(bare, flag)
            if value:
                return Line(number=number, kind=kind, text=value)
    return Line(number=number, kind="option", text=bare)


def _value_of(bare: str, flag: str) -> str:
    if not bare.startswith(flag):
        return ""
    rest = bare[len(flag) :]
    if rest[:1] in ("=", " ", "\t"):
        return rest[1:].strip().strip("\"'")
    return "" if flag.startswith("--") else rest.strip()  # -rfile is -r file


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`${NAME}` replaced where the variable is set; pip leaves the others as they are."""
    return _VARIABLE.sub(lambda match: variables.get(match[1]) or match[0], text)


def local_path(requirement: str) -> str:
    """The path that a requirement names on this machine's disk; empty where it names none."""
    text = re.split(r"\s+--|\s+;|;\s", requirement, maxsplit=1)[0].strip()
    named = re.match(r"^[A-Za-z0-9][\w.-]*\s*(?:\[[^\]]*\])?\s*@\s*(.+)$", text)
    if named:
        text = named[1].strip()
        if not text.startswith(("file:", "/", "./", "../")):
            return ""
    if text.startswith("file:"):
        path = text.removeprefix("file:")
        if path.startswith("//"):
            path = path[2:].removeprefix("localhost")
        return unquote(re.split(r"[#?]", path, maxsplit=1)[0])
    if "://" in text:
        return ""
    text = re.sub(r"\[[^\]]*\]$", "", text).strip()
    looks = text in (".", "..") or text.startswith(("./", "../", "/")) or text.endswith(_ARCHIVES)
    return text if looks or ("/" in text and " " not in text) else ""


def find_hashes(lines: tuple[Line, ...]) -> dict[str, tuple[str, ...]]:
    """Which files the recipe allows for a package: `name` → `algorithm:hexadecimal`."""
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        hashes = tuple(f"{kind}:{value.lower()}" for kind, value in _HASH.findall(line.text))
        name = _NAME.match(line.text)
        if hashes and name and line.kind == "requirement":
            key = canonicalize_name(name[1])
            found[key] = tuple(sorted({*found.get(key, ()), *hashes}))
    return found


def check_requirement(text: str, where: str) -> str:
    """The requirement as given, or a RecipeError: it goes into a file of lines, as one line."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise RecipeError(
            f"{where} has a control character or a line break in it: {text!r}.",
            now="Write one requirement per entry.",
        )
    if text.lstrip().startswith("-") and _classified(0, text.strip()).kind != "editable":
        raise RecipeError(
            f"{where} is an option and no requirement: {text!r}.",
            now="Name requirement files in [packages] files, and indexes in index_url, "
            "extra_index_urls and find_links.",
        )
    return text
