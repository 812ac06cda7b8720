"""What `pack` is going to do: which folders, on which base, and what is known of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from limpet.actions.assemble import open_root
from limpet.actions.conda_freeze import placed
from limpet.actions.prepare import (
    Prepared,
    Standing,
    Workplace,
    open_workplace,
    read_flags,
    scratch_folder,
    settle_base,
    stand_base,
)
from limpet.core.conda import CondaPackage
from limpet.core.errors import LimpetError, UsageError
from limpet.core.events import Event, Notify
from limpet.core.facts import Interpreter
from limpet.core.findings import Finding
from limpet.core.lock import FoundPackage, Lock, LockedBase
from limpet.core.mounts import is_below
from limpet.core.pack import (
    Metadata,
    Needs,
    PackPlan,
    PackRequest,
    Prefix,
    Tree,
    TreePlan,
    check_needs,
    check_place,
    find_in_trees,
    find_links,
    find_outside,
    find_package_caches,
    find_unlocked,
    is_covered,
)
from limpet.core.plan import choose_layout
from limpet.core.recipe import Layout
from limpet.core.request import BuildRequest
from limpet.core.seeing import OWN_TREES
from limpet.tools import prefix_meta, prefix_needs
from limpet.tools.conda_files import read_prefix
from limpet.tools.condarc import read_condarc
from limpet.tools.config import read_config
from limpet.tools.prefix_scan import scan_tree
from limpet.tools.recipes import LoadedRecipe, read_recipe

HasPath = prefix_needs.HasPath


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known before anything is written. The first tree is the prefix itself."""

    request: PackRequest
    prefix: Prefix
    trees: tuple[Tree, ...]
    links: dict[str, str]
    metadata: tuple[Metadata, ...]
    prepared: Prepared
    plan: PackPlan

    @property
    def place(self) -> str:
        return self.trees[0].place


def gather(request: PackRequest, notify: Notify) -> Gathered:
    """Look at the folders and settle the base; every reason why it cannot work is an error here."""
    folder = _settle_folder(request.prefix)
    output = Path(request.output).absolute()
    prefix = prefix_meta.probe_prefix(folder)
    if request.wrap and not prefix.has_programs:
        raise UsageError(f"{folder} has no bin, so there is nothing for --wrap to make.")
    notify(Event(stage="scan", kind="start", message=f"Looking at {folder}"))
    trees, links = _find_trees(folder, prefix, [_settle_folder(word) for word in request.also])
    for tree in trees:
        if is_below(os.path.realpath(output), os.path.realpath(tree.folder)):
            raise UsageError(f"{output} lies in {tree.folder}, which is to be packed into it.")
    files = sum(tree.files for tree in trees)
    notify(Event(stage="scan", kind="end", done=files, unit="files"))
    work, loaded, base, standing = _stand(request, notify)
    for tree in trees:
        if is_below(os.path.realpath(work.cache), os.path.realpath(tree.folder)):
            raise UsageError(
                f"limpet's cache {work.cache} lies in {tree.folder}, which is to be packed.",
                now="Name another place for it: --cache-dir DIR.",
            )
    with base_paths(standing) as in_base:
        links = {place: target for place, target in links.items() if not in_base(place)}
        needs = prefix_needs.read_needs(trees, in_base)
        check_needs(needs, standing.facts, base.reference)
        wrong = prefix_needs.read_links(trees, in_base)
    metadata = tuple(prefix_meta.read_metadata(trees, links))
    lock = _make_lock(folder, prefix, metadata, base)
    findings = _find(trees, metadata, needs, wrong, lock)
    prepared = Prepared(
        loaded=loaded,
        lock=lock,
        lock_file=None,
        sif=standing.sif,
        facts=standing.facts,
        interpreter=Interpreter(
            path=lock.interpreter, version=lock.python, prefix=str(folder), magic=""
        ),
        runtime=work.runtime,
        cache=work.cache,
        scratch=scratch_folder(work),
    )
    return Gathered(
        request=request,
        prefix=prefix,
        trees=trees,
        links=links,
        metadata=metadata,
        prepared=prepared,
        plan=_plan(request, prepared, prefix, trees, links, needs, findings),
    )


def _settle_folder(word: str) -> Path:
    folder = Path(os.path.abspath(Path(word).expanduser()))  # noqa: PTH100 - links stay
    if not folder.is_dir():
        there = "is no folder" if os.path.lexists(folder) else "does not exist"
        raise UsageError(f"{folder} {there}.", now="Name the folder that is to be packed.")
    check_place(str(folder))
    check_place(os.path.realpath(folder), what=str(folder))
    return folder


def _find_trees(
    folder: Path, prefix: Prefix, also: Sequence[Path]
) -> tuple[tuple[Tree, ...], dict[str, str]]:
    """The folders to pack, and links outside of them that lead from one to the other."""
    links: dict[str, str] = {}
    wanted = [folder, *also]
    if prefix.python:
        wanted += _find_python(folder, prefix, wanted, links)
    for one in wanted:
        if (real := os.path.realpath(one)) != str(one):
            links[real] = str(one)
    chosen: list[Path] = []
    for one in wanted:
        if not any(is_below(str(one), str(other)) for other in chosen):
            chosen = [*(c for c in chosen if c == folder or not is_below(str(c), str(one))), one]
    trees = tuple(Tree(folder=one, place=str(one), seen=scan_tree(one)) for one in chosen)
    if len(trees[0].seen) == 1:
        raise UsageError(f"{folder} is empty.")
    outside = {
        place: target
        for place, target in links.items()
        if not any(is_below(place, tree.place) for tree in trees)
        and not any(is_below(tree.place, place) for tree in trees)
    }
    return trees, outside


def _find_python(
    folder: Path, prefix: Prefix, wanted: Sequence[Path], links: dict[str, str]
) -> Iterator[Path]:
    """The installation that the folder's Python is a link to, where that is not the system's."""
    name = "python" if os.path.lexists(folder / "bin/python") else "python3"
    found, program = prefix_meta.follow_links(f"{folder}/bin/{name}")
    links |= found
    if not Path(program).is_file():
        raise UsageError(
            f"The Python of {folder} is not there.",
            why=f"{folder}/bin/{name} leads to {program}, which does not exist.",
            now="Make the environment again, or bring its Python back.",
        )
    if any(is_below(program, tree) for tree in OWN_TREES):
        return  # the base's; whether it is the same one is asked when it is there
    real = [os.path.realpath(one) for one in wanted]
    if any(is_below(program, one) for one in real):
        return
    root = prefix_meta.find_python_root(program)
    if not root:
        raise UsageError(
            f"The Python of {folder} belongs to no installation that limpet sees.",
            why=f"It is {program}, and there is no lib/python3.*/os.py beside it.",
        )
    links |= prefix_meta.follow_links(prefix.home)[0] if prefix.home else {}
    check_place(root)
    yield Path(root)


def _stand(
    request: PackRequest, notify: Notify
) -> tuple[Workplace, LoadedRecipe, LockedBase, Standing]:
    config = read_config(request.config_file)
    asked = BuildRequest(
        base=request.base,
        layout=request.layout,
        system=request.system,
        offline=request.offline,
        cache_dir=request.cache_dir,
        build_dir=request.build_dir,
        config_file=request.config_file,
    )
    loaded = read_recipe([], flags=read_flags(asked, config, []))
    recipe = msgspec.structs.replace(loaded.recipe, env=request.env)
    loaded = dataclasses.replace(loaded, recipe=recipe)
    work = open_workplace(asked, config, notify)
    base = settle_base(work, loaded, None)
    return work, loaded, base, stand_base(work, base, loaded, None)


@contextmanager
def base_paths(standing: Standing) -> Iterator[HasPath]:
    """Whether the base has something at a path."""
    with standing.sif.open("rb") as file:
        root = open_root(file)
        yield lambda path: root.find(path, follow=True) is not None


def _make_lock(
    folder: Path, prefix: Prefix, metadata: Sequence[Metadata], base: LockedBase
) -> Lock:
    """As much of a lock as the folder knows: of what pip brought, names and versions."""
    conda: tuple[CondaPackage, ...] = ()
    if prefix.kind == "conda":
        condarc = read_condarc()
        conda = tuple(placed(one, condarc) for one in read_prefix(folder))
    found = [one for told in metadata for one in told.found]
    found += [
        FoundPackage(name=one.name, version=one.version, kind="conda")
        for one in conda
        if not one.sha256
    ]
    return Lock(
        base=base,
        python=prefix.python,
        interpreter=f"{folder}/bin/python" if prefix.python else "",
        conda=tuple(one for one in conda if one.sha256),
        found=tuple(dict.fromkeys(found)),
    )


def _find(
    trees: Sequence[Tree],
    metadata: Sequence[Metadata],
    needs: Needs,
    wrong: tuple[Mapping[str, str], Mapping[str, str]],
    lock: Lock,
) -> tuple[Finding, ...]:
    editable = {k: v for told in metadata for k, v in told.editable.items()}
    return (
        *find_outside(Metadata(editable=editable), needs),
        *find_links(*wrong),
        *find_in_trees(trees),
        *find_package_caches(trees),
        *find_unlocked(lock.found),
    )


def _plan(
    request: PackRequest,
    prepared: Prepared,
    prefix: Prefix,
    trees: Sequence[Tree],
    links: dict[str, str],
    needs: Needs,
    findings: tuple[Finding, ...],
) -> PackPlan:
    layout: Layout = request.layout
    return PackPlan(
        output=Path(request.output).absolute(),
        prefix=trees[0].place,
        kind=prefix.kind,
        python=prefix.python,
        base=prepared.lock.base.reference,
        digest=prepared.lock.base.digest,
        layout=choose_layout(layout, prepared.facts, prepared.recipe.image.compression),
        trees=tuple(
            TreePlan(
                folder=str(tree.folder),
                place=tree.place,
                files=tree.files,
                size_bytes=tree.size_bytes,
            )
            for tree in trees
        ),
        links=links,
        served=tuple(tree.place for tree in trees if is_covered(tree.place)),
        conda=len(prepared.lock.conda),
        packages=len(prepared.lock.found),
        glibc=needs.glibc,
        findings=findings,
    )


__all__ = ["Gathered", "LimpetError", "base_paths", "gather"]
