"""`limpet pack`: from a folder that lies on the disk to one file that serves it at its place."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec

from limpet.actions.assemble import Parts, SifObject, assemble, own_entries
from limpet.actions.build import check_output, describe, identify, make_labels, rewritten
from limpet.actions.pack_plan import Gathered, gather
from limpet.actions.pack_python import (
    Asking,
    Bench,
    Told,
    compile_missing,
)
from limpet.actions.prepare import Standing
from limpet.actions.wrap import wrap_image
from limpet.core.activation import Activation, Setting
from limpet.core.errors import BuildError
from limpet.core.events import Event, Notify, ignore
from limpet.core.findings import Finding
from limpet.core.image import RECIPE_OBJECT
from limpet.core.pack import ByteCode, PackReport, PackRequest, find_changed
from limpet.core.prefix import find_changes, image_mode
from limpet.core.skeleton import (
    WHERE_MISSING,
    CondaFrame,
    Member,
    plan_hook,
    plan_start,
    render_env_script,
)
from limpet.core.wrap import WrapReport, WrapRequest
from limpet.formats.sif import architecture_of
from limpet.formats.squashfs import Entry, Squashfs, Written, write_data
from limpet.tools import files, launchers
from limpet.tools.prefix_scan import looking_again, scan_tree
from limpet.tools.prefix_stream import TreeReader, changed
from limpet.tools.prefix_verify import ReadBack, open_partition, verify_tree

# Of what lies in a folder, compressed: more than measured on environments (a third).
IMAGE_SHARE = 0.6


def pack(request: PackRequest, notify: Notify = ignore) -> PackReport:
    """Pack a folder; with `dry_run` only say what would be done. The folder is only read."""
    started_s = time.monotonic()
    output = Path(request.output).absolute()
    check_output(output, force=request.force)
    if request.wrap:
        launchers.check_free(Path(request.wrap).absolute(), force=request.force)
    gathered = gather(request, notify)
    plan = gathered.plan
    if request.dry_run:
        return PackReport(plan=plan, findings=plan.findings)
    files.sweep_partials(output.parent)
    packed_bytes = int(plan.size_bytes * IMAGE_SHARE)
    files.check_space(output.parent, size_bytes=packed_bytes + gathered.prepared.facts.size_bytes)
    with files.passing_folder(gathered.prepared.scratch) as scratch:
        report = _Packing(gathered, scratch, notify).make()
    wrap = _wrap(request, notify) if request.wrap else None
    elapsed_s = time.monotonic() - started_s
    notify(Event(stage="image", kind="end", message=f"Wrote {output}", elapsed_s=elapsed_s))
    return msgspec.structs.replace(report, wrap=wrap, elapsed_s=elapsed_s)


def _wrap(request: PackRequest, notify: Notify) -> WrapReport:
    notify(Event(stage="wrap", kind="start", message=f"Making launchers in {request.wrap}"))
    return wrap_image(
        request.output,
        Path(request.wrap),
        WrapRequest(),
        config_file=request.config_file,
        system=request.system,
        force=request.force,
    )


class _Packing:
    """One image on its way, with what is learned on it."""

    def __init__(self, gathered: Gathered, scratch: Path, notify: Notify) -> None:
        self._gathered = gathered
        self._prepared = gathered.prepared
        self._scratch = scratch
        self._notify = notify
        self._compiled: list[str] = []
        self._written: Written
        self._looking = ExitStack()
        self._look: Callable[[], tuple[bool, ...]]
        self._readers = [
            TreeReader(tree.folder, tree.place.lstrip("/"), tree.seen) for tree in gathered.trees
        ]
        standing = Standing(sif=self._prepared.sif, facts=self._prepared.facts)
        self._bench = Bench(
            standing=standing,
            runtime=self._prepared.runtime,
            trees=gathered.trees,
            links=gathered.links,
        )

    def make(self) -> PackReport:
        gathered, plan = self._gathered, self._gathered.plan
        parts = self._parts()
        asking = Asking(self._bench, gathered.prefix, plan.base)
        with self._looking, asking:
            size_bytes = assemble(
                plan.output,
                parts,
                scratch=self._scratch,
                replace=gathered.request.force,
                fill=lambda out: self._fill(out, parts, asking),
                check=self._prove,
            )
        return PackReport(
            plan=plan,
            size_bytes=size_bytes,
            verified=sum(len(reader.contents) for reader in self._readers),
            byte_code=self._byte_code(),
            findings=(*plan.findings, *self._find_changed()),
        )

    def _fill(self, out: BinaryIO, parts: Parts, asking: Asking) -> Parts:
        """Write the folders' data, and tell what is known when all of them was read."""
        plan = self._gathered.plan
        message = f"Packing {plan.files} files"
        self._notify(Event(stage="pack", kind="start", message=message))
        self._written = write_data(
            out, self._entries(asking), compressor=parts.compression, decodes=True
        )
        self._notify(Event(stage="pack", kind="end", done=plan.files, unit="files"))
        folders = [(tree.folder, tree.seen) for tree in self._gathered.trees]
        self._look = self._looking.enter_context(looking_again(folders))
        self._notify(Event(stage="image", kind="start", message=f"Writing {plan.output}"))
        told = asking.told()
        version = told.inside.version if told.inside else ""
        self._lock(python=version, tree_sha256=self._hash())
        objects = self._objects()
        return msgspec.structs.replace(
            parts,
            written=self._written,
            own=tuple(own_entries(self._members(told))),
            objects=objects,
            ident=identify(objects),
        )

    def _settings(self, activation: Activation) -> tuple[Setting, ...]:
        """What activation sets; what it sets differently on each host is told and left out."""
        for name in activation.host_dependent:
            message = (
                f"Activation sets {name} to something else on each host or in each start: left "
                "out. Give it with --env, or where it is used, if it is needed."
            )
            self._notify(Event(stage="activation", kind="note", message=message))
        variables = self._gathered.prefix.variables
        fixed = tuple(Setting(name=n, value=v) for n, v in variables.items())
        return (*fixed, *activation.settings)

    def _entries(self, asking: Asking) -> Iterator[Entry]:
        """Byte code that is compiled here comes last: only then is known what is stale."""
        for reader in self._readers:
            for entry in reader.entries():
                asking.look()  # which starts a thread, when the copy that reads has been made
                yield entry
        for place, target in self._gathered.links.items():
            yield Entry(place.lstrip("/"), "symlink", 0o777, target=target)
        if inside := asking.told().inside:
            yield from compile_missing(
                self._bench,
                inside,
                {
                    tree.place: frozenset(reader.left_out)
                    for tree, reader in zip(self._gathered.trees, self._readers, strict=True)
                },
                scratch=self._scratch,
                workers=len(os.sched_getaffinity(0)),
                compiled=self._compiled,
            )

    def _lock(self, **fields: str) -> None:
        """The lock, with what becomes known: the version that Python gave, the name of all read."""
        lock = msgspec.structs.replace(self._prepared.lock, **fields)
        self._prepared = msgspec.structs.replace(self._prepared, lock=lock)

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for tree, reader in zip(self._gathered.trees, self._readers, strict=True):
            digest.update(os.fsencode(tree.place) + b"\0")
            words: list[bytes] = []
            for one in tree.seen:
                content = reader.contents.get(one.path)
                what = content.sha256 if content else os.fsencode(one.target)
                words += (os.fsencode(one.path), b"\0%o\0" % image_mode(one.mode), what)
            digest.update(b"".join(words))
        return digest.hexdigest()

    def _objects(self) -> tuple[SifObject, ...]:
        gathered, plan = self._gathered, self._gathered.plan
        objects = describe(
            self._prepared,
            plan.layout,
            name=gathered.request.name or plan.output.stem,
            prefix=gathered.place,
            places=plan.served,
        )
        return tuple(item for item in objects if item.name != RECIPE_OBJECT)

    def _parts(self) -> Parts:
        """All but the data, and what is known when they were read."""
        prepared, layout = self._prepared, self._gathered.plan.layout
        compression = prepared.recipe.image.compression
        rewrites = layout == "merged" and prepared.facts.compressor != compression
        return Parts(
            base_sif=rewritten(prepared, compression) if rewrites else prepared.sif,
            pieces=(),
            own=(),
            where_missing=tuple(own_entries(WHERE_MISSING)),
            layout=layout,
            compression=compression,
            arch=architecture_of(prepared.facts.arch),
            ident=bytes(16),
        )

    def _members(self, told: Told) -> Iterator[Member]:
        prefix, place, prepared = self._gathered.prefix, self._gathered.place, self._prepared
        inside = told.inside
        frame = CondaFrame(name=prefix.conda_name, settings=self._settings(told.activation))
        script = render_env_script(
            prepared.facts.variables,
            prepared.recipe.env,
            frame if prefix.kind == "conda" else None,
            prefix=place,
            is_venv=prefix.kind == "venv",
        )
        program = "python" if inside else ""
        yield from plan_start(script, make_labels(prepared), prefix=place, program=program)
        if inside and inside.packages.startswith(f"{place}/"):
            yield from plan_hook(inside.packages)

    def _prove(self, image: BinaryIO, top: Squashfs) -> None:
        """Read everything back, and look whether the folders are still what was read."""
        self._notify(Event(stage="verify", kind="start", message="Comparing file by file"))
        with ReadBack(image, self._written) as back:
            partition = open_partition(image, self._gathered.plan.layout, top)
            self._compare(partition, frozenset())  # while threads read the blocks
            if wrong_blocks := back.wrong():
                self._compare(partition, wrong_blocks)
        for tree, is_as_seen in zip(self._gathered.trees, self._look(), strict=True):
            if not is_as_seen and (gone := find_changes(tree.seen, scan_tree(tree.folder))):
                raise changed(tree.folder, gone)
        self._notify(Event(stage="verify", kind="end", done=self._gathered.plan.files))

    def _compare(self, partition: Squashfs, wrong_blocks: frozenset[int]) -> None:
        """BuildError where the image holds something else than what was read."""
        for tree, reader in zip(self._gathered.trees, self._readers, strict=True):
            wrong = verify_tree(
                partition,
                tree.place,
                tree.seen,
                reader.contents,
                frozenset(reader.left_out),
                self._written,
                wrong_blocks,
            )
            if wrong:
                raise BuildError(
                    f"The image does not hold what {tree.folder} holds, and was not kept.",
                    why="\n".join(wrong[:5]),
                    now="Try once more; if it happens again, please report it.",
                )

    def _byte_code(self) -> ByteCode:
        contents = [one for reader in self._readers for one in reader.contents.values()]
        return ByteCode(
            rewritten=sum(bool(one.written) and one.written != one.sha256 for one in contents),
            stale=sum(len(reader.left_out) for reader in self._readers),
            compiled=len(self._compiled),
        )

    def _find_changed(self) -> list[Finding]:
        """Files that are other than, or not there as, their packages say."""
        different, missing = [], []
        rows = zip(self._gathered.trees, self._readers, self._gathered.metadata, strict=True)
        for tree, reader, told in rows:
            there = {one.path for one in tree.seen}
            missing += [f"{tree.place}/{path}" for path in told.expected - there]
            different += [
                f"{tree.place}/{path}"
                for path, digest in told.hashes.items()
                if path in reader.contents and reader.contents[path].sha256.hex() != digest
            ]
        return find_changed(different, missing)
