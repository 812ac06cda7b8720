"""Requirements written into a description that people keep: nothing else in it changes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limpet.core.errors import RecipeError
from limpet.core.requirements import parse_requirements
from limpet.tools.files import written_beside


def add_requirements(path: Path, wanted: Mapping[str, str]) -> str:
    """The file's new text: each requirement (`name` → line) in place of an old one, or at the end.

    RecipeError for a description that a tool writes itself, such as a lock.
    """
    text = path.read_text("utf-8")
    if path.name == "pyproject.toml":
        return _edit_toml(text, wanted, ("project", "dependencies"), str(path))
    if path.suffix == ".toml" and not path.name.startswith("pylock."):
        return _edit_toml(text, wanted, ("packages", "pip"), str(path))
    if path.suffix in (".txt", ".in"):
        return _edit_lines(text, wanted)
    raise RecipeError(
        f"{path} is written by a tool, or is no description that can be added to.",
        now="Name a requirements file, a pyproject.toml or a limpet.toml.",
    )


def replace_text(path: Path, text: str) -> None:
    """Put the new text in place, with the file's own rights."""
    mode = path.stat().st_mode & 0o7777
    with written_beside(path.resolve()) as file:
        file.write(text.encode())
    path.chmod(mode)


def _edit_lines(text: str, wanted: Mapping[str, str]) -> str:
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    open_names = dict(wanted)
    for line in parse_requirements(text):
        name = _name(line.text) if line.kind == "requirement" else ""
        # A requirement that goes over several lines carries hashes of the version it had.
        if name in open_names and not lines[line.number - 1].rstrip().endswith("\\"):
            comment = re.search(r"\s+#.*$", lines[line.number - 1].rstrip("\n"))
            lines[line.number - 1] = open_names.pop(name) + (comment[0] if comment else "") + "\n"
        elif name in open_names:
            raise RecipeError(f"Line {line.number} has {name} with hashes; change it by hand.")
    return "".join(lines) + "".join(f"{line}\n" for line in open_names.values())


def _edit_toml(text: str, wanted: Mapping[str, str], place: tuple[str, str], shown: str) -> str:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise RecipeError(f"{shown} is not valid TOML.", why=f"{error}.") from error
    table: Any = document.get(place[0])
    if table is None:
        if place[0] == "project":
            raise RecipeError(f"{shown} has no [project] to add to.")
        table = document[place[0]] = tomlkit.table()
    dependencies: Any = table.get(place[1])
    if dependencies is None:
        dependencies = table[place[1]] = tomlkit.array()
    known = {_name(str(item)): index for index, item in enumerate(dependencies)}
    for name, line in wanted.items():
        if name in known:
            dependencies[known[name]] = line
        else:
            dependencies.append(line)
    return tomlkit.dumps(document)


def _name(requirement: str) -> str:
    from packaging.utils import canonicalize_name

    found = re.match(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", requirement.strip())
    return canonicalize_name(found[0]) if found else ""
