"""Which files an import opens, told from what modules say that they import: values."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from limpet.core.import_order import (
    Contents,
    Library,
    Module,
    find_modules,
    load_order,
    order_files,
    places_to_look,
    root_modules,
    targets,
    unknown_modules,
)

module_imports: Any = import_module("limpet.base_scripts.module_imports")
SITE = "/opt/env/lib/python3.13/site-packages"
SOURCE = """
import os, sys as system
import a.b.c
from . import x, y
from ..p.q import z as zz
from typing import TYPE_CHECKING
import typing as t
if TYPE_CHECKING:
    import never
    from never import other
else:
    import ever
if t.TYPE_CHECKING:
    import never_either
try:
    import one
except ImportError:
    from two import *
def later():
    import inner
"""
SAID = [
    "os:", "sys:", "a.b.c:", ".:x,y", "..p.q:z", "typing:TYPE_CHECKING", "typing:",
    "ever:", "one:", "two:*",
]  # fmt: skip


def pyc(path: str) -> str:
    folder, _, name = f"{SITE}/{path}".rpartition("/")
    return f"{folder}/__pycache__/{name}.cpython-313.pyc"


def contents(modules: dict[str, str]) -> Contents:
    """`{"a/b": "x: y:"}` for the module a/b.py that imports x and y."""
    named = {pyc(name): tuple(text.split()) for name, text in modules.items()}
    return Contents(modules=named)


def order_of(given: Contents, *roots: str) -> list[str]:
    return load_order(roots, find_modules([given], [SITE]))


def test_what_a_module_imports_is_read_from_its_byte_code() -> None:
    assert module_imports.imports_of(compile(SOURCE, "x", "exec")) == SAID


def test_a_module_with_many_names_is_read_as_well() -> None:
    # Operands above 255 take an instruction of their own before the one that they belong to.
    many = "".join(f"v{i} = {i + 1000}\n" for i in range(400))
    code = compile(f"{many}{SOURCE}", "x", "exec")
    assert module_imports.imports_of(code) == SAID


def test_source_without_byte_code_is_read_by_lines() -> None:
    source = b"import os\nfrom .a import (b,\n    c as d)\ndef f():\n    import never\nimport x.y\n"
    assert module_imports.imports_in(source) == ["os:", ".a:b,c", "x.y:"]


def test_the_bases_python_tells_of_its_own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/nowhere", *sys.path[1:]])
    told = module_imports.Library(False).close(
        {"json": ["tool"], "xml": ["dom"], "no_such_module": ["x"], "sys": []}
    )
    assert told["no_such_module"] is None and told["sys"] is None
    path, imports, holds = told["json"]
    assert Path(path).exists() and ".decoder:JSONDecodeError,JSONDecoder" not in imports
    assert {"decoder", "encoder", "tool"} <= set(holds)
    # What it imports in turn, and what was asked for in it; nothing else that lies there.
    assert {"json.decoder", "json.scanner", "json.tool", "argparse", "xml.dom"} <= set(told)
    assert "xml.sax" not in told and "json.no" not in told
    assert told["json.decoder"][2] is None


def test_packages_come_before_what_is_in_them_and_statements_in_turn() -> None:
    given = contents(
        {
            "a/__init__": ".one:f ..b:",
            "a/one": "b.two:",
            "a/idle": "",
            "b/__init__": "",
            "b/two": "a.last:",
            "a/last": "a:",
            "tests/__init__": "",
        }
    )
    assert order_of(given, "a") == ["a", "a.one", "b", "b.two", "a.last"]
    assert root_modules(given, SITE) == ("a", "b")


def test_a_name_that_is_imported_may_be_a_module() -> None:
    given = contents({"a/__init__": ".:sub,f", "a/sub": "", "a/f/g": ""})
    assert order_of(given, "a") == ["a", "a.sub"]
    # A folder without __init__ has modules, too.
    assert order_of(contents({"n/m": "n.o:", "n/o": ""}), "n.m") == ["n.m", "n.o"]
    assert order_of(contents({"a/__init__": "a:"}), "a", "a", "none") == ["a"]


@pytest.mark.parametrize(
    ("line", "name", "is_package", "found"),
    [
        ("x.y:a,b", "m", False, ("x.y", ("a", "b"))),
        (".:a", "p.m", False, ("p", ("a",))),
        (".:a", "p", True, ("p", ("a",))),
        ("..q:*", "p.r.m", False, ("p.q", ())),
        ("...:a", "m", False, ("", ("a",))),
    ],
)
def test_relative_imports(line: str, name: str, is_package: bool, found: object) -> None:
    assert targets(line, name, is_package=is_package) == found


def test_libraries_come_with_the_module_that_needs_them() -> None:
    module = f"{SITE}/a/_c.cpython-313-x86_64-linux-gnu.so"
    given = Contents(
        modules={pyc("a/__init__"): (".:_c", ".z:"), pyc("a/z"): ()},
        libraries={module: Library(("libx.so.1",), ("$ORIGIN/../a.libs",))},
    )
    modules = find_modules([given], [SITE])
    needs = {module: [f"{SITE}/a.libs/libx.so.1"], f"{SITE}/a.libs/libx.so.1": ["/lib/liby.so"]}
    files = order_files(load_order(["a"], modules), modules, lambda path: needs.get(path, []))
    assert files == (
        pyc("a/__init__"), module, f"{SITE}/a.libs/libx.so.1", "/lib/liby.so", pyc("a/z"),
    )  # fmt: skip
    assert places_to_look(given.libraries[module], module) == (f"{SITE}/a.libs",)


def test_the_base_is_asked_for_what_no_piece_has_and_once() -> None:
    given = contents({"a/__init__": "json:tool,loads os: a.lost: numpy.fft:x .:gone"})
    modules: dict[str, Module | None] = dict(find_modules([given], [SITE]))
    assert unknown_modules(["a"], modules) == {
        "json": ["loads", "tool"],
        "numpy.fft": ["x"],
        "os": [],
    }
    modules |= {
        "json": Module("/usr/json.pyc", (".decoder:J", "re:"), ("decoder", "tool")),
        "json.decoder": Module("/usr/decoder.pyc"),
        "os": None,
        "numpy": None,
        "re": Module("/usr/re.pyc", (), ()),
    }
    assert unknown_modules(["a"], modules) == {"json": ["tool"]}
    modules["json.tool"] = Module("/usr/tool.pyc")
    assert unknown_modules(["a"], modules) == {}
    assert load_order(["a"], modules) == ["a", "json", "json.decoder", "re", "json.tool"]


def test_a_wrong_instruction_is_no_import() -> None:
    code = bytes((module_imports.LOAD_CONST, 9, 0, 0, module_imports.IMPORT_NAME, 0))
    assert module_imports.import_at(code, ("x",), (), 4) == ""
