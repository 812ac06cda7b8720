"""The module archive on its way into an image: its hook, compiled, and what writes its index."""

from __future__ import annotations

import hashlib
import zipfile
from functools import partial
from pathlib import Path

import msgspec

from limpet.actions.assemble import Parts, own_entries
from limpet.actions.pieces import Shelf, start_compiler
from limpet.actions.wheels import work_folder
from limpet.core import personal
from limpet.core.module_archive import ARCHIVE, HOOK, INDEX, Modules, read_modules, render_index
from limpet.core.skeleton import Member
from limpet.formats.squashfs import Front, Squashfs
from limpet.tools import answers
from limpet.tools.bytecode import OUT_INSIDE, Compiler, Source, byte_code_path

_SCRIPT = Path(__file__).parent.parent / "base_scripts" / "module_archive.py"
_BLOCK_BYTES = 128 << 10  # of the images that pieces are merged into


def with_archive(parts: Parts, shelf: Shelf) -> Parts:
    """The parts with an archive of the modules in their order, where that is one squashfs."""
    if not parts.order or parts.small or parts.layout != "merged":
        return parts
    site_folder = shelf.layout.site_folder
    hook = [Member(path=path, content=code) for path, code in sorted(_hook(shelf).items())]
    describe = partial(
        render_index,
        key=parts.ident.hex(),
        tag=shelf.site.interpreter.cache_tag,
        block_bytes=_BLOCK_BYTES,
    )
    first = (f"{site_folder}/{personal.HOOK}.pth", *(member.path for member in hook))
    return msgspec.structs.replace(
        parts,
        own=(*parts.own, *own_entries(hook)),
        order=(*parts.order, *first),
        front=Front(path=ARCHIVE, index=INDEX, describe=describe),
    )


def read_modules_of(tree: Squashfs) -> Modules | None:
    """What a start must know of the archive in an image that limpet has just written."""
    node = tree.find(INDEX)
    return read_modules(tree.read(node)) if node else None


def keep_hook(shelf: Shelf, compiler: Compiler) -> None:
    """Compile the hook now, while the environment's Python runs, if it is not kept."""
    if answers.recall(_kept_path(shelf), dict[str, bytes]) is None:
        answers.keep(_kept_path(shelf), _compile(shelf, compiler))


def _hook(shelf: Shelf) -> dict[str, bytes]:
    """The hook's files by path, with byte code, which a read-only image could not keep later."""

    def find() -> dict[str, bytes]:
        with work_folder(shelf.site.cache) as out, start_compiler(shelf.site, out) as compiler:
            return _compile(shelf, compiler)

    return answers.kept_answer(_kept_path(shelf), dict[str, bytes], find)


def _sources(shelf: Shelf) -> dict[str, bytes]:
    folder = shelf.layout.site_folder
    return {
        f"{folder}/{HOOK}.py": _SCRIPT.read_bytes(),
        f"{folder}/{personal.HOOK}.py": personal.HOOK_TEXT.encode(),
    }


def _kept_path(shelf: Shelf) -> Path:
    python = shelf.site.interpreter
    said = msgspec.json.encode([_sources(shelf), python.path, python.version, python.magic])
    return shelf.site.cache / "orders" / f"{hashlib.sha256(said).hexdigest()}.hook"


def _compile(shelf: Shelf, compiler: Compiler) -> dict[str, bytes]:
    found = _sources(shelf)
    archive = compiler.out / "hook.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path, data in found.items():
            out.writestr(path, data)
        sources = [
            Source(path, info.header_offset, info.compress_size, info.file_size, 0)
            for path, info in zip(found, out.infolist(), strict=True)
        ]
    tag = compiler.cache_tag.result()
    for job in compiler.compile(f"{OUT_INSIDE}/{archive.name}", sources):
        for one in job.result():
            found[byte_code_path(one.path, tag)] = one.data
    archive.unlink()
    return found
