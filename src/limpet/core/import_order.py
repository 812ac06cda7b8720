"""In which order an import opens files, from what modules say that they import: nothing is run.

Python loads a module's package before it, and reads a module's byte code before what that imports
in turn, statement by statement. The loader opens the libraries that a compiled module needs, and
those that they need. What modules import later, in functions, or decide when they run, is not seen.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

_PLAIN = re.compile(r"[A-Za-z]\w*")
_NO_MODULES = frozenset(("test", "tests", "doc", "docs", "examples", "benchmarks", "scripts"))


class Library(msgspec.Struct, frozen=True, array_like=True):
    """What a shared library asks of the loader: names, and folders of its own to look in.

    A symlink to one only says where it leads, `link`.
    """

    needed: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    link: str = ""


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a piece brings to import, by path in the image.

    `modules` has byte code with the import statements of each (`base_scripts/module_imports`).
    """

    modules: dict[str, tuple[str, ...]] = {}
    libraries: dict[str, Library] = {}


class Module(msgspec.Struct, frozen=True, array_like=True):
    """The file that is opened for a module, its imports, and of a package what modules it holds.

    None for what is no package; nothing for one whose modules are known by their names.
    """

    path: str
    imports: tuple[str, ...] = ()
    holds: tuple[str, ...] | None = None


Modules = Mapping[str, Module | None]  # by name; None for what is known not to be there
Needed = Callable[[str], Sequence[str]]  # the libraries that one needs itself, by path


def find_modules(contents: Sequence[Contents], folders: Sequence[str]) -> dict[str, Module]:
    """All modules of an image's pieces by name; `folders` are on Python's path, the first wins."""
    found: dict[str, Module] = {}
    for folder in folders:
        for one in contents:
            for path, imports in one.modules.items():
                name, is_package = _name_of(path, folder, byte_code=True)
                if name:
                    found.setdefault(name, Module(path, imports, () if is_package else None))
            for path in one.libraries:
                name, _ = _name_of(path, folder, byte_code=False)
                if name:
                    found.setdefault(name, Module(path))
    return found


def _name_of(path: str, folder: str, *, byte_code: bool) -> tuple[str, bool]:
    """`a.b` of `a/__pycache__/b.cpython-313.pyc`, and whether it is a package."""
    if not path.startswith(f"{folder}/"):
        return "", False
    parts = path[len(folder) + 1 :].split("/")
    if byte_code:
        if len(parts) < 2 or parts[-2] != "__pycache__":
            return "", False
        del parts[-2]
    name = parts.pop().partition(".")[0]
    is_package = byte_code and name == "__init__"
    names = parts if is_package else [*parts, name]
    return (".".join(names), is_package) if all(map(str.isidentifier, names)) else ("", False)


def root_modules(contents: Contents, folder: str) -> tuple[str, ...]:
    """The modules of a distribution that its users import, sorted."""
    places = folder.count("/") + 1
    near = Contents(
        modules={path: () for path in contents.modules if path.count("/") <= places + 2},
        libraries={path: Library() for path in contents.libraries if path.count("/") == places},
    )
    found = find_modules((near,), (folder,))
    return tuple(sorted(n for n in found if _PLAIN.fullmatch(n) and n not in _NO_MODULES))


@lru_cache(1 << 16)
def targets(line: str, name: str, *, is_package: bool) -> tuple[str, tuple[str, ...]]:
    """What an import statement of module `name` names, absolute: a module, and names in it."""
    asked, _, wanted = line.partition(":")
    bare = asked.lstrip(".")
    if level := len(asked) - len(bare):
        parts = name.split(".")
        parts = parts[: len(parts) - level + is_package]
        bare = ".".join([*parts, *([bare] if bare else [])])
    return bare, tuple(word for word in wanted.split(",") if word and word != "*")


def unknown_modules(roots: Sequence[str], modules: Modules) -> dict[str, list[str]]:
    """What an order needs to know of further modules: names, and what is imported from them."""
    asked: dict[str, set[str]] = {}
    for base, words in _statements(roots, modules):
        top = base.partition(".")[0]
        told = modules.get(base)
        if not base or (top in modules and modules[top] is None):
            continue
        if base not in modules and not _is_ours(base, modules):
            asked.setdefault(base, set()).update(words)
        elif told and told.holds:
            absent = [w for w in words if w in told.holds and f"{base}.{w}" not in modules]
            if absent:
                asked.setdefault(base, set()).update(absent)
    return {name: sorted(words) for name, words in sorted(asked.items())}


def _is_ours(name: str, modules: Modules) -> bool:
    """Whether a name is below a package whose modules are all known."""
    top = modules.get(name.partition(".")[0])
    return top is not None and top.holds == ()


def _statements(roots: Sequence[str], modules: Modules) -> Iterator[tuple[str, tuple[str, ...]]]:
    for root in roots:
        yield root, ()
    for name in load_order(roots, modules):
        module = modules[name]
        assert module
        for line in module.imports:
            yield targets(line, name, is_package=module.holds is not None)


def load_order(roots: Sequence[str], modules: Modules) -> list[str]:
    """The modules that importing `roots` loads, in the order of their opening."""
    order: dict[str, None] = {}
    waiting = list(reversed(roots))
    while waiting:
        name = waiting.pop()
        parent = name.rpartition(".")[0]
        if not name or name in order:
            continue
        if modules.get(parent) and parent not in order:
            waiting += [name, parent]
            continue
        module = modules.get(name)
        if module is None:
            continue
        order[name] = None
        following: list[str] = []
        for line in module.imports:
            base, words = targets(line, name, is_package=module.holds is not None)
            following += [base, *(f"{base}.{word}" for word in words)]
        waiting += [one for one in reversed(following) if one not in order and one in modules]
    return list(order)


def order_files(names: Sequence[str], modules: Modules, needed: Needed) -> tuple[str, ...]:
    """The files of these modules, each extension module with the libraries that it needs."""
    order: dict[str, None] = {}
    for name in names:
        module = modules[name]
        assert module
        waiting = [module.path]
        while waiting:
            path = waiting.pop(0)
            if path not in order:
                order[path] = None
                if not path.endswith((".py", ".pyc")):
                    waiting += needed(path)
    return tuple(order)


def places_to_look(library: Library, path: str) -> tuple[str, ...]:
    """The library's own folders, as ld.so(8) reads them."""
    origin = posixpath.dirname(path)
    expanded = (
        one.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for one in library.search
    )
    return tuple(dict.fromkeys(posixpath.normpath(one) for one in expanded if one))
