"""The Pythons of an image and the packages that each sees."""

from __future__ import annotations

import contextlib
import re

from limpet.core.errors import ImageError
from limpet.core.image_contents import Environment
from limpet.formats.image_tree import ImageTree, Member
from limpet.tools.contents.owners import measure
from limpet.tools.contents.records import Records

SAMPLE = 200  # byte code files of an environment that are opened
_SITES = ("site-packages", "dist-packages")


def find_environments(tree: ImageTree, records: Records) -> tuple[Environment, ...]:
    """Each Python of the image with its packages."""
    found: dict[tuple[str, ...], Environment] = {}
    for prefix, python in sorted(_find_pythons(tree)):
        config = tree.read_text(f"{prefix}/pyvenv.cfg")
        folders = _folders(tree, prefix, python, config)
        if folders and folders not in found:
            found[folders] = _read(tree, records, prefix, python, bool(config), folders)
    return tuple(found.values())


def _find_pythons(tree: ImageTree) -> set[tuple[str, str]]:
    pythons = set()
    for path in tree.members:
        if found := re.fullmatch(r"(.*?)/?bin/python(3\.\d+)", path):
            pythons.add((found[1], found[2]))
        elif found := re.fullmatch(r"(.*?)/?pyvenv\.cfg", path):
            for name in tree.names(f"{found[1]}/lib"):
                if re.fullmatch(r"python3\.\d+", name):
                    pythons.add((found[1], name.removeprefix("python")))
    # /bin is a link to /usr/bin nearly everywhere; the tree has the true paths only.
    return pythons


def _folders(tree: ImageTree, prefix: str, python: str, config: str) -> tuple[str, ...]:
    places = [f"{prefix}/{lib}/python{python}/{s}" for lib in ("lib", "lib64") for s in _SITES]
    if prefix == "usr":
        places = [f"usr/local/lib/python{python}/{s}" for s in _SITES] + places
        places += [f"usr/lib/python3/{site}" for site in _SITES]
    there = [found[0] for place in places if (found := tree.find(place)) is not None]
    if re.search(r"(?mi)^include-system-site-packages\s*=\s*true", config):
        home = re.search(r"(?mi)^home\s*=\s*/?(.*?)/?bin/?\s*$", config)
        base = home[1].strip("/") if home else ""
        if base and base != prefix:
            there += _folders(tree, base, python, "")
    return tuple(dict.fromkeys(there))


def _read(
    tree: ImageTree,
    records: Records,
    prefix: str,
    python: str,
    virtual: bool,
    folders: tuple[str, ...],
) -> Environment:
    there = sorted(
        (one for one in records.python if one.folder in folders),
        key=lambda one: folders.index(one.folder),
    )
    sources, compiled, unused = _count_byte_code(tree, folders, python)
    return Environment(
        prefix=f"/{prefix}",
        python=python,
        virtual=virtual,
        folders=tuple(f"/{folder}" for folder in folders),
        packages=tuple(measure(tree, one) for one in there),
        sources=sources,
        compiled=compiled,
        unused=unused,
    )


# ---- byte code -----------------------------------------------------------------------------------


def _count_byte_code(
    tree: ImageTree, folders: tuple[str, ...], python: str
) -> tuple[int, int, int]:
    tag = f"cpython-{python.replace('.', '')}"
    sources = compiled = looked = unused = 0
    for folder in folders:
        for path, member in tree.below(folder):
            if member.kind != "file" or not path.endswith(".py"):
                continue
            above, _, name = path.rpartition("/")
            code = tree.members.get(f"{above}/__pycache__/{name[:-3]}.{tag}.pyc")
            sources += 1
            compiled += code is not None
            if code is not None and looked < SAMPLE:
                looked += 1
                unused += not _is_used(code, member)
    return sources, compiled, unused * compiled // looked if looked else 0


def _is_used(code: Member, source: Member) -> bool:
    """Whether Python takes this byte code, by PEP 552: flags, then the source's time and size."""
    with contextlib.suppress(ImageError, OSError):
        start = code.start(16)
        if len(start) == 16 and int.from_bytes(start[4:8], "little") == 0:
            made_of = int.from_bytes(start[8:12], "little"), int.from_bytes(start[12:], "little")
            return made_of == (source.mtime & 0xFFFFFFFF, source.size_bytes & 0xFFFFFFFF)
    return True
