"""`limpet build`: from a request to one file."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal

import msgspec

from limpet import __version__
from limpet.actions.assemble import (
    Parts,
    SifObject,
    assemble,
    entry_bytes,
    open_root,
    own_entries,
    recompressed,
    staged_entries,
)
from limpet.actions.base_code import base_code
from limpet.actions.cache import using_cache
from limpet.actions.closed_recipe import close_recipe
from limpet.actions.conda import CondaShelf, make_conda_pieces
from limpet.actions.conda_fetch import find_channels
from limpet.actions.conda_scripts import with_scripts, with_written
from limpet.actions.image_lock import lock_image
from limpet.actions.import_order import learn_modules
from limpet.actions.lock_files import write_lock
from limpet.actions.module_archive import keep_hook, read_modules_of, with_archive
from limpet.actions.overlaps import settle_overlaps
from limpet.actions.pieces import Shelf, make_pieces, open_shelf
from limpet.actions.prepare import Prepared, credentials_of, prepare
from limpet.actions.profile import Keeping, keep_order, with_order
from limpet.actions.warm import warm_image
from limpet.core import image as image_core
from limpet.core.errors import BaseError, ExistsError, RecipeError, SpaceError, UsageError
from limpet.core.events import Event, Notify, ignore
from limpet.core.facts import PREFIX
from limpet.core.gpu import find_compat, plan_needs
from limpet.core.image import ImageFacts, identity_of
from limpet.core.image_env import SENT
from limpet.core.module_archive import ARCHIVE, INDEX
from limpet.core.mpi import ImageMpi, without_symbols
from limpet.core.package_files import Metadata, parse_metadata
from limpet.core.piece import Piece
from limpet.core.plan import BuildPlan, BuildReport, LockReport, plan_build
from limpet.core.pylock import render_lock
from limpet.core.request import BuildRequest
from limpet.core.sbom import render_sbom
from limpet.core.skeleton import (
    WHERE_MISSING,
    plan_conda_frame,
    plan_host_hook,
    plan_skeleton,
)
from limpet.core.staging import plan_destinations, stale_byte_code
from limpet.formats.image_tree import merged_tree
from limpet.formats.sif import architecture_of
from limpet.formats.squashfs import Entry, Squashfs
from limpet.tools import files, image_mpi
from limpet.tools.bytecode import Compiler
from limpet.tools.files import hash_tree
from limpet.tools.image_needs import list_names
from limpet.tools.recipes import render_recipe

# A folder, a wheel, a piece and its note, each of the files first under a passing name.
FILES_PER_PIECE = 8
METADATA_BYTES = 1 << 20


def build(request: BuildRequest, notify: Notify = ignore) -> BuildReport:
    """Build the image of a request; with `dry_run` only say what would be done."""
    started_s = time.monotonic()
    check_output(Path(request.output).absolute(), force=request.force)
    with using_cache(request, notify):
        report = make_image(prepare(request, notify), request, notify)
    return msgspec.structs.replace(report, elapsed_s=time.monotonic() - started_s)


def make_image(prepared: Prepared, request: BuildRequest, notify: Notify = ignore) -> BuildReport:
    """Build what is locked; with `dry_run` only say what would be done."""
    started_s = time.monotonic()
    output = Path(request.output).absolute()
    staged = find_staged(prepared)
    conda = CondaShelf(
        prepared.lock,
        cache=prepared.cache,
        arch=prepared.facts.arch,
        compressor=prepared.recipe.image.compression,
    )
    shelf = shelf_of(prepared, request, conda)
    plan = plan_build(
        prepared.lock,
        prepared.facts,
        output=output,
        layout="merged" if request.small else prepared.recipe.image.layout,
        compression=prepared.recipe.image.compression,
        kept=shelf.found.keys(),
        kept_conda=conda.kept,
    )
    if request.dry_run:
        return BuildReport(plan=plan, lock_file=prepared.lock_file)
    files.sweep_partials(output.parent)
    image_bytes = plan.image_bytes + sum(map(entry_bytes, staged))
    files.check_space(output.parent, size_bytes=image_bytes, files=2)
    files.check_space(
        prepared.cache, size_bytes=2 * plan.fetched_bytes, files=FILES_PER_PIECE * plan.new_pieces
    )
    pieces = make_all_pieces(prepared, conda, shelf, notify)
    notify(Event(stage="image", kind="note", message=f"Working in {prepared.scratch}"))
    with files.passing_folder(prepared.scratch) as scratch:
        parts = gather_parts(prepared, plan, request, pieces, staged)
        if conda.packages:
            parts = settled(prepared, parts, conda, shelf, notify)
            parts = with_scripts(prepared, conda, parts, scratch, notify)
        if prepared.recipe.warm.imports or prepared.recipe.warm.commands:
            parts = warmed(prepared, parts, scratch, notify)
        keeping = Keeping()
        if not request.no_profile:
            parts, keeping = with_order(prepared, parts, shelf, request.profile, scratch, notify)
            parts = with_archive(parts, shelf)
        how = ", with everything compressed anew" if request.small else ""
        notify(Event(stage="image", kind="start", message=f"Writing {output}{how}"))
        size_bytes = assemble(output, parts, scratch=scratch, replace=request.force)
    lock_file = keep_lock(prepared, notify)  # with its image: a build that fails changes neither
    keep_order(prepared, keeping, notify)
    elapsed_s = time.monotonic() - started_s
    notify(Event(stage="image", kind="end", message=f"Wrote {output}", elapsed_s=elapsed_s))
    return BuildReport(plan=plan, lock_file=lock_file, size_bytes=size_bytes, elapsed_s=elapsed_s)


def lock(request: BuildRequest, notify: Notify = ignore) -> LockReport:
    """Lock the recipe of a request, and write it beside the recipe or to `output`."""
    if request.freeze:
        return lock_image(request, notify)
    started_s = time.monotonic()
    if request.output:
        request = msgspec.structs.replace(request, lock=request.output)
    if not (request.recipes or request.lock):
        raise UsageError("There is no place for the lock.", now="Name one: -o pylock.toml.")
    with using_cache(request, notify):
        prepared = prepare(request, notify)
    assert prepared.lock_file is not None
    if not request.dry_run:
        write_lock(prepared.lock, prepared.lock_file)
    return LockReport(
        lock=prepared.lock,
        lock_file=None if request.dry_run else prepared.lock_file,
        elapsed_s=time.monotonic() - started_s,
    )


def check_output(output: Path, *, force: bool) -> None:
    """Refuse an output that cannot be written, before anything else is done."""
    if os.path.isdir(output):  # noqa: PTH112 - not Path's, which fails below a closed folder
        raise ExistsError(f"{output} is a folder.", now="Name a file: -o image.sif.")
    if not os.access(output.parent, os.F_OK):
        raise SpaceError(f"The folder {output.parent} does not exist.", now="Make it first.")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise SpaceError(f"The folder {output.parent} cannot be written.", now="Choose another.")
    if output.exists() and not force:
        raise ExistsError(f"{output} is there already.", now="Use --force to replace it.")


def find_staged(prepared: Prepared) -> tuple[Entry, ...]:
    """`[files]`: what is there on the host, each at its place in the image."""
    found = {}
    for source, place in plan_destinations(prepared.recipe.files).items():
        path = prepared.loaded.folder / Path(source).expanduser()
        if not path.exists():
            raise RecipeError(
                f"[files]: {source} does not exist.",
                why=f"Looked for {path}.",
                now="Paths start at the recipe's folder.",
            )
        found[path] = str(place)
    return tuple(staged_entries(found))


def keep_lock(prepared: Prepared, notify: Notify) -> Path | None:
    """Write the lock beside its recipe; where that cannot be, the image has it all the same."""
    if prepared.lock_file is None:
        return None
    try:
        files.sweep_partials(prepared.lock_file.parent)
        write_lock(prepared.lock, prepared.lock_file)
    except (SpaceError, ExistsError) as error:
        message = f"{error.what} The lock is in the image: limpet inspect --lock."
        notify(Event(stage="lock", kind="note", message=message))
        return None
    return prepared.lock_file


def shelf_of(prepared: Prepared, request: BuildRequest, conda: CondaShelf) -> Shelf:
    """The cache's pieces of wheels, as this build sees them."""
    if prepared.facts.libc is None:
        raise BaseError(
            f"The base {prepared.lock.base.reference} has no C library that limpet knows.",
            now="Take a base with glibc or musl.",
        )
    return open_shelf(
        prepared.lock,
        lock_folder=prepared.lock_folder,
        base_sif=prepared.sif,
        interpreter=conda.interpreter or prepared.interpreter,
        arch=prepared.facts.arch,
        libc=prepared.facts.libc,
        cache=prepared.cache,
        runtime=prepared.runtime,
        compressor=prepared.recipe.image.compression,
        offline=request.offline,
        jobs=request.jobs or None,
        credentials=partial(credentials_of, prepared.loaded),
        hash_directory=hash_tree,
        layout=conda.layout if conda.packages else None,
        binds=conda.binds,
    )


def make_all_pieces(
    prepared: Prepared, conda: CondaShelf, shelf: Shelf, notify: Notify
) -> tuple[Path, ...]:
    """conda's packages first, so that what pip brings wins, as in an environment on a disk."""
    if not conda.packages:

        def learn(made: Sequence[Piece], compiler: Compiler) -> None:
            learn_modules(shelf, made, compiler)
            keep_hook(shelf, compiler)
            base_code(shelf, notify, compiler)

        made = make_pieces(shelf, notify, learn)
        code = base_code(shelf, notify)
        return tuple(piece.path for piece in (*([code] if code else []), *made))
    lacking = len(shelf.found) < len(shelf.site.lock.packages)
    channels = find_channels(prepared.loaded, conda.packages)
    made = make_conda_pieces(conda, shelf.site, channels, notify, needs_python=lacking)
    return tuple(piece.path for piece in (*made, *make_pieces(shelf, notify)))


def settled(
    prepared: Prepared, parts: Parts, conda: CondaShelf, shelf: Shelf, notify: Notify
) -> Parts:
    """The parts with what several packages bring settled: each path and distribution once."""
    return settle_overlaps(
        parts,
        [conda.found[package.name] for package in conda.packages],
        [shelf.found[package.name] for package in prepared.lock.packages],
        compiled=conda.byte_code_keys,
        minor=prepared.interpreter.minor,
        cache=prepared.cache,
        notify=notify,
    )


def gather_parts(
    prepared: Prepared,
    plan: BuildPlan,
    request: BuildRequest,
    pieces: tuple[Path, ...],
    staged: tuple[Entry, ...],
) -> Parts:
    """All that the image is made of, with what limpet itself writes into it."""
    compression = prepared.recipe.image.compression
    told = dict(read_wheels(pieces))
    objects = describe(prepared, plan.layout, told, name=request.name or plan.output.stem)
    labels = make_labels(prepared)
    skeleton = plan_skeleton(
        prepared.interpreter,
        base_variables=prepared.facts.variables,
        env=prepared.recipe.env,
        labels=labels,
        on_top=not prepared.lock.isolated_from_base,
        conda=plan_conda_frame(prepared.lock),
    )
    hook = plan_host_hook(prepared.interpreter, prepared.facts.host)
    minor = prepared.interpreter.minor
    return Parts(
        base_sif=rewritten(prepared, compression) if plan.rewrites_base else prepared.sif,
        pieces=pieces,
        own=(*own_entries(skeleton), *own_entries(hook), *staged),
        where_missing=tuple(own_entries(WHERE_MISSING)),
        removed=(*stale_of((entry.path for entry in staged), minor), ARCHIVE, INDEX),
        objects=objects,
        layout=plan.layout,
        compression=compression,
        small=request.small,
        arch=architecture_of(prepared.facts.arch),
        ident=identify(objects),
    )


def identify(objects: Iterable[SifObject]) -> bytes:
    """The image's own number, by what its objects say."""
    digest = hashlib.sha256()
    for item in objects:
        digest.update(item.data)
    return digest.digest()[:16]


def stale_of(places: Iterable[str], minor: str) -> Iterable[str]:
    """Byte code that staged sources make stale, as paths relative to the image's root."""
    for place in places:
        if place.endswith(".py"):
            yield stale_byte_code(PurePosixPath(place), minor)


def rewritten(prepared: Prepared, compression: str) -> Path:
    """The base's SIF in the image's compression: itself, or a copy kept in the cache."""
    with prepared.sif.open("rb") as file:
        if open_root(file).compressor == compression:
            return prepared.sif
    # By its digest, for a local base may have any name.
    name = prepared.facts.digest.replace(":", "-")
    return recompressed(prepared.sif, prepared.cache, compression, name=name)


def make_labels(prepared: Prepared) -> dict[str, str]:
    """OCI's own names for what they name; the recipe's labels win."""
    own = {
        "org.opencontainers.image.base.name": prepared.lock.base.reference,
        "org.opencontainers.image.base.digest": prepared.lock.base.digest,
        "org.limpet.version": __version__,
        "org.limpet.python": prepared.lock.python,
    }
    return own | prepared.recipe.image.labels


def read_wheels(pieces: Iterable[Path]) -> Iterator[tuple[str, Metadata]]:
    """What each wheel's METADATA says: for the SBOM's licences and dependencies."""
    for path in pieces:
        with path.open("rb") as file:
            squashfs = Squashfs(file)
            for name, node in squashfs.walk():
                if name.endswith(".dist-info/METADATA") and node.is_file:
                    told = parse_metadata(squashfs.read(node, METADATA_BYTES))
                    if told:
                        yield told.name, told
                    break


def describe(
    prepared: Prepared,
    layout: Literal["merged", "layered"],
    told: Mapping[str, Metadata] = MappingProxyType({}),
    *,
    name: str,
    prefix: str = PREFIX,
    places: tuple[str, ...] = (),
) -> tuple[SifObject, ...]:
    """The objects that travel beside the partitions: facts, lock, bill of materials, recipe."""
    lock_text = render_lock(prepared.lock)
    lock = prepared.lock
    lock_sha256 = hashlib.sha256(lock_text.encode()).hexdigest()
    facts = ImageFacts(
        limpet=__version__,
        name=name,
        identity=identity_of(lock_sha256, lock.base, prefix, name),
        layout=layout,
        prefix=prefix,
        places=places,
        host=prepared.facts.host,
        arch=prepared.facts.arch,
        python=prepared.lock.python,
        base=prepared.lock.base,
        run=prepared.recipe.run,
        env=prepared.recipe.env,
        base_env={n: v for n, v in prepared.facts.variables.items() if n in SENT},
        libc=prepared.facts.libc,
        gpu=plan_needs(
            lock.provided
            | {p.name: p.version for p in lock.conda}
            | {p.name: p.version for p in lock.packages}
            | {p.name: p.version for p in lock.found},
            prepared.facts.variables,
        ),
        lock_sha256=lock_sha256,
        labels=make_labels(prepared),
    )
    sbom = render_sbom(
        prepared.lock,
        name=name,
        limpet_version=__version__,
        metadata=told,
        requested=prepared.loaded.requested,
    )
    recipe = render_recipe(close_recipe(prepared.loaded))
    return (
        SifObject(
            name=image_core.FACTS_OBJECT,
            data=msgspec.json.encode(facts),
            kind="json",
            complete=add_seen,
        ),
        SifObject(name=image_core.LOCK_OBJECT, data=lock_text.encode()),
        SifObject(name=image_core.SBOM_OBJECT, data=sbom.encode(), kind="sbom"),
        SifObject(name=image_core.RECIPE_OBJECT, data=recipe.encode()),
    )


def add_seen(data: bytes, trees: Sequence[Squashfs]) -> bytes:
    """The facts with what is in the finished image: a libcuda for older drivers, MPI, modules.

    Its symbols' names are left to those who ask for them.
    """
    found = image_mpi.read_mpi(merged_tree(trees)) if image_mpi.may_have_mpi(trees) else ImageMpi()
    facts = msgspec.json.decode(data, type=ImageFacts)
    compat, at = find_compat(partial(list_names, trees), facts.prefix)
    facts = msgspec.structs.replace(
        facts,
        mpi=without_symbols(found),
        modules=read_modules_of(trees[-1]),
        gpu=msgspec.structs.replace(facts.gpu, compat=compat, compat_at=at),
    )
    return msgspec.json.encode(facts)


def warmed(prepared: Prepared, parts: Parts, scratch: Path, notify: Notify) -> Parts:
    """The parts with what the recipe's `[warm]` wrote in an image made of them."""
    notify(Event(stage="warm", kind="start", message="Warming up"))
    trial = scratch / "trial.sif"
    assemble(trial, msgspec.structs.replace(parts, small=False), scratch=scratch, replace=True)
    written = warm_image(trial, prepared.recipe.warm, runtime=prepared.runtime, scratch=scratch)
    trial.unlink()
    notify(Event(stage="warm", kind="end", done=len(written.entries), unit="files"))
    return with_written(parts, written, prepared.interpreter.minor)
