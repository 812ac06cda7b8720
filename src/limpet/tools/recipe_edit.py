"""Requirements written into a description that people keep: nothing else in it changes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from limpet.core.errors import RecipeError
from limpet.core.requirements import parse_requirements
from limpet.core.update import check_known
from limpet.tools.files import written_beside


def change_recipe_text(
    path: Path,
    *,
    pip: Mapping[str, str],
    conda: Mapping[str, str] = MappingProxyType({}),
    remove: Collection[str] = (),
) -> str:
    """The file's new text: each requirement (`name` → line) in place of an old one, or at the end;
    without the packages to `remove`, by normalised names.

    RecipeError for a description that a tool writes itself, such as a lock, or that has no place
    for conda packages; UsageError where it does not ask for what is to be removed.
    """
    text = path.read_text("utf-8")
    if path.suffix in (".yml", ".yaml"):
        return _change_environment(text, pip, conda, remove)
    toml = path.suffix == ".toml" and not path.name.startswith("pylock.")
    lines = path.suffix in (".txt", ".in")
    if not (toml or lines):
        raise RecipeError(
            f"{path} is written by a tool, or is no description that limpet can change.",
            now="Change it by hand, or name a requirements file, an environment.yml, a "
            "pyproject.toml or a limpet.toml.",
        )
    if conda and (lines or path.name == "pyproject.toml"):
        raise RecipeError(
            f"{path} has no place for conda packages.",
            now="Name an environment.yml or a limpet.toml.",
        )
    if lines:
        return _edit_lines(_without_lines(text, remove), pip)
    text = _without_items(text, remove, str(path))
    if path.name == "pyproject.toml":
        return _edit_toml(text, pip, ("project", "dependencies"), str(path))
    if pip or not conda:
        text = _edit_toml(text, pip, ("packages", "pip"), str(path))
    return _edit_toml(text, conda, ("packages", "conda"), str(path)) if conda else text


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


def _without_lines(text: str, names: Collection[str]) -> str:
    if not names:
        return text
    lines = text.splitlines(keepends=True)
    asked = {
        _name(line.text): line for line in parse_requirements(text) if line.kind == "requirement"
    }
    check_known(names, asked)
    for name in names:
        start = end = asked[name].number - 1
        while lines[end].rstrip("\n").endswith("\\"):
            end += 1  # its hashes, a line each
        lines[start : end + 1] = [""] * (end + 1 - start)
    return "".join(lines)


def _without_items(text: str, names: Collection[str], shown: str) -> str:
    if not names:
        return text
    document = _parsed(text, shown)
    places: tuple[tuple[str, str], ...] = (("packages", "pip"), ("packages", "conda"))
    if document.get("project") is not None:
        places = (("project", "dependencies"),)
    lists: list[Any] = [document.get(table, {}).get(key, []) for table, key in places]
    check_known(names, [_name(str(item)) for items in lists for item in items])
    for items in lists:
        for index in reversed(range(len(items))):
            if _name(str(items[index])) in names:
                del items[index]
    return str(document.as_string())


def _parsed(text: str, shown: str) -> Any:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise RecipeError(f"{shown} is not valid TOML.", why=f"{error}.") from error


def _edit_toml(text: str, wanted: Mapping[str, str], place: tuple[str, str], shown: str) -> str:
    import tomlkit

    document = _parsed(text, shown)
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

    bare = requirement.rpartition("::")[2].strip()  # conda's channel
    found = re.match(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", bare)
    return canonicalize_name(found[0]) if found else ""


def _change_environment(
    text: str, pip: Mapping[str, str], conda: Mapping[str, str], remove: Collection[str]
) -> str:
    """An environment.yml, comments and order kept."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096
    document: Any = yaml.load(text)
    items: Any = document.setdefault("dependencies", [])
    section = next((one for one in items if isinstance(one, dict) and "pip" in one), None)
    pips: Any = section["pip"] if section else []
    check_known(remove, [_name(one) for one in (*items, *pips) if isinstance(one, str)])
    for lines, wanted in ((items, conda), (pips, pip)):
        _change_items(lines, wanted, remove)
    if pips and not section:
        items.append({"pip": pips})
    elif section and not pips:
        items.remove(section)
    out = StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _change_items(items: Any, wanted: Mapping[str, str], remove: Collection[str]) -> None:
    names = [_name(one) if isinstance(one, str) else "" for one in items]
    for name, line in wanted.items():
        if name in names:
            items[names.index(name)] = line
        else:
            items.append(line)
    for index in reversed(range(len(names))):
        if names[index] in remove:
            del items[index]
