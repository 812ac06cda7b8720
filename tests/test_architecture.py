"""Imports go one way, processes start in one place, and no module outgrows one head."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from limpet.tools import process

SOURCE = Path(__file__).parent.parent / "src" / "limpet"
BASE_SCRIPTS = {path.stem for path in SOURCE.glob("base_scripts/*.py")}  # each other
MODULES = sorted(SOURCE.rglob("*.py"))

# What each part may import of limpet itself ("" is the package's own __init__: its version).
MAY_IMPORT = {
    "": {""},
    "core": {"", "core"},
    "formats": {"", "formats", "core"},
    "tools": {"", "tools", "formats", "core"},
    "actions": {"", "actions", "tools", "formats", "core"},
    "report": {"", "report", "core"},
    "cli": {"", "cli", "actions", "report", "core"},
    "__main__": {"cli"},
    "base_scripts": set[str](),
}
SHARED_TOOLS = {"process", "files", "answers", "mounts", "yaml_text", "conda_engine"}
CORE_LIBRARIES = {"packaging", "msgspec"}
# zstd, by Python's version, and ELF
FORMATS_LIBRARIES = CORE_LIBRARIES | {"backports", "compression", "elftools"}

MAY_START_PROCESSES = {
    "tools/process.py": "the one seam",
    "tools/bounded.py": "looks that may hang, each in a copy of limpet itself",
    "tools/watch.py": "the program that limpet stays beside",
}
PROCESS_MODULES = {"subprocess", "pty", "multiprocessing"}
PROCESS_CALLS = ("exec", "fork", "spawn", "posix_spawn", "system", "popen")

LONGEST_MODULE = 450
LONGEST_FUNCTION = 60


def part_of(path: Path) -> str:
    words = path.relative_to(SOURCE).with_suffix("").parts
    return "" if words == ("__init__",) else words[0]


def named(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> set[str]:
    """Dotted names of all that a module imports, anywhere in it; `from a import b` gives `a.b`."""
    package = ("limpet", *path.relative_to(SOURCE).parts[:-1])
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join((*above, *([node.module] if node.module else [])))
            names |= {f"{start}.{alias.name}" for alias in node.names}
    return names


def own_parts(names: set[str]) -> set[str]:
    """Which parts of limpet are among the imported names."""
    words = [name.split(".") for name in names if name.split(".")[0] == "limpet"]
    return {parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "" for parts in words}


def libraries(names: set[str]) -> set[str]:
    """Top-level packages among the imported names that are neither limpet nor Python's own."""
    tops = {name.split(".")[0] for name in names}
    return {top for top in tops if top != "limpet" and top not in sys.stdlib_module_names}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"{named(path)} belongs to no known part"
    assert own_parts(imported(path)) <= MAY_IMPORT[part]


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(p) == "tools"], ids=named)
def test_tools_know_only_themselves_and_the_shared_ones(path: Path) -> None:
    own = path.relative_to(SOURCE / "tools").with_suffix("").parts[0]
    others = {
        name.split(".")[2]
        for name in imported(path)
        if name.startswith("limpet.tools.") and len(name.split(".")) > 2
    }
    assert others - {own} <= SHARED_TOOLS


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_the_pure_parts_need_few_libraries(path: Path) -> None:
    allowed = {"core": CORE_LIBRARIES, "formats": FORMATS_LIBRARIES, "base_scripts": BASE_SCRIPTS}
    part = part_of(path)
    if part in allowed:
        assert libraries(imported(path)) <= allowed[part]


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_processes_start_in_one_place(path: Path) -> None:
    # What runs inside a base has no limpet there to start processes with.
    if named(path) in MAY_START_PROCESSES or part_of(path) == "base_scripts":
        return
    names = imported(path)
    found = {name for name in names if name.split(".")[0] in PROCESS_MODULES}
    found |= {name for name in names if name.endswith("ProcessPoolExecutor")}
    for node in ast.walk(parsed(path)):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and node.attr.startswith(PROCESS_CALLS)
        ):
            found.add(f"os.{node.attr}")
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_modules_fit_one_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_functions_fit_a_screen(path: Path) -> None:
    lengths = {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(p) == "base_scripts"], ids=named)
def test_base_scripts_are_old_python(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))
    assert "__future__.annotations" not in imported(path)  # from 3.7 on


def test_unmarked_tests_start_nothing() -> None:
    with pytest.raises(AssertionError, match="not marked `real`"):
        process.run(["true"])


@pytest.mark.real
def test_real_tests_start_what_they_need_as_a_plain_user() -> None:
    assert process.run(["id", "-u"]).text.strip() != "0"
