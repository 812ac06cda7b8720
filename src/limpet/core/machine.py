"""A machine and an account as `limpet doctor` saw them, and how two of them differ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from limpet.core.file_systems import is_shared
from limpet.core.gpu import Driver, Gpu

Fuse = Literal["usable", "refused", "missing"]


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A program that is here, and the number that its version text begins with."""

    name: str
    path: str
    version: str = ""


class ContainerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What starts containers. `trouble` says why the runtime cannot be used.

    `setuid` is None where it is not known. `ids` are how many user and group ids this user was
    given, `newuidmap` whether they can be used.
    """

    runtime: str = ""
    kind: str = ""
    version: str = ""
    setuid: bool | None = None
    trouble: str = ""
    namespaces: bool = True
    fuse: Fuse = "usable"
    programs: tuple[Program, ...] = ()
    compressors: tuple[str, ...] = ()
    ids: tuple[int, int] = (0, 0)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that limpet or its user depends on; `path` may not be there yet.

    `kind` is the file system's, as the kernel calls it. Inode counts are 0 where the file system
    counts none.
    """

    role: str
    path: str
    exists: bool = True
    kind: str = ""
    free_bytes: int = 0
    size_bytes: int = 0
    free_inodes: int = 0
    inodes: int = 0
    writable: bool = True
    others_write: bool = False
    no_exec: bool = False
    partials: tuple[str, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether it lies on a network file system."""
        return is_shared(self.kind)


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may store in a file system; a limit of 0 is none."""

    place: str
    used_bytes: int
    limit_bytes: int
    used_files: int
    limit_files: int


class UserSite(msgspec.Struct, frozen=True, kw_only=True):
    """A site-packages folder in `~/.local`, and the images that would take packages from it."""

    path: str
    python: str
    packages: int
    images: tuple[str, ...] = ()


class AccountSeen(msgspec.Struct, frozen=True, kw_only=True):
    """This user's set-up. `hooks` are `file:line` in start-up files, `leaking` names of variables.

    `proxies` are variables with their values, passwords left out; `bundles` are variables that
    name certificates, and whether that file can be read.
    """

    hooks: tuple[str, ...] = ()
    sites: tuple[UserSite, ...] = ()
    leaking: tuple[str, ...] = ()
    proxies: dict[str, str] = msgspec.field(default_factory=dict)
    bundles: tuple[tuple[str, str, bool], ...] = ()
    tmpdir: str = ""
    tmpdir_there: bool = True


class ClusterSeen(msgspec.Struct, frozen=True, kw_only=True):
    """MPI and Slurm as far as their programs say. `pmi` is what `srun --mpi=list` names."""

    mpi: tuple[Program, ...] = ()
    slurm: str = ""
    pmi: tuple[str, ...] = ()
    job: str = ""


class GpuSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs by their makers, and their driver."""

    makers: tuple[Gpu, ...] = ()
    driver: Driver = Driver()


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """A look that came to nothing. `hung`: it did not end within the limit."""

    subject: str
    why: str
    hung: bool = False


class MachineSeen(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. What could not be seen is in `troubles`, and its place here is empty."""

    host: str
    user: str
    system: str
    arch: str
    cpus: int
    container: ContainerSeen = ContainerSeen()
    places: tuple[Place, ...] = ()
    quotas: tuple[Quota, ...] = ()
    account: AccountSeen = AccountSeen()
    cluster: ClusterSeen = ClusterSeen()
    gpu: GpuSeen = GpuSeen()
    troubles: tuple[Trouble, ...] = ()


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a machine that is another on the node."""

    what: str
    here: str
    there: str


def list_facts(seen: MachineSeen) -> Iterator[tuple[str, str]]:
    """A machine line by line; what changes from minute to minute is left out."""
    box = seen.container
    yield "system", seen.system
    yield "processor", f"{seen.arch}, {seen.cpus} CPUs"
    rights = {True: "setuid", False: "no setuid", None: "setuid unknown"}[box.setuid]
    runtime = f"{box.kind} {box.version} ({box.runtime}; {rights})"
    yield "runtime", runtime if box.version else box.trouble or "none"
    yield "user namespaces", "allowed" if box.namespaces else "not allowed"
    yield "/dev/fuse", box.fuse
    for program in box.programs:
        yield program.name, f"{program.version or 'there'} ({program.path})"
    if box.compressors:
        yield "mksquashfs compressors", " ".join(box.compressors)
    yield "subordinate ids", f"{box.ids[0]} users, {box.ids[1]} groups"
    for place in seen.places:
        yield place.role, f"{place.path} ({describe_place(place)})"
    yield from _list_account(seen.account)
    yield "GPUs", _describe_gpu(seen.gpu)
    yield "MPI", ", ".join(f"{p.name} {p.version}".strip() for p in seen.cluster.mpi) or "none"
    pmi = f"; PMI: {' '.join(seen.cluster.pmi)}" if seen.cluster.pmi else ""
    yield "Slurm", f"{seen.cluster.slurm}{pmi}" if seen.cluster.slurm else "none"


def _list_account(account: AccountSeen) -> Iterator[tuple[str, str]]:
    if account.sites:
        sites = (f"{site.packages} for Python {site.python}" for site in account.sites)
        yield "packages in ~/.local", ", ".join(sites)
    for name, value in sorted(account.proxies.items()):
        yield name, value
    for name, path, there in account.bundles:
        yield name, path if there else f"{path} (not there)"


def describe_place(place: Place) -> str:
    """`lustre, shared, read-only`: what stays the same about a folder."""
    words = [place.kind or "unknown kind"]
    words += ["shared"] if place.shared else []
    words += [] if place.writable else ["cannot be written"]
    words += [] if place.exists else ["not there yet"]
    return ", ".join(words)


def _describe_gpu(gpu: GpuSeen) -> str:
    if not gpu.makers:
        return "none"
    driver = gpu.driver
    versions = [f"driver {driver.version}"] if driver.version else []
    versions += [f"CUDA up to {driver.cuda}"] if driver.cuda else []
    versions += [f"ROCm {driver.rocm}"] if driver.rocm else []
    return ", ".join((*gpu.makers, *versions))


def find_differences(here: MachineSeen, there: MachineSeen) -> tuple[Difference, ...]:
    """What is not the same on the two machines, in the order of the report."""
    ours, theirs = dict(list_facts(here)), dict(list_facts(there))
    return tuple(
        Difference(what=what, here=ours.get(what, "none"), there=theirs.get(what, "none"))
        for what in dict.fromkeys((*ours, *theirs))
        if ours.get(what) != theirs.get(what)
    )


# ---- what programs say ---------------------------------------------------------------------------


def parse_version(text: str) -> str:
    """The first number with a dot in it."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found[0] if found else ""


def parse_compressors(text: str) -> tuple[str, ...]:
    """What `mksquashfs -help` (from 4.7 on `-help-all`) lists, each on a line of its own."""
    found = re.findall(r"(?m)^\t+(gzip|lzo|lz4|xz|zstd|lzma)(?: \(default\))?$", text)
    return tuple(sorted(set(found)))


def parse_pmi(text: str) -> tuple[str, ...]:
    """The types of `srun --mpi=list`, whose form has changed between versions of Slurm."""
    words: list[str] = []
    for line in text.splitlines():
        word = line.removeprefix("srun:").strip()
        if re.fullmatch(r"[a-z][a-z0-9_]*", word):
            words.append(word)
        elif named := re.match(r"specific pmix plugin versions available: (.*)", word):
            words += named[1].split(",")
    return tuple(words)


def parse_quota(text: str) -> tuple[Quota, ...]:
    """The lines of `quota -wp`: blocks of 1024 bytes, then files, each with two limits.

    The hard limit counts, or the soft one where there is no other (quota(1)).
    """
    found = []
    for line in text.splitlines():
        words = line.replace("*", " ").split()
        if len(words) >= 9 and all(re.fullmatch(r"\d+", word) for word in words[-8:]):
            numbers = [int(word) for word in words[-8:]]
            found.append(_quota(" ".join(words[:-8]), numbers))
    return tuple(found)


def parse_lfs_quota(place: str, text: str) -> tuple[Quota, ...]:
    """The answer of `lfs quota -q`, in the same order with grace times between (lfs-quota(1))."""
    words = text.replace("*", " ").replace("[", " ").replace("]", " ").split()
    if len(words) < 9:
        return ()
    numbers = [int(word) if word.isdigit() else 0 for word in words[-8:]]
    return (_quota(place, numbers),)


def _quota(place: str, numbers: list[int]) -> Quota:
    blocks, soft, hard, _, files, soft_files, hard_files, _ = numbers
    return Quota(
        place=place,
        used_bytes=blocks * 1024,
        limit_bytes=(hard or soft) * 1024,
        used_files=files,
        limit_files=hard_files or soft_files,
    )
