"""YAML text → nodes that know their place."""

from __future__ import annotations

from typing import Any

from limpet.core.conda_text import Node
from limpet.core.errors import RecipeError


def parse_yaml(text: str, source: str) -> Node:
    """The one document of a YAML text; a RecipeError with line and column where it is malformed."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        root = YAML(typ="rt", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(
            f"{source}{place}: this is not valid YAML.",
            why=f"{error.problem or error.context}.",
        ) from error
    except YAMLError as error:
        raise RecipeError(f"{source} is not valid YAML.", why=str(error)) from error
    if root is None:
        raise RecipeError(f"{source} is empty.")
    return _node(root, source)


def _node(node: Any, source: str) -> Node:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if node.id == "scalar":
        # `key:` alone is YAML's null; `key: ""` is a text, and as empty.
        return Node(node.value, line, column)
    if node.id == "sequence":
        return Node(tuple(_node(item, source) for item in node.value), line, column)
    table: dict[str, Node] = {}
    for key, value in node.value:
        at = key.start_mark
        if key.id != "scalar" or key.value in table:
            what = "is there twice" if key.id == "scalar" else "is no text"
            raise RecipeError(
                f"{source}, line {at.line + 1}, column {at.column + 1}: a key {what}."
            )
        table[key.value] = _node(value, source)
    return Node(table, line, column)
