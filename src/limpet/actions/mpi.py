"""What MPI a start has to do with, and `limpet mpi`: which libraries go together here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from limpet.core.config import Config
from limpet.core.errors import HostError, ImageError
from limpet.core.facts import Libc
from limpet.core.mounts import is_below
from limpet.core.mpi import HostSet, ImageMpi, Library, Pairing, Tasks, find_pairings
from limpet.core.mpi_plan import MpiSeen, choose_for_srun, choose_kind, is_parallel, needs_host
from limpet.core.seen import ImageSeen, Request


class MpiReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet mpi` found: the image's MPI, the host's sets, which pairs work, what is chosen.

    `slurm` is what `srun --mpi=list` says; `chosen` is `image`, a set's name, or empty.
    """

    image: str
    mpi: ImageMpi
    libc: Libc | None
    sets: tuple[HostSet, ...]
    pairings: tuple[Pairing, ...]
    slurm: tuple[str, ...]
    tasks: Tasks | None
    chosen: str = ""
    flag: str = ""


def look_for_mpi(image: ImageSeen, request: Request, config: Config, cache: Path) -> MpiSeen | None:
    """As much as this start needs; usually nothing but a few variables."""
    policy = request.mpi or (image.facts.run.mpi if image.facts else "auto")
    if policy == "none":
        return None
    if policy == "auto" and image.facts and image.facts.mpi and not image.facts.mpi.consumers:
        return None
    if policy == "auto" and not may_be_parallel() and not _lacks_library(image):
        return None
    try:
        return _look(image, policy, config, cache)
    except (OSError, ImageError):
        # An image whose files cannot all be read may be started all the same.
        if policy == "auto":
            return None
        raise


def _look(image: ImageSeen, policy: str, config: Config, cache: Path) -> MpiSeen | None:
    # Brings readers of ELF and squashfs, which few starts need.
    from limpet.tools import host_mpi, image_mpi

    tasks = host_mpi.probe_tasks()
    found = image.facts.mpi if image.facts else None
    libc = image.libc
    if policy == "auto" and found is None and not is_parallel(tasks):
        return None
    if found is None or needs_host(policy, found, tasks):
        kept = image_mpi.with_mpi(image, cache)
        found, libc = kept.mpi, kept.libc
    sets: tuple[HostSet, ...] = ()
    if needs_host(policy, found, tasks):
        sets = tuple(find_sets(config, cache))
    return MpiSeen(tasks=tasks, image=found, libc=libc, sets=sets)


_MARKS = ("PMI_FD", "PMI_PORT", "PMIX_NAMESPACE", "PALS_RANKID", "SLURM_STEP_NUM_TASKS")


def may_be_parallel() -> bool:
    """Whether a variable hints at several tasks."""
    return any(name in os.environ for name in _MARKS)


def _lacks_library(image: ImageSeen) -> bool:
    found = image.facts.mpi if image.facts else None
    return bool(found and found.consumers and not found.libraries)


def find_sets(config: Config, cache: Path | None) -> Iterator[HostSet]:
    """The site's, then what the session's modules and the system bring."""
    from limpet.tools import host_mpi

    taken = set()
    for name, site in config.mpi.items():
        found = host_mpi.read_set(name, site.library, "the configuration", site=site, cache=cache)
        if found:
            taken.add(os.path.realpath(site.library))
            yield found
    names: set[str] = set(config.mpi)
    for path, origin in host_mpi.find_libraries().items():
        found = host_mpi.read_set("", path, origin, cache=cache)
        if found and os.path.realpath(path) not in taken:
            name = _name_of(found.library, names)
            names.add(name)
            yield msgspec.structs.replace(found, name=name)


def _name_of(library: Library, taken: set[str]) -> str:
    """`mpich-4.3.2`, and `mpich-4.3.2-2` for another one of this name."""
    word = library.title.lower().replace(" ", "-") if library.title else library.family
    word = word.replace("open-mpi", "openmpi") + ("-abi" if library.family == "abi" else "")
    number = 1
    while (name := word if number == 1 else f"{word}-{number}") in taken:
        number += 1
    return name


def examine(image: str, *, config_file: str = "", cache_dir: str = "") -> MpiReport:
    """The image's MPI and the host's, and which of them go together; nothing is started in it."""
    from limpet.tools import files, host_mpi, image_mpi, images
    from limpet.tools.config import read_config

    config = read_config(config_file)
    cache = files.cache_folder(cache_dir or config.cache_dir)
    seen = images.read_image(image)
    kept = image_mpi.with_mpi(seen, cache)
    sets = tuple(find_sets(config, cache))
    pairings = find_pairings(kept.mpi, kept.libc, sets)
    slurm = host_mpi.ask_slurm()
    policy = seen.facts.run.mpi if seen.facts else "auto"
    chosen, flag = choose_for_srun(policy, kept.mpi, sets, pairings, slurm)
    return MpiReport(
        image=seen.path,
        mpi=kept.mpi,
        libc=kept.libc,
        sets=sets,
        pairings=pairings,
        slurm=slurm,
        tasks=host_mpi.probe_tasks(),
        chosen=chosen,
        flag=flag,
    )


# ---- really starting ranks -----------------------------------------------------------------------

_LOADED = (
    "import re; lines = [line for line in open('/proc/self/maps') if '.so' in line]; "
    "maps = {line.split(None, 5)[5].strip() for line in lines}; "
    "libs = sorted(p for p in maps if re.search(r'/libmpi(ch|_abi)?[.]so', p)); "
    "title = MPI.Get_library_version().splitlines()[0].strip(' \\0'); "
)
_LOOK = (
    "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; "
    + _LOADED
    + "print('limpet-mpi', title, '|', ' '.join(libs))"
)
# In one write, also with PYTHONUNBUFFERED, so that no other rank's words come in between.
_MEET = (
    "import json, os; from mpi4py import MPI; world = MPI.COMM_WORLD; "
    "total = world.allreduce(world.rank + 1); "
    + _LOADED
    + "told = json.dumps([world.rank, world.size, total, title, libs]); "
    + "os.write(1, f'limpet-mpi {told}\\n'.encode())"
)
_PYTHON = 'exec "$(command -v python3 || command -v python || echo python3)" -c "$1"'
_PROBE_TIMEOUT_S = 120


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Two ranks of one set: how they were started, whether they met, what each had loaded."""

    name: str
    command: str
    met: bool
    title: str = ""
    loaded: tuple[str, ...] = ()
    said: str = ""


def ask_loaded(image: str, request: Request, *, config_file: str = "", system: str = "") -> str:
    """What mpi4py in the image loads with this request, by loading it without starting MPI."""
    from limpet.actions.launch import plan_start
    from limpet.tools import process
    from limpet.tools.host import make_private

    looked = msgspec.structs.replace(
        request,
        command=_command(_LOOK),
        home="none",
        shell=False,
        overlays=(),
        pwd="/",
        alone=True,  # it takes no part in what the ranks share later
    )
    launch = plan_start(image, looked, config_file=config_file, system=system)
    make_private([p for p in launch.folders if is_below(p, launch.state)], launch.state)
    done = process.run(launch.argv, env=launch.env, timeout_s=60)
    for line in done.text.splitlines():
        if line.startswith("limpet-mpi "):
            return line.removeprefix("limpet-mpi ").replace(" | ", ", ")
    last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
    return f"nothing: {last[0] if last else f'exit code {done.code}'}"


def _command(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", _PYTHON, "limpet", script)


def probe_sets(
    image: str, report: MpiReport, *, config_file: str = "", names: tuple[str, ...] = ()
) -> tuple[Probe, ...]:
    """Two ranks for each host set that should work (or those named), one set after the other."""
    if not any(consumer.name.startswith("mpi4py") for consumer in report.mpi.consumers):
        raise ImageError(
            f"{report.image} has no mpi4py, which the probe speaks with.",
            now="Add mpi4py to its packages.",
        )
    working = {pairing.name for pairing in report.pairings if pairing.works}
    sets = [host for host in report.sets if host.name in (names or working)]
    if not sets:
        raise HostError(
            "There is no MPI of this machine to probe.",
            why="None was found that works with the image.",
            now="Load the module that brings one; limpet mpi IMAGE says what there is.",
        )
    return tuple(_probe(image, host, report, config_file) for host in sets)


def _probe(image: str, host: HostSet, report: MpiReport, config_file: str) -> Probe:
    from limpet.actions.launch import plan_start
    from limpet.tools import host_mpi, process
    from limpet.tools.host import make_private

    request = Request(command=_command(_MEET), mpi=host.name, home="none", pwd="/")
    launch = plan_start(image, request, config_file=config_file)
    make_private([p for p in launch.folders if is_below(p, launch.state)], launch.state)
    starter = host_mpi.find_starter(host, choose_kind(host.library, report.slurm))
    if not starter:
        return Probe(name=host.name, command="", met=False, said="No mpiexec or srun fits it.")
    # Ranks in user namespaces of their own may not read each other's memory.
    env = os.environ | launch.env | {"APPTAINER_SHARENS": "1"}
    try:
        done = process.run([*starter, *launch.argv], env=env, timeout_s=_PROBE_TIMEOUT_S)
    except HostError as error:
        return Probe(name=host.name, command=" ".join(starter), met=False, said=str(error))
    # Words of a library, which did not end its line, may stand before.
    lines = re.findall(r"limpet-mpi (\[\d+,.*?\]\])", done.text)
    ranks = [msgspec.json.decode(line, type=tuple[int, int, int, str, list[str]]) for line in lines]
    met = sorted(rank[:3] for rank in ranks) == [(0, 2, 3), (1, 2, 3)]
    return Probe(
        name=host.name,
        command=" ".join(starter),
        met=met,
        title=ranks[0][3] if ranks else "",
        loaded=tuple(dict.fromkeys(path for rank in ranks for path in rank[4])),
        said="" if met else done.stderr.strip()[-1000:],
    )
