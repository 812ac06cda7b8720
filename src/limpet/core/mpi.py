"""MPI: what an image has, what a host has, and which of the two go together.

MPI libraries are exchangeable within a family, which their soname names: MPICH, Intel MPI, Cray
MPICH and MVAPICH have agreed on `libmpi.so.12` (https://www.mpich.org/abi/), Open MPI 4 and 5 on
`libmpi.so.40`, and MPI 5 brought `libmpi_abi.so.1` for all. Processes of one job find each other
through PMI: MPICH speaks the PMI-1 and PMI-2 protocols itself, Open MPI needs PMIx.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from limpet.core.facts import Libc
from limpet.core.numbers import is_newer, numbers

Family = Literal["mpich", "openmpi", "abi"]
# `libpmi`: whatever the host's own libpmi or libpmi2, which the library is linked to, speaks.
Pmi = Literal["pmi1", "pmi2", "pmix", "libpmi"]

FOLDER = "/.limpet/mpi"
LIBRARIES = f"{FOLDER}/lib"
NAMES = re.compile(r"libmpi(ch|_abi|_cray|_gnu_\d+|_intel)?\.so[\d.]*")
FAMILY_NAMES: dict[Family, str] = {
    "mpich": "libmpi.so.12",
    "openmpi": "libmpi.so.40",
    "abi": "libmpi_abi.so.1",
}
_SHOWN_SYMBOLS = 3


def family_of(soname: str) -> Family | None:
    """The family of a soname; None for other libraries and for versions nobody uses any more."""
    # Debian's MPICH calls itself libmpich.so.12, Cray's libmpi_gnu_123.so.12, with the same ABI.
    if re.fullmatch(r"libmpi(ch|_cray|_gnu_\d+|_intel)?\.so\.12", soname):
        return "mpich"
    known: dict[str, Family] = {name: family for family, name in FAMILY_NAMES.items()}
    return known.get(soname)


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """An MPI library in an image or on a host."""

    path: str
    soname: str
    family: Family
    product: str
    version: str = ""
    pmi: tuple[Pmi, ...] = ()

    @property
    def title(self) -> str:
        """`MPICH 4.3.2`."""
        return f"{self.product} {self.version}".strip()


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is linked to MPI: the symbols that it needs, by the soname that it can use.

    mpi4py's wheels come with one module for each family; others have one entry.
    """

    name: str
    needs: dict[str, tuple[str, ...]]

    @property
    def families(self) -> tuple[Family, ...]:
        """Those it can use."""
        return tuple(filter(None, map(family_of, self.needs)))


class ImageMpi(msgspec.Struct, frozen=True, kw_only=True):
    """The MPI of an image; `compiler` is what its libstdc++ and libgcc_s have: GLIBCXX 3.4.33.

    `libraries` stand in the order in which mpi4py looks for them. `general` are the libraries that
    it has itself and that a host's MPI uses, too: zlib and its like. `troubles` are what its
    programs need and its own library lacks.
    """

    libraries: tuple[Library, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    compiler: dict[str, str] = msgspec.field(default_factory=dict)
    general: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()

    @property
    def library(self) -> Library | None:
        """The one that its consumers load, as far as the file system tells."""
        for library in self.libraries:
            if all(library.family in consumer.families for consumer in self.consumers):
                return library
        return self.libraries[0] if self.libraries else None


def without_symbols(mpi: ImageMpi) -> ImageMpi:
    """The same, as small as a file that is read at every start should be."""
    bare = (msgspec.structs.replace(c, needs=dict.fromkeys(c.needs, ())) for c in mpi.consumers)
    return msgspec.structs.replace(mpi, consumers=tuple(bare))


class HostSet(msgspec.Struct, frozen=True, kw_only=True):
    """A host's MPI with all that it takes along into an image.

    `files` are host paths by the name that they get in `LIBRARIES`, `folders` the same for folders
    of plug-ins; `binds` (SRC[:DST[:ro]]) are seen at their own place. `missing` are needed
    libraries that were not found. `asked` is the newest version of each set of symbols that
    the host's C library and compiler must have, and `asked_by` the files that say so.
    """

    name: str
    library: Library
    origin: str = ""
    exports: tuple[str, ...] = ()
    files: dict[str, str] = msgspec.field(default_factory=dict)
    folders: dict[str, str] = msgspec.field(default_factory=dict)
    compiler: dict[str, str] = msgspec.field(default_factory=dict)
    binds: tuple[str, ...] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    conflicts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    asked: dict[str, str] = msgspec.field(default_factory=dict)
    asked_by: dict[str, str] = msgspec.field(default_factory=dict)


class SiteSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[mpi.NAME]` of the configuration: a host set as data.

    `library` is the host's libmpi; what it needs is found. `copies` are further libraries (patterns
    allowed) that go into the same folder, `binds` what is seen at its own place, `variables` what
    is set and `conflicts` the variables that must not be set inside.
    """

    library: str
    copies: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    conflicts: tuple[str, ...] = ()


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an image works with a host set: and the reasons against it."""

    name: str
    works: bool
    against: tuple[str, ...] = ()
    brings_compiler: bool = False


# ---- what a library says of itself ---------------------------------------------------------------

_VERSION = re.compile(rb"\0v?(\d+\.\d+(?:\.\d+)*(?:(?:rc|a|b|p)\d+)?)(?=\0)")


def identify(path: str, soname: str, needed: Sequence[str], data: bytes) -> Library | None:
    """The library with this content; None where its soname is no MPI's."""
    family = family_of(soname)
    if family is None:
        return None
    versions = [found.decode() for found in _VERSION.findall(data)]
    product, pattern = next(
        ((product, pattern) for mark, product, pattern in _PRODUCTS if mark in data),
        ("Open MPI" if family == "openmpi" else "MPI", r"[345]\." if family == "openmpi" else "$"),
    )
    fitting = [version for version in versions if re.match(pattern, version)]
    version = min(fitting, key=lambda v: ("rc" in v, -len(numbers(v)), v), default="")
    return Library(
        path=path,
        soname=soname,
        family=family,
        product=product,
        version=version,
        pmi=find_pmi(family, needed, data),
    )


_PRODUCTS = (
    (b"CRAY MPICH version", "Cray MPICH", r"[789]\."),
    (b"Intel(R) MPI Library", "Intel MPI", r"20\d\d\."),
    (b"MVAPICH2 Version", "MVAPICH2", r"2\."),
    (b"MVAPICH Version", "MVAPICH", r"[34]\."),
    (b"MPICH Version", "MPICH", r"[345]\."),
    (b"Open MPI v", "Open MPI", r"[345]\."),
)


def find_pmi(family: Family, needed: Sequence[str], data: bytes) -> tuple[Pmi, ...]:
    """The ways in which a library can meet its launcher."""
    kinds: list[Pmi] = []
    is_open = family == "openmpi" or b"Open MPI v" in data
    if any(re.match(r"libpmi2?\.so", name) for name in needed):
        kinds.append("libpmi")
    elif not is_open and b"PMI_FD\0" in data:
        kinds += ["pmi1", "pmi2"]
    if is_open or any(name.startswith("libpmix.so") for name in needed):
        kinds.append("pmix")
    return tuple(kinds)


# ---- pairing -------------------------------------------------------------------------------------


def pair(image: ImageMpi, libc: Libc | None, host: HostSet) -> Pairing:
    """Whether the image's programs can use the host's library, and why not."""
    against = [*_family_troubles(image, host), *_symbol_troubles(image, host)]
    against += [f"It needs {name}, which was not found on this machine." for name in host.missing]
    against += _libc_troubles(libc, host)
    brings = [
        kind
        for kind in ("GLIBCXX", "CXXABI", "GCC")
        if is_newer(host.asked.get(kind, ""), image.compiler.get(kind, ""))
    ]
    if brings and not host.compiler:
        kind = brings[0]
        against.append(
            f"{host.asked_by.get(kind, host.library.path)} needs {kind}_{host.asked[kind]}, which "
            "neither the image nor this machine has."
        )
    return Pairing(
        name=host.name,
        works=not against,
        against=tuple(against),
        brings_compiler=bool(brings),
    )


def _family_troubles(image: ImageMpi, host: HostSet) -> Iterator[str]:
    family = host.library.family
    for consumer in image.consumers:
        if family not in consumer.families:
            wanted = " or ".join(consumer.needs)
            yield f"{consumer.name} needs {wanted}; {host.library.title} is {host.library.soname}."
    if not image.consumers:
        yield "Nothing in the image is linked to MPI."


def _symbol_troubles(image: ImageMpi, host: HostSet) -> Iterator[str]:
    return find_lacking(image.consumers, host.library, host.exports)


def find_lacking(
    consumers: Sequence[Consumer], library: Library, exports: Sequence[str]
) -> Iterator[str]:
    """What programs need and a library with these exports does not have."""
    there = set(exports)
    for consumer in consumers:
        for soname, symbols in consumer.needs.items():
            lacking = [s for s in symbols if s not in there]
            if family_of(soname) == library.family and lacking and there:
                more = f" and {len(lacking) - _SHOWN_SYMBOLS} more"
                yield (
                    f"{consumer.name} needs {', '.join(lacking[:_SHOWN_SYMBOLS])}"
                    f"{more if len(lacking) > _SHOWN_SYMBOLS else ''}, which "
                    f"{library.title} does not have: it is too old for it, or was built without."
                )


def _libc_troubles(libc: Libc | None, host: HostSet) -> Iterator[str]:
    asked = host.asked.get("GLIBC", "")
    if libc and libc.family == "musl":
        yield "The image's C library is musl: a library of the host cannot be loaded into it."
    elif libc and is_newer(asked, libc.version):
        yield (
            f"{host.asked_by.get('GLIBC', host.library.path)} needs glibc {asked}; the image has "
            f"{libc.version}. Build on a newer base."
        )


def find_pairings(
    image: ImageMpi, libc: Libc | None, sets: Sequence[HostSet]
) -> tuple[Pairing, ...]:
    """One for each set of the host."""
    return tuple(pair(image, libc, host) for host in sets)


# ---- what a launcher offers ----------------------------------------------------------------------


class Tasks(msgspec.Struct, frozen=True, kw_only=True):
    """The parallel start that this process is one of: how many (0: unknown), which, by what.

    `offers` are the ways in which a program can ask its launcher for the other processes.
    """

    count: int
    rank: int
    launcher: str
    offers: tuple[Pmi, ...] = ()


def parse_tasks(
    environment: Mapping[str, str], *, in_step: bool, open_files: bool = True
) -> Tasks | None:
    """What the variables say; None for a start that is no part of a parallel one.

    `in_step`: whether this process descends from the task that SLURM_TASK_PID names; `open_files`:
    whether PMI_FD is open. Variables that are left over from another job are not believed.
    """
    offers: list[Pmi] = []
    if "PMI_PORT" in environment or ("PMI_FD" in environment and open_files):
        offers += ["pmi1", "pmi2"]
    if "PMIX_NAMESPACE" in environment and any(n.startswith("PMIX_SERVER") for n in environment):
        offers.append("pmix")
    step = in_step and _number(environment, "SLURM_STEP_NUM_TASKS") is not None
    pals = "PALS_RANKID" in environment
    if offers or pals or step:
        offers.append("libpmi")
    else:
        return None
    counts: tuple[str, ...] = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PALS_SIZE")
    ranks: tuple[str, ...] = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "PALS_RANKID")
    if step:
        counts, ranks = (*counts, "SLURM_STEP_NUM_TASKS"), (*ranks, "SLURM_PROCID")
    named = {"OMPI_COMM_WORLD_SIZE": "mpirun", "PALS_RANKID": "PALS"}
    launcher = next((word for name, word in named.items() if name in environment), "mpiexec")
    # Slurm's own PMI-2 names the job; mpiexec's within a step does not.
    if step and launcher == "mpiexec" and ("pmi1" not in offers or "PMI_JOBID" in environment):
        launcher = "srun"
    return Tasks(
        count=next((n for name in counts if (n := _number(environment, name)) is not None), 0),
        rank=next((n for name in ranks if (n := _number(environment, name)) is not None), 0),
        launcher=launcher,
        offers=tuple(offers),
    )


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
