"""The order of an image that nobody gave a profile: what its packages' own imports would open.

What modules import is noted when they are compiled, and what libraries need when a piece is
written; of the base's own modules its Python is asked, once for all that builds on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from packaging.utils import canonicalize_name

from limpet.actions.assemble import open_root
from limpet.actions.pieces import Shelf, start_compiler
from limpet.actions.wheels import Site, work_folder
from limpet.core.import_order import (
    Contents,
    Library,
    Module,
    find_modules,
    load_order,
    order_files,
    places_to_look,
    root_modules,
    unknown_modules,
)
from limpet.core.piece import Layout, Piece
from limpet.core.profile import clean_order, find_roots
from limpet.formats.elf import read_elf
from limpet.formats.squashfs import Squashfs
from limpet.formats.squashfs.seek import open_seekable
from limpet.tools import answers
from limpet.tools.bytecode import Compiler, byte_code_path
from limpet.tools.contents.libraries import DEFAULT_FOLDERS
from limpet.tools.pieces import read_contents, read_note

FORMAT = 1
MOST_QUESTIONS = 9  # each answer holds all that it leads to; the words in them are few
# What every Python loads before the program; the rest of it is frozen into the interpreter.
_STARTING = ("encodings", "encodings.aliases", "encodings.utf_8", "site", "sitecustomize")
_SHELL = "/bin/sh"

Known = dict[str, Module | None]


def find_import_order(shelf: Shelf, pieces: Sequence[Path], sif: Path) -> tuple[str, ...]:
    """The files that importing the recipe's own packages would open, in their order."""
    site = shelf.site
    contents = [read_contents(path) for path in pieces]
    roots = _find_roots(site, shelf.layout, pieces, contents)
    if not roots:
        return ()
    modules = _modules_of(site, shelf.layout, contents)
    if not _has_python(site):
        modules = _known(site) | modules
        if unknown_modules(roots, modules):
            with work_folder(site.cache) as out, start_compiler(site, out) as compiler:
                modules = _learn(site, compiler, roots, modules)
    libraries = {path: one for each in contents for path, one in each.libraries.items()}
    with sif.open("rb") as file:
        loader = _Loader(open_root(file), libraries, shelf.layout)
        starting = [_SHELL, *loader.closure(_SHELL)]
        starting += [site.interpreter.path, *loader.closure(site.interpreter.path)]
        names = load_order(roots, modules)
        files = order_files(names, modules, loader.needed)
        return clean_order((*starting, *_compiled(site, contents, files)))


def _compiled(site: Site, contents: Sequence[Contents], files: Iterable[str]) -> Iterator[str]:
    """The files as they are opened: byte code that the base lacked and a piece has."""
    tag = site.interpreter.cache_tag
    brought = {path for one in contents for path in one.modules}
    for path in files:
        code = byte_code_path(path, tag) if path.endswith(".py") else ""
        yield code if code in brought else path


def learn_modules(shelf: Shelf, pieces: Sequence[Piece], compiler: Compiler) -> None:
    """Ask the base's Python now, while it runs, what `find_import_order` will want to know."""
    paths = [piece.path for piece in pieces]
    contents = [read_contents(path) for path in paths]
    roots = _find_roots(shelf.site, shelf.layout, paths, contents)
    modules = _known(shelf.site) | _modules_of(shelf.site, shelf.layout, contents)
    _learn(shelf.site, compiler, roots, modules)


def _has_python(site: Site) -> bool:
    """Whether the environment brings its Python, so that all modules are in pieces."""
    return bool(site.lock.conda)


def _find_roots(
    site: Site, layout: Layout, pieces: Sequence[Path], contents: Sequence[Contents]
) -> tuple[str, ...]:
    wanted = set(find_roots(site.lock))
    names: list[str] = []
    for path, one in zip(pieces, contents, strict=True):
        note = read_note(path)
        if note and canonicalize_name(note.name) in wanted:
            names += root_modules(one, layout.site_folder)
    return tuple(dict.fromkeys((*_STARTING, *names))) if names else ()


def _modules_of(site: Site, layout: Layout, contents: Sequence[Contents]) -> Known:
    above = layout.site_folder.rpartition("/")[0]
    standard = (f"{above}/lib-dynload", above) if _has_python(site) else ()
    return dict(find_modules(contents, (layout.site_folder, *standard)))


# ---- the base's own modules ----------------------------------------------------------------------


def _learn(site: Site, compiler: Compiler, roots: Sequence[str], modules: Known) -> Known:
    """All that an order needs to know; what was not known is asked, and kept."""
    learned: Known = {}
    for _ in range(MOST_QUESTIONS):
        asked = unknown_modules(roots, modules)
        if not asked:
            break
        job = compiler.look(asked, packages=not site.lock.isolated_from_base)
        told = msgspec.json.decode(job.answer(), type=dict[str, Module | None])
        learned |= dict.fromkeys(asked) | told
        modules = learned | modules
    if learned:
        answers.keep(_kept_path(site), _known(site) | learned)
    return modules


def _kept_path(site: Site) -> Path:
    lock, python = site.lock, site.interpreter
    base = [lock.base.digest, lock.apt, lock.post_sha256, lock.isolated_from_base]
    said = msgspec.json.encode([FORMAT, base, python.path, python.version, python.magic])
    return site.cache / "orders" / f"{hashlib.sha256(said).hexdigest()}.modules"


def _known(site: Site) -> Known:
    return answers.recall(_kept_path(site), dict[str, Module | None]) or {}


# ---- libraries -----------------------------------------------------------------------------------


class _Loader:
    """Finds libraries as ld.so(8) does, in pieces and in the base."""

    def __init__(self, base: Squashfs, libraries: Mapping[str, Library], layout: Layout) -> None:
        self._base = base
        self._libraries = libraries
        self._usual = [f"{layout.prefix}/lib", *(f"/{folder}" for folder in DEFAULT_FOLDERS)]
        self._read: dict[str, Library | None] = {}
        self._found: dict[str, str] = {}

    def needed(self, path: str) -> list[str]:
        """The paths of the libraries that one needs itself."""
        library = self._library(path)
        if library is None:
            return []
        if library.link:
            return [library.link]
        own = places_to_look(library, path)
        found = (self._find(name, own) for name in library.needed)
        return [one for one in found if one]

    def closure(self, path: str) -> list[str]:
        """All that a program needs, in the order of their loading."""
        order: dict[str, None] = {}
        waiting = self.needed(path)
        while waiting:
            one = waiting.pop(0)
            if one not in order:
                order[one] = None
                waiting += self.needed(one)
        return list(order)

    def _find(self, name: str, own: Sequence[str]) -> str:
        for folder in own:
            if self._library(f"{folder}/{name}"):
                return f"{folder}/{name}"
        if name not in self._found:
            places = (f"{folder}/{name}" for folder in self._usual)
            self._found[name] = next((one for one in places if self._library(one)), "")
        return self._found[name]

    def _library(self, path: str) -> Library | None:
        if path in self._libraries:
            return self._libraries[path]
        if path not in self._read:
            self._read[path] = self._read_base(path)
        return self._read[path]

    def _read_base(self, path: str) -> Library | None:
        node = self._base.find(path, follow=True)
        if node is None or not node.is_file:
            return None
        elf = read_elf(open_seekable(self._base, node))
        if elf is None:
            return None
        loader = (elf.interpreter,) if elf.interpreter else ()
        return Library((*loader, *elf.needed), elf.search)
