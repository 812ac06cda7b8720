"""The programs in an image, read from its file without starting anything."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from limpet.core.errors import ImageError
from limpet.core.seeing import OWN_FOLDERS
from limpet.core.seen import ImageSeen
from limpet.core.wrap import SYSTEM_FOLDERS, parse_path
from limpet.formats import sif
from limpet.formats.squashfs import Node, Squashfs

_ENV_FOLDER = "/.singularity.d/env"
_LINK_LIMIT = 40
# The host's are never mounted over these, whatever is in them.
_ALWAYS_OWN = ("boot", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var")


class _Tree(Protocol):
    """A root file system to look into."""

    def names(self, folder: str) -> list[str]: ...
    def is_program(self, path: str) -> bool: ...
    def start_of(self, path: str, size: int) -> bytes: ...
    def holds_files(self, path: str) -> bool: ...


class _Partitions:
    """The squashfs partitions of an image, the uppermost first."""

    def __init__(self, images: Sequence[Squashfs]) -> None:
        self.images = images

    def names(self, folder: str) -> list[str]:
        found: dict[str, None] = {}
        for image in self.images:
            node = image.find(folder, follow=True)
            if node is not None and node.is_dir:
                found |= {os.fsdecode(name): None for name in node.children}
        return list(found)

    def _resolved(self, path: str) -> tuple[Squashfs, Node] | None:
        for _ in range(_LINK_LIMIT):
            at = next(((i, n) for i in self.images if (n := _find(i, path)) is not None), None)
            if at is None or not at[1].is_symlink:
                return at
            # A layer's link may lead into the base's partition.
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), at[1].target))
        return None

    def is_program(self, path: str) -> bool:
        at = self._resolved(path)
        return at is not None and at[1].is_file and bool(at[1].mode & 0o111)

    def start_of(self, path: str, size: int) -> bytes:
        at = self._resolved(path)
        if at is None or not at[1].is_file:
            return b""
        with at[0].open(at[1]) as file:
            return file.read(size)

    def holds_files(self, path: str) -> bool:
        at = self._resolved(path)
        return at is not None and (not at[1].is_dir or bool(at[1].children))


def _find(image: Squashfs, path: str) -> Node | None:
    """The node itself, found through links in its folder's name but not its own."""
    folder = image.find(posixpath.dirname(path), follow=True)
    if folder is None or not folder.is_dir:
        return None
    return folder.children.get(os.fsencode(posixpath.basename(path)))


class _Sandbox:
    """A root file system that lies in a folder. Links are followed inside it only."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _real(self, path: str) -> Path:
        rest = [part for part in path.split("/") if part]
        at: list[str] = []
        for _ in range(4096):
            if not rest:
                break
            at.append(rest.pop(0))
            here = self.root.joinpath(*at)
            if at[-1] == "..":
                del at[-2:]
            elif here.is_symlink():
                target = str(here.readlink())
                at = [] if target.startswith("/") else at[:-1]
                rest = [part for part in target.split("/") if part not in ("", ".")] + rest
        return self.root.joinpath(*at)

    def names(self, folder: str) -> list[str]:
        here = self._real(folder)
        return os.listdir(here) if here.is_dir() else []  # noqa: PTH208 - names, not paths

    def is_program(self, path: str) -> bool:
        here = self._real(path)
        return here.is_file() and os.access(here, os.X_OK)

    def start_of(self, path: str, size: int) -> bytes:
        try:
            with self._real(path).open("rb") as file:
                return file.read(size)
        except OSError:
            return b""

    def holds_files(self, path: str) -> bool:
        here = self._real(path)
        return not here.is_dir() or any(here.iterdir())


@contextlib.contextmanager
def _opened(image: ImageSeen) -> Iterator[_Tree]:
    path = Path(image.path)
    if image.kind == "sandbox":
        yield _Sandbox(path)
        return
    with path.open("rb") as file:
        if image.kind == "squashfs":
            yield _Partitions([Squashfs(file)])
            return
        found = sif.read_sif(file)
        parts = [*reversed(sif.overlay_partitions(found)), sif.root_partition(found)]
        try:
            yield _Partitions([Squashfs(file, part.offset) for part in parts])
        except ImageError as error:
            raise ImageError(f"{path}: {error.what}", why=error.why, now=error.now) from error


def list_programs(image: ImageSeen, folders: Sequence[str] = ()) -> dict[str, str]:
    """Paths inside by name: of the environment, or of `folders`; the first folder's win.

    Of a foreign image without `folders`, those of its PATH that hold a Python; where that is a
    folder of the whole system, only Python itself and what is written in it.
    """
    with _opened(image) as tree:
        for folder in folders:
            if not tree.names(folder):
                raise ImageError(f"{image.path} has no folder {folder} with anything in it.")
        if folders:
            places = list(folders)
        elif image.facts:
            places = [f"{image.facts.prefix}/bin"]
        else:
            places = _python_folders(tree)
        found: dict[str, str] = {}
        for place in places:
            picky = not folders and place in SYSTEM_FOLDERS
            for name in tree.names(place):
                path = posixpath.join(place, name)
                if name in found or not tree.is_program(path):
                    continue
                if not picky or _is_python(tree, name, path):
                    found[name] = path
        return found | ({} if folders else _host_python(image))


def _host_python(image: ImageSeen) -> dict[str, str]:
    """The environment's names for a Python that is the host's: links that lead out."""
    if image.facts is None or image.facts.host is None:
        return {}
    minor = ".".join(image.facts.python.split(".")[:2])
    names = ("python", "python3", f"python{minor}")
    return {name: f"{image.facts.prefix}/bin/{name}" for name in names}


def _python_folders(tree: _Tree) -> list[str]:
    scripts = [
        tree.start_of(f"{_ENV_FOLDER}/{name}", 1 << 16).decode("utf-8", "replace")
        for name in sorted(tree.names(_ENV_FOLDER))
    ]
    return [
        folder
        for folder in parse_path(scripts)
        if any(tree.is_program(f"{folder}/{name}") for name in ("python3", "python"))
    ]


def _is_python(tree: _Tree, name: str, path: str) -> bool:
    if name.startswith(("python", "pip")):
        return True
    start = tree.start_of(path, 128)
    return start.startswith(b"#!") and b"python" in start.partition(b"\n")[0]


def list_root(image: ImageSeen) -> tuple[str, ...]:
    """The names in the root folder that are the image's own: all but empty folders.

    Nor those, such as /home, where it only serves a folder that is mounted once more anyway. What
    an image needs of the host is mounted for every start, and so counts as its own.
    """
    host = image.facts.host if image.facts else None
    shared = [folder[1:] for folder in host.folders if folder.count("/") == 1] if host else []
    places = image.facts.places if image.facts else ()
    served = {top for place in places if f"/{(top := place.split('/')[1])}" not in OWN_FOLDERS}
    with _opened(image) as tree:
        own = [
            name
            for name in tree.names("/")
            if name in _ALWAYS_OWN or (name not in served and tree.holds_files(f"/{name}"))
        ]
    return tuple(sorted({*own, *shared, *_ALWAYS_OWN}))
