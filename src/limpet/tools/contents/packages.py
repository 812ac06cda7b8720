"""The Pythons of an image and the packages that each sees."""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
from collections.abc import Iterator

from limpet.core.errors import ImageError
from limpet.core.image_contents import CondaPackage, Environment, Package
from limpet.tools.contents.tree import ImageTree, Member

MOST_METADATA = 1 << 20
MOST_RECORD = 64 << 20
SAMPLE = 200  # byte code files of an environment that are opened
_TESTS = re.compile(r"(?:^|/)tests?(?:ing_data)?/")
_SITES = ("site-packages", "dist-packages")


def find_environments(tree: ImageTree) -> tuple[Environment, ...]:
    """Each Python of the image with its packages."""
    found: dict[tuple[str, ...], Environment] = {}
    for prefix, python in sorted(_find_pythons(tree)):
        config = tree.read_text(f"{prefix}/pyvenv.cfg")
        folders = _folders(tree, prefix, python, config)
        if folders and folders not in found:
            found[folders] = _read(tree, prefix, python, bool(config), folders)
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
    prefix: str,
    python: str,
    virtual: bool,
    folders: tuple[str, ...],
) -> Environment:
    packages = []
    for folder in folders:
        for name in tree.names(folder):
            if name.endswith((".dist-info", ".egg-info")):
                packages.append(_read_package(tree, folder, name))
    sources, compiled, unused = _count_byte_code(tree, folders, python)
    return Environment(
        prefix=f"/{prefix}",
        python=python,
        virtual=virtual,
        folders=tuple(f"/{folder}" for folder in folders),
        packages=tuple(packages),
        sources=sources,
        compiled=compiled,
        unused=unused,
    )


def _read_package(tree: ImageTree, folder: str, name: str) -> Package:
    info = f"{folder}/{name}"
    guess = re.match(r"(.+?)-(\d[^-]*)", name.rpartition(".")[0])
    file = next((f for f in ("METADATA", "PKG-INFO") if tree.find(f"{info}/{f}")), "")
    text = tree.read_text(f"{info}/{file}" if file else info, MOST_METADATA)
    head = _headers(text)
    found = Package(
        name=_first(head, "name") or (guess[1] if guess else name.partition(".")[0]),
        version=_first(head, "version") or (guess[2] if guess else ""),
        folder=f"/{folder}",
        requires=tuple(head.get("requires-dist", ())),
        trouble="" if head.get("name") else f"/{info}: there is no name in its metadata",
    )
    return _measure(tree, folder, info, found)


def _headers(text: str) -> dict[str, list[str]]:
    """The fields at the top, in small letters; lines that go on belong to none that is used."""
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.strip():
            break
        if not line[0].isspace():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip().lower(), []).append(value.strip()[:500])
    return fields


def _first(head: dict[str, list[str]], name: str) -> str:
    return head.get(name, [""])[0]


def _measure(tree: ImageTree, folder: str, info: str, package: Package) -> Package:
    size = files = useless = 0
    for line in tree.read_text(f"{info}/RECORD", MOST_RECORD).splitlines():
        path = line.rsplit(",", 2)[0].strip('"')
        member = tree.members.get(posixpath.normpath(posixpath.join(folder, path)))
        if member is None or member.kind != "file":
            continue
        size += member.size_bytes
        files += 1
        if path.endswith(".a") or _TESTS.search(path):
            useless += member.size_bytes
    return Package(
        name=package.name,
        version=package.version,
        folder=package.folder,
        requires=package.requires,
        trouble=package.trouble,
        size_bytes=size,
        files=files,
        useless_bytes=useless,
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


# ---- conda ---------------------------------------------------------------------------------------


def find_conda(tree: ImageTree) -> tuple[tuple[CondaPackage, ...], tuple[str, ...]]:
    """The packages of all conda environments in the image, and what could not be read."""
    troubles: list[str] = []
    found = tuple(_conda_packages(tree, troubles))
    return found, tuple(troubles)


def _conda_packages(tree: ImageTree, troubles: list[str]) -> Iterator[CondaPackage]:
    for path, member in tree.members.items():
        place = re.fullmatch(r"(.*?)/?conda-meta/[^/]+\.json", path)
        if not place or member.kind != "file":
            continue
        try:
            record = json.loads(member.start(MOST_RECORD))
            yield CondaPackage(
                name=str(record["name"]),
                version=str(record["version"]),
                build=str(record.get("build", "")),
                prefix=f"/{place[1]}",
                depends=tuple(str(one) for one in record.get("depends") or ()),
            )
        except (ImageError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            troubles.append(f"/{path}: {error}")
