"""What installers noted in an image about what they installed: conda, Debian's dpkg, and Python's.

An image may claim any number of lists of any length, so each is read up to a limit, and all
together up to `READ_BYTES`; what was passed over is among the tree's troubles.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from limpet.core.package_files import (
    Metadata,
    guess_metadata,
    parse_conda_meta,
    parse_dpkg_status,
    parse_metadata,
    parse_record,
)
from limpet.formats.image_tree import ImageTree

METADATA_BYTES = 1 << 20
LIST_BYTES = 32 << 20
READ_BYTES = 256 << 20

_CONDA_META = re.compile(r"(?:(.*)/)?conda-meta/[^/]+\.json")
_DPKG_STATUS = "var/lib/dpkg/status"
_DPKG_LIST = "var/lib/dpkg/info/{}.list"
_INFO = re.compile(r"((?:.*/)?(?:site|dist)-packages)/([^/]+\.(?:dist|egg)-info)(?:/.*)?")
_BYTE_CODE = re.compile(r"(.*/)__pycache__/([^/]+?)\.[^/.]+(?:\.opt-\d)?\.pyc")


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """The packages by the installer that noted them; `files` are paths as they are in the tree."""

    conda: tuple[Metadata, ...] = ()
    system: tuple[Metadata, ...] = ()
    python: tuple[Metadata, ...] = ()


def read_records(tree: ImageTree) -> Records:
    """All packages that an image's own files name."""
    reader = _Reader(tree)
    return Records(
        conda=tuple(reader.read_conda()),
        system=tuple(reader.read_dpkg()),
        python=tuple(reader.read_python()),
    )


class _Reader:
    """The tree, what of it is looked up by name, and how much was read."""

    def __init__(self, tree: ImageTree) -> None:
        self._tree = tree
        self._read_bytes = 0
        self._conda: list[str] = []
        self._infos: dict[tuple[str, str], list[str]] = defaultdict(list)  # metadata → its files
        self._compiled: dict[str, list[str]] = defaultdict(list)  # source → its byte code
        for path, member in tree.members.items():
            if info := _INFO.fullmatch(path):
                self._infos[info[1], info[2]] += [path] if member.kind == "file" else []
            elif member.kind != "file":
                continue
            elif code := _BYTE_CODE.fullmatch(path):
                self._compiled[f"{code[1]}{code[2]}.py"].append(path)
            elif _CONDA_META.fullmatch(path):
                self._conda.append(path)

    def read_conda(self) -> Iterator[Metadata]:
        for path in sorted(self._conda):
            place = _CONDA_META.fullmatch(path)
            prefix = place[1] or "" if place else ""
            found = parse_conda_meta(self._read(path, LIST_BYTES), prefix)
            if found is None:
                self._tree.troubles.append(f"/{path}: this is no record of conda's")
            else:
                yield self._with_files(found, (path, *found.files))

    def read_dpkg(self) -> Iterator[Metadata]:
        for found in parse_dpkg_status(self._read(_DPKG_STATUS, LIST_BYTES)):
            names = (found.name, f"{found.name}:{found.arch}")
            lists = [
                place for name in names if (place := _DPKG_LIST.format(name)) in self._tree.members
            ]
            named = b"\n".join(self._read(place, LIST_BYTES) for place in lists)
            paths = named.decode("utf-8", "surrogateescape").splitlines()
            yield self._with_files(found, [path.lstrip("/") for path in paths])

    def read_python(self) -> Iterator[Metadata]:
        for (site, name), inside in sorted(self._infos.items()):
            info = f"{site}/{name}"
            files = (f"{info}/{one}" for one in ("METADATA", "PKG-INFO"))
            path = next((one for one in files if self._tree.find(one)), info)
            found = parse_metadata(self._read(path, METADATA_BYTES)) or guess_metadata(info)
            record = b"" if path == info else self._read(f"{info}/RECORD", LIST_BYTES)
            found = msgspec.structs.replace(found, folder=site)
            yield self._with_files(found, (path, *parse_record(record, site), *inside))

    def _read(self, path: str, limit_bytes: int) -> bytes:
        if self._read_bytes > READ_BYTES:
            note = f"/{path}: not read, the lists are too large together"
            self._tree.troubles.append(note)
            return b""
        data = self._tree.read_start(path, limit_bytes)
        self._read_bytes += len(data)
        return data

    def _with_files(self, found: Metadata, paths: Iterable[str]) -> Metadata:
        """With those of the paths that are files here, and the byte code that is made of them."""
        there: dict[str, None] = {}
        for path in paths:
            real = self._tree.real_path(path)
            member = self._tree.members.get(real)
            if member is not None and member.kind == "file":
                there[real] = None
            # A source may be a link: its byte code lies beside the link.
            there.update(dict.fromkeys(self._compiled.get(real, ())))
        return msgspec.structs.replace(found, files=tuple(there))
