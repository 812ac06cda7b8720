"""Byte code that a base's own Python lacks, compiled once for all images on that base.

Official `python` images are shipped without any: their Dockerfile removes it. An image cannot be
written to, so each start would compile again what it imports of the standard library. Debian's is
held against its source at each import (PEP 552), which is read for that; in a base that limpet did
not write itself it still is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from limpet.actions.assemble import open_root
from limpet.actions.pieces import Shelf, start_compiler
from limpet.actions.wheels import work_folder
from limpet.core.events import Event, Notify
from limpet.core.piece import Piece
from limpet.formats.byte_code import LOOK_BYTES, is_checked
from limpet.formats.squashfs import Entry, Node, Squashfs
from limpet.tools import answers
from limpet.tools.bytecode import Compiler, Source, byte_code_path
from limpet.tools.pieces import find_piece, write_piece

FORMAT = 2
Sizes = dict[str, int]  # bytes of a module's source, by its path
NAME = "base byte code"
# What no program imports: tests, editors, and the pip that limpet's own stands before.
_SKIPPED = frozenset(
    (
        *("__pycache__", "test", "tests", "idle_test", "idlelib", "turtledemo", "lib2to3"),
        *("ensurepip", "pip"),
    )
)


def base_code(shelf: Shelf, notify: Notify, compiler: Compiler | None = None) -> Piece | None:
    """The piece with the base's missing byte code, made if need be; None where nothing is missing.

    `compiler` is one that runs already.
    """
    key = _key(shelf)
    kept = shelf.site.cache / "orders" / f"{key}.lacking"
    if not (lacking := answers.kept_answer(kept, Sizes, lambda: _find_lacking(shelf))):
        return None
    if piece := find_piece(shelf.site.cache, key):
        return piece
    message = f"Compiling the base's own library, once for this base (modules: {len(lacking)})"
    notify(Event(stage="base", kind="note", message=message))
    if compiler:
        return _make(shelf, key, lacking, compiler)
    with work_folder(shelf.site.cache) as out, start_compiler(shelf.site, out) as started:
        return _make(shelf, key, lacking, started)


def _key(shelf: Shelf) -> str:
    lock, python = shelf.site.lock, shelf.site.interpreter
    base = [lock.base.digest, lock.apt, lock.post_sha256]
    told = [NAME, FORMAT, base, python.path, python.version, python.magic, shelf.compressor]
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()


def _library(shelf: Shelf) -> str:
    python = shelf.site.interpreter
    return f"{python.prefix.rstrip('/')}/lib/python{python.minor}"


def _find_lacking(shelf: Shelf) -> Sizes:
    """The modules in the standard library's folder without byte code that is taken as it is."""
    library, tag = _library(shelf), shelf.site.interpreter.cache_tag
    with shelf.site.base_sif.open("rb") as file:
        root = open_root(file)
        folder = root.find(library, follow=True)
        return dict(_modules_in(root, library, folder, tag)) if folder and folder.is_dir else {}


def _modules_in(root: Squashfs, path: str, folder: Node, tag: str) -> Iterator[tuple[str, int]]:
    cache = folder.children.get(b"__pycache__")
    compiled = cache.children if cache and cache.is_dir else {}
    for raw, node in folder.children.items():
        name = raw.decode("utf-8", "surrogateescape")
        if node.is_dir and name not in _SKIPPED:
            yield from _modules_in(root, f"{path}/{name}", node, tag)
        elif node.is_file and name.endswith(".py"):
            code = f"{name.removesuffix('.py')}.{tag}.pyc".encode("utf-8", "surrogateescape")
            if code not in compiled or _is_checked(root, compiled[code]):
                yield f"{path}/{name}", node.size_bytes


def _is_checked(root: Squashfs, code: Node) -> bool:
    """Whether byte code is held against its source's hash."""
    if not code.is_file:
        return False
    with root.open(code) as file:
        return is_checked(file.read(LOOK_BYTES))


def _make(shelf: Shelf, key: str, lacking: Sizes, compiler: Compiler) -> Piece:
    imports: dict[str, tuple[str, ...]] = {}
    return write_piece(
        shelf.site.cache,
        key,
        _compiled(lacking, compiler, imports),
        name=NAME,
        version=shelf.site.interpreter.version,
        compressor=shelf.compressor,
        threads=1,
        imports=imports,
    )


def _compiled(
    lacking: Sizes, compiler: Compiler, imports: dict[str, tuple[str, ...]]
) -> Iterator[Entry]:
    """The files lie in the base at their final path, where the compiler reads them."""
    sources = [Source(path, 0, 0, lacking[path], 0) for path in sorted(lacking)]
    tag = compiler.cache_tag.result()
    for job in compiler.compile("", sources):
        for one in job.result():
            place = byte_code_path(one.path, tag)
            imports[place] = one.imports
            yield Entry(place.lstrip("/"), "file", content=one.data)
