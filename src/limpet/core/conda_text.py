"""Conda's descriptions: environment.yml, requirement files, pixi.toml; each becomes a Recipe.

Formats: https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html,
https://pixi.sh/latest/reference/pixi_manifest/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from limpet.core.conda import CondaPackage
from limpet.core.errors import RecipeError
from limpet.core.recipe import Image, Packages, Recipe
from limpet.core.requirements import Line, parse_requirements

_SELECTOR = re.compile(r"#\s*\[([^\]]+)\]\s*$")
_PIP_OPTIONS = {
    "index_url": ("-i", "--index-url"),
    "extra_index_urls": ("--extra-index-url",),
}
_ENVIRONMENT_KEYS = ("name", "channels", "dependencies", "variables", "prefix", "platforms")
# Of conda-lock, which means its own groups by it.
_IGNORED_KEYS = ("category",)
# What a pip requirement never looks like: `name=1.2`, `channel::name`, `name 1.2`.
_ONLY_CONDA = re.compile(r"^\w[\w.-]*\s*=\s*[^=\s]|^\w\S*::\S+|^\w[\w.-]*\s+[\d*]")


class Node(msgspec.Struct, frozen=True):
    """A value of a YAML text: scalars as they are written, with their place (counted from 1)."""

    value: str | tuple[Node, ...] | dict[str, Node]
    line: int
    column: int


def select_lines(text: str, subdir: str, source: str) -> str:
    """The text without the lines whose `# [selector]` does not hold on a platform."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        found = _SELECTOR.search(line)
        holds = not found or _holds(found[1], subdir, f"{source}, line {number}")
        lines.append(line if holds else "")
    return "\n".join((*lines, ""))


def _holds(expression: str, subdir: str, where: str) -> bool:
    known = {
        "linux": True,
        "unix": True,
        "linux64": subdir == "linux-64",
        "x86_64": subdir == "linux-64",
        "aarch64": subdir == "linux-aarch64",
        "arm64": subdir == "linux-aarch64",
        subdir: True,
    }
    others = {"win", "win32", "win64", "osx", "osx-64", "osx-arm64", "win-64", "ppc64le", "s390x"}
    others |= {"linux-64", "linux-aarch64", "linux-ppc64le", "linux32", "emscripten", "x86"}

    def word(text: str) -> bool:
        if text.startswith("not "):
            return not word(text.removeprefix("not ").strip())
        if text not in known and text not in others:
            raise RecipeError(
                f"{where}: the selector [{expression}] cannot be read.",
                why=f"{text!r} is no platform that limpet knows.",
                now="Write linux, linux64, aarch64, osx or win, with `not`, `and`, `or`.",
            )
        return known.get(text, False)

    return any(
        all(word(part.strip()) for part in choice.split(" and "))
        for choice in expression.strip().split(" or ")
    )


# environment.yml --------------------------------------------------------


def environment_recipe(node: Node, source: str) -> Recipe:
    """The recipe that an environment.yml is; paths in it start at its folder."""
    table = _table(node, source, "the file")
    for key, value in table.items():
        if key not in (*_ENVIRONMENT_KEYS, *_IGNORED_KEYS):
            raise _wrong(source, value, f"unknown key {key!r}", _ENVIRONMENT_KEYS)
    specs: list[str] = []
    lines: list[tuple[Line, Node]] = []
    for item in _items(table.get("dependencies"), source, "dependencies"):
        if isinstance(item.value, str):
            specs.append(_spec(item.value, source, item))
        else:
            lines += _pip_section(item, source)
    channels = [_text(one, source, "channels") for one in _items(table.get("channels"), source)]
    variables = _table(table["variables"], source, "variables") if "variables" in table else {}
    return Recipe(
        packages=_with_pip(
            Packages(
                conda=tuple(specs),
                channels=tuple(name for name in channels if name != "nodefaults"),
            ),
            lines,
            source,
        ),
        env={name: _text(value, source, "variables") for name, value in variables.items()},
    )


def _pip_section(item: Node, source: str) -> list[tuple[Line, Node]]:
    table = _table(item, source, "dependencies")
    lines = []
    for key, value in table.items():
        if key != "pip":
            raise _wrong(source, value, f"dependencies has a section {key!r}", ("pip",))
        for one in _items(value, source, "pip"):
            for line in parse_requirements(_text(one, source, "pip")):
                lines.append((line, one))
    return lines


def _with_pip(packages: Packages, lines: Sequence[tuple[Line, Node]], source: str) -> Packages:
    """The packages with what a `pip:` section says: as pip would read it as a file."""
    taken: dict[str, Any] = {
        name: list(getattr(packages, name))
        for name in ("pip", "files", "find_links", "extra_index_urls")
    }
    index_url = packages.index_url
    for line, node in lines:
        if line.kind == "requirement":
            taken["pip"].append(line.text)
        elif line.kind == "editable":
            taken["pip"].append(f"-e {line.text}")
        elif line.kind == "nested":
            taken["files"].append(line.text)
        elif line.kind == "find_links":
            taken["find_links"].append(line.text)
        else:
            name, value = _pip_option(line.text)
            if name == "extra_index_urls":
                taken[name].append(value)
            elif name == "index_url":
                index_url = value
            else:
                raise RecipeError(
                    f"{source}, line {node.line}, column {node.column}: pip's {line.text!r} "
                    "has no place in an environment.",
                    now="Put it into a requirements file, and name that with -r.",
                )
    return msgspec.structs.replace(
        packages, index_url=index_url, **{name: tuple(value) for name, value in taken.items()}
    )


def _pip_option(text: str) -> tuple[str, str]:
    flag, *rest = re.split(r"[=\s]", text, maxsplit=1)
    value = "".join(rest)
    name = next((name for name, flags in _PIP_OPTIONS.items() if flag in flags), "")
    return name, value.strip()


def _spec(text: str, source: str, node: Node) -> str:
    """A match spec as conda writes it: `name`, `name=1.2=build`, `channel::name >=1` …"""
    bare = text.strip()
    name = bare.rpartition("::")[2]
    if not bare or not re.match(r"[A-Za-z0-9_*][\w.*-]*(?=$|[\s=<>!~\[(])|https?:|file:", name):
        raise _wrong(source, node, f"{text!r} is no conda package")
    return bare


def _table(node: Node, source: str, what: str) -> Mapping[str, Node]:
    if not isinstance(node.value, dict):
        raise _wrong(source, node, f"{what} must be a table (`key: value`)")
    return node.value


def _items(node: Node | None, source: str, what: str = "channels") -> tuple[Node, ...]:
    if node is None or node.value == "":
        return ()
    if not isinstance(node.value, tuple):
        raise _wrong(source, node, f"{what} must be a list (`- item`)")
    return node.value


def _text(node: Node, source: str, what: str) -> str:
    if not isinstance(node.value, str):
        raise _wrong(source, node, f"{what} has something that is no text")
    return node.value


def _wrong(source: str, node: Node, what: str, known: Sequence[str] = ()) -> RecipeError:
    return RecipeError(
        f"{source}, line {node.line}, column {node.column}: {what}.",
        now=f"Known there: {', '.join(known)}." if known else "",
    )


# Files of lines ---------------------------------------------------------


def is_explicit(text: str) -> bool:
    """Whether a text is an explicit list: exact URLs, nothing to solve."""
    return any(line.strip() == "@EXPLICIT" for line in text.splitlines())


def is_conda_requirements(text: str) -> bool:
    """Whether a file of lines is meant for conda and not for pip."""
    if re.search(r"(?m)^#.*\bconda (?:create|install)\b", text):
        return True
    return any(_ONLY_CONDA.match(line) for _, line in _bare_lines(text))


def requirements_recipe(text: str, source: str) -> Recipe:
    """The recipe that a file for `conda install --file` is, or one of `conda list --export`."""
    specs = [_spec(line, source, Node(line, number, 1)) for number, line in _bare_lines(text)]
    pypi = [spec for spec in specs if spec.endswith(("=pypi_0", "=pypi"))]
    pins = ["==".join(spec.split("=")[:2]) for spec in pypi]
    conda = tuple(spec for spec in specs if spec not in pypi)
    return Recipe(packages=Packages(conda=conda, pip=tuple(pins)))


def _bare_lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        bare = re.sub(r"(^|\s+)#.*$", "", line).strip()
        if bare:
            yield number, bare


class ExplicitLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an explicit list: where the archive lies, and its hash if the list says it.

    `package` is what a fuller lock knows beside that.
    """

    url: str
    sha256: str = ""
    md5: str = ""
    package: CondaPackage | None = None


def parse_explicit(text: str, source: str) -> tuple[ExplicitLine, ...]:
    """The archives of an explicit list."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not bare or bare == "@EXPLICIT" or (bare.startswith("#") and "://" not in bare[:8]):
            continue
        url, _, fragment = bare.partition("#")
        digest = fragment.removeprefix("sha256:").removeprefix("md5:").lower()
        if not url.endswith((".conda", ".tar.bz2")) or not re.fullmatch(
            r"([0-9a-f]{32}|[0-9a-f]{64})?", digest
        ):
            raise RecipeError(
                f"{source}, line {number}, column 1: this is no package of an explicit list.",
                why=bare,
                now="Each line is URL, or URL#md5, or URL#sha256:….",
            )
        md5 = digest if len(digest) == 32 else ""
        lines.append(ExplicitLine(url=url, md5=md5, sha256=digest if not md5 else ""))
    return tuple(lines)


# pixi.toml --------------------------------------------------------------


def pixi_recipe(raw: dict[str, Any], subdir: str, environment: str = "") -> Recipe:
    """The recipe that an environment of a pixi workspace is, its default one if none is named."""
    project = raw.get("workspace") or raw.get("project") or {}
    parts = _pixi_parts(raw, environment or "default")
    tables = [table for part in parts for table in _for_platform(part, subdir)]
    channels = [
        *project.get("channels", []),
        *(c for p in parts if p is not raw for c in p.get("channels", [])),
    ]
    specs, pip, env, needs = list[str](), list[str](), dict[str, str](), dict[str, Any]()
    for table in tables:
        specs += [_pixi_spec(*pair) for pair in table.get("dependencies", {}).items()]
        pip += [_pixi_pip(*pair) for pair in table.get("pypi-dependencies", {}).items()]
        env |= {
            key: str(value) for key, value in table.get("activation", {}).get("env", {}).items()
        }
        needs |= table.get("system-requirements", {})
    options = raw.get("pypi-options") or project.get("pypi-options") or {}
    return Recipe(
        image=Image(cuda=str(needs.get("cuda", ""))),
        packages=Packages(
            conda=tuple(specs),
            channels=tuple(one["channel"] if isinstance(one, dict) else one for one in channels),
            pip=tuple(pip),
            index_url=options.get("index-url", ""),
            extra_index_urls=tuple(options.get("extra-index-urls", ())),
        ),
        env=env,
    )


def _pixi_parts(raw: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The features of an environment; that of the whole workspace is `raw` itself."""
    environments = raw.get("environments", {})
    if name != "default" and name not in environments:
        known = ", ".join(sorted({"default", *environments}))
        raise RecipeError(f"There is no environment {name!r}.", why=f"There are: {known}.")
    told = environments.get(name, [])
    chosen = told.get("features", []) if isinstance(told, dict) else told
    alone = isinstance(told, dict) and told.get("no-default-feature", False)
    features = [raw.get("feature", {}).get(feature, {}) for feature in chosen]
    return features if alone else [raw, *features]


def _for_platform(part: dict[str, Any], subdir: str) -> Iterator[dict[str, Any]]:
    yield part
    for name in ("unix", "linux", subdir):
        if name in part.get("target", {}):
            yield part["target"][name]


def _pixi_spec(name: str, told: str | dict[str, Any]) -> str:
    if isinstance(told, str):
        return name if told == "*" else f"{name} {told}"
    version = told.get("version", "*")
    channel = f"{told['channel']}::" if "channel" in told else ""
    build = f" {told['build']}" if "build" in told else ""
    return f"{channel}{name} {version}{build}"


def _pixi_pip(name: str, told: str | dict[str, Any]) -> str:
    if isinstance(told, str):
        return name if told == "*" else f"{name}{told}"
    extras = f"[{','.join(told['extras'])}]" if told.get("extras") else ""
    if "path" in told:
        return f"{name}{extras} @ {told['path']}"
    if "url" in told:
        return f"{name}{extras} @ {told['url']}"
    if "git" in told:
        at = told.get("rev") or told.get("tag") or told.get("branch") or ""
        return f"{name}{extras} @ git+{told['git']}" + (f"@{at}" if at else "")
    version = told.get("version", "*")
    return f"{name}{extras}" + ("" if version == "*" else version)
