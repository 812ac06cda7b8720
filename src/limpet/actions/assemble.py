"""From a base, pieces and a few files of our own to one SIF; no data is compressed twice."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from limpet.core.errors import RecipeError
from limpet.core.image import AHEAD_OBJECT, Ahead
from limpet.core.skeleton import Member
from limpet.formats.sif import SifWriter, read_sif, root_partition
from limpet.formats.squashfs import (
    Entry,
    Front,
    Hot,
    Source,
    Squashfs,
    SquashfsStats,
    Written,
    compose,
    write_squashfs,
)
from limpet.tools import files

COPY_BYTES = 8 * 1024 * 1024
# 16 % smaller for 2.6 times the work; see docs/reference/benchmarks.md.
SMALL_LEVEL = 9
SMALL_BLOCK_BYTES = 1 << 20
# Of an order that nobody saw, a shared block stays as it is where most of it is wanted.
KEEP_SHARE = 0.7


class SifObject(msgspec.Struct, frozen=True, kw_only=True):
    """A named thing that travels in the SIF beside its partitions.

    `complete` adds to it what only all parts together tell.
    """

    name: str
    data: bytes
    kind: Literal["json", "raw", "sbom"] = "raw"
    complete: Callable[[bytes, Sequence[Squashfs]], bytes] | None = None


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """All that one image is made of; `removed` are paths that no part may bring.

    `written` is one more piece, whose data lie in the image already; then there is no `order`, and
    it is not `small`. `own` is what limpet puts on top, `where_missing` what it adds unless the
    base has it. The files `order` lie first. With `hot` a run was seen to open them: they are
    packed together, all of them, and launches read ahead what it read. With `front` the small ones
    are one file more. With `small` all is compressed anew, harder and in larger blocks.
    """

    base_sif: Path
    pieces: tuple[Path, ...]
    written: Written | None = None
    own: tuple[Entry, ...]
    where_missing: tuple[Entry, ...] = ()
    removed: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    front: Front | None = None
    hot: Hot | None = None
    objects: tuple[SifObject, ...] = ()
    layout: Literal["merged", "layered"]
    compression: str
    small: bool = False
    arch: str
    ident: bytes


def assemble(
    output: Path,
    parts: Parts,
    *,
    scratch: Path,
    replace: bool,
    fill: Callable[[BinaryIO], Parts] | None = None,
    check: Callable[[BinaryIO, Squashfs], None] | None = None,
) -> int:
    """Write the image beside `output` and give it its name at the end; its size in bytes.

    `fill` may write data where the image stands (`write_data`) and gives the same parts with these
    and with all that is known only then. `check` is given the whole image at its end, and what was
    written last into it as read back from it; it may raise.
    """
    with ExitStack() as stack:
        base_file = stack.enter_context(parts.base_sif.open("rb"))
        base = open_root(base_file)
        image = stack.enter_context(files.written_beside(output, replace=replace))
        writer = SifWriter(image, arch=parts.arch, ident=parts.ident)
        if parts.layout == "layered":
            with writer.partition(kind="root") as out:
                _copy_root(base_file, out)
        with writer.partition(kind="root" if parts.layout == "merged" else "overlay") as out:
            origin = out.tell()
            parts = fill(out) if fill else parts
            stats = _write_trees(out, parts, base, scratch, stack)
        top = _read_back(image, origin)
        writer.ident = parts.ident
        if stats.hot and parts.hot:
            ahead = msgspec.json.encode(_ahead(origin, stats))
            writer.add_object(AHEAD_OBJECT, ahead, kind="json")
        for item in parts.objects:
            data = _completed(item, image, base, top, parts) if item.complete else item.data
            writer.add_object(item.name, data, kind=item.kind)
        writer.finish()
        if check:
            image.flush()
            check(image, top)
        os.fchmod(image.fileno(), 0o777 & ~files.umask())
        return os.fstat(image.fileno()).st_size


def _write_trees(
    out: BinaryIO, parts: Parts, base: Squashfs, scratch: Path, stack: ExitStack
) -> SquashfsStats:
    """The base, if the layout is merged, and all that comes on top of it, as one squashfs."""
    layered = parts.layout == "layered"
    gone = [path for path in parts.removed if base.find(path)] if layered else []
    own = stack.enter_context(tempfile.TemporaryFile(dir=scratch))  # noqa: SIM115 - it is the stack's
    write_squashfs(own, _own(parts, base, gone), compressor=parts.compression)
    pieces = [Squashfs(stack.enter_context(path.open("rb"))) for path in parts.pieces]
    below = [] if layered else [Source(squashfs=base)]
    written = [Source(squashfs=parts.written)] if parts.written else []
    above = [Source(squashfs=one) for one in (*pieces, Squashfs(own))]
    layers = [*below, *written, *above]
    if parts.small and written:
        raise ValueError("data that lie in the image already have their compression")
    if parts.small:
        return _write_small(out, layers, parts, scratch)
    removed = [path for path in parts.removed if path not in gone]
    return compose(
        out,
        layers,
        order=parts.order,
        remove=removed,
        keep_share=2.0 if parts.hot or parts.front else KEEP_SHARE,
        front=parts.front,
        hot=parts.hot,
    )


def _own(parts: Parts, base: Squashfs, gone: Iterable[str]) -> Iterator[Entry]:
    """What limpet puts on top; in a layer at its real place, and with marks for what is `gone`."""
    missing = [e for e in parts.where_missing if base.find(e.path, follow=True) is None]
    for entry in (*parts.own, *missing):
        yield _behind_links(base, entry) if parts.layout == "layered" else entry
    yield from map(_whiteout, gone)


def _read_back(image: BinaryIO, origin: int) -> Squashfs:
    end = image.tell()
    top = Squashfs(image, origin)
    image.seek(end)
    return top


def _completed(
    item: SifObject, image: BinaryIO, base: Squashfs, top: Squashfs, parts: Parts
) -> bytes:
    """An object with what the trees tell that were written."""
    assert item.complete
    end = image.tell()
    trees = (base, top) if parts.layout == "layered" else (top,)
    data = item.complete(item.data, trees)
    image.seek(end)
    return data


def _write_small(
    out: BinaryIO, layers: Sequence[Source], parts: Parts, scratch: Path
) -> SquashfsStats:
    """The same tree and order; where the files of the order end is not known."""
    with tempfile.TemporaryFile(dir=scratch) as whole:
        compose(whole, layers, remove=parts.removed)
        image = Squashfs(whole)
        nodes = [image.find(path, follow=True) for path in parts.order]
        first = {id(node): at for at, node in enumerate(nodes) if node}
        entries = sorted(
            image_entries(image, first),
            key=lambda found: (found[0].kind == "file", bool(found[0].hardlink), found[1]),
        )
        return write_squashfs(
            out,
            (entry for entry, _ in entries),
            compressor=parts.compression,
            level=SMALL_LEVEL,
            block_size=SMALL_BLOCK_BYTES,
        )


def _ahead(origin: int, stats: SquashfsStats) -> Ahead:
    tables = stats.tables_start, stats.size_bytes - stats.tables_start
    return Ahead(ranges=tuple((origin + start, length) for start, length in (tables, *stats.hot)))


def open_root(file: BinaryIO) -> Squashfs:
    """The root partition of an open SIF."""
    return Squashfs(file, root_partition(read_sif(file)).offset)


def recompressed(sif: Path, cache: Path, compression: str, *, name: str) -> Path:
    """A base in another compression, made once and kept in the cache under that name."""
    target = cache / "bases" / f"{name}.{compression}.sif"
    if not target.exists():
        files.sweep_partials(files.make_folder(target.parent))
        rewrite_base(sif, target, compression=compression)
    return target


def rewrite_base(sif: Path, output: Path, *, compression: str) -> None:
    """The same base in another compression, so that pieces can be merged into it."""
    with sif.open("rb") as file, files.written_beside(output) as image:
        arch = read_sif(file).arch
        writer = SifWriter(image, arch=arch, ident=bytes(16))
        with writer.partition(kind="root") as out:
            entries = (entry for entry, _ in image_entries(open_root(file), {}))
            write_squashfs(out, entries, compressor=compression)
        writer.finish()


def image_entries(squashfs: Squashfs, order: Mapping[int, int]) -> Iterator[tuple[Entry, int]]:
    """All entries, each with its node's place in an order (by identity), the others behind it."""
    seen: dict[int, str] = {}  # two names of one inode are the same node
    for path, node in squashfs.walk():
        first = seen.setdefault(id(node), path) if node.kind == "file" else path
        entry = Entry(
            path=path,
            kind=node.kind,
            mode=node.mode,
            uid=node.uid,
            gid=node.gid,
            mtime=node.mtime,
            target=node.target,
            rdev=node.rdev,
            content=partial(squashfs.open, node) if node.kind == "file" else None,
            hardlink=first if first != path else "",
        )
        yield entry, order.get(id(node), len(order))


def own_entries(members: Iterable[Member]) -> Iterator[Entry]:
    """limpet's own members as squashfs entries: owned by root, of no date."""
    for member in members:
        mode = 0o755 if member.executable or member.kind != "file" else 0o644
        yield Entry(
            path=member.path.lstrip("/"),
            kind=member.kind,
            mode=0o777 if member.kind == "symlink" else mode,
            target=member.target,
            content=member.content if member.kind == "file" else None,
        )


def entry_bytes(entry: Entry) -> int:
    """How much a staged file will bring, before it is compressed."""
    if callable(entry.content):
        with entry.content() as file:
            return file.seek(0, os.SEEK_END)
    return len(entry.content or b"")


def staged_entries(places: Mapping[Path, str]) -> Iterator[Entry]:
    """Files and folders of the host at their place in the image, owned by root, of no date."""
    for source, place in places.items():
        for path in (source, *sorted(source.rglob("*"))) if source.is_dir() else (source,):
            inside = place.lstrip("/") + str(path)[len(str(source)) :]
            yield _host_entry(path, inside)


def _host_entry(path: Path, inside: str) -> Entry:
    if path.is_symlink():
        return Entry(path=inside, kind="symlink", mode=0o777, target=str(path.readlink()))
    if not (path.is_dir() or path.is_file()):
        raise RecipeError(f"{path} is neither a file nor a folder.", now="Leave it out of [files].")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise RecipeError(f"{path} cannot be read.", why="Permission denied.")
    if path.is_dir():
        return Entry(path=inside, kind="dir", mode=0o755)
    mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
    return Entry(path=inside, kind="file", mode=mode, content=lambda: path.open("rb"))


def _whiteout(path: str) -> Entry:
    """overlayfs's mark that a file of a lower layer is gone: a character device 0/0."""
    return Entry(path=path, kind="char", mode=0, rdev=0)


def _behind_links(base: Squashfs, entry: Entry) -> Entry:
    """The entry at its real place: a folder in an overlay would hide a link of the base's.

    On a base with /lib -> usr/lib, an overlay that brings /lib/x would hide all of /usr/lib.
    """
    parts: list[str] = []
    for part in entry.path.split("/")[:-1]:
        node = base.find("/".join([*parts, part]))
        if node is not None and node.kind == "symlink":
            joined = os.path.normpath("/" + "/".join([*parts, node.target]))
            target = node.target if node.target.startswith("/") else joined
            parts = target.strip("/").split("/")
        else:
            parts.append(part)
    parts.append(entry.path.rsplit("/", 1)[-1])
    return Entry(
        path="/".join(parts),
        kind=entry.kind,
        mode=entry.mode,
        target=entry.target,
        content=entry.content,
    )


def _copy_root(base_file: BinaryIO, out: BinaryIO) -> None:
    part = root_partition(read_sif(base_file))
    base_file.seek(part.offset)
    left = part.size_bytes
    while left and (chunk := base_file.read(min(COPY_BYTES, left))):
        out.write(chunk)
        left -= len(chunk)
