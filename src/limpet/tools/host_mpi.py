"""The MPI libraries of this machine, what they need, and what Slurm and the session offer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from limpet.core.elf import COMPILER, Elf, is_libc
from limpet.core.errors import LimpetError
from limpet.core.mpi import (
    LIBRARIES,
    NAMES,
    HostSet,
    Library,
    SiteSet,
    Tasks,
    family_of,
    identify,
    parse_tasks,
)
from limpet.core.numbers import is_newer
from limpet.formats.elf import read_elf
from limpet.formats.elf_symbols import read_symbols
from limpet.tools import files, process

# Variables of modules and installers, and where the library lies below the folder they name.
_PLACES = ("lib-abi-mpich", "lib", "lib64", "lib/release", "latest/lib/release", "latest/lib")
_IMPI_PLACES = ("mpi/latest/lib/release", "mpi/latest/lib", "intel64/lib/release")
_ROOTS = (
    *("CRAY_MPICH_DIR", "MPICH_DIR", "I_MPI_ROOT", "MPI_HOME", "MPI_ROOT", "MPI_DIR"),
    *("OPENMPI_DIR", "OMPI_DIR", "OPAL_PREFIX", "MVAPICH_DIR", "HPCX_MPI_DIR"),
)
_EASYBUILD = re.compile(r"EBROOT(OPENMPI|MPICH|IMPI|MVAPICH\d?|PSMPI|CRAYMPICH\w*|HPCX|ICOMPI)$")
_LIBRARY_NAMES = ("libmpi.so.12", "libmpi.so.40", "libmpich.so.12", "libmpi_abi.so.1")
_PROGRAMS = ("mpicc", "mpirun", "mpiexec")
_STANDARD = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
# Plug-ins that these load at run time lie in a folder of this name beside them.
_PLUGINS = {
    "libucs.so": ("ucx",),
    "libfabric.so": ("libfabric", "prov"),
    "libmpi.so.40": ("openmpi", "openmpi3", "pmix"),
    "libpmix.so": ("pmix",),
}


def probe_tasks(environment: Mapping[str, str] | None = None) -> Tasks | None:
    """The parallel start that this process is part of; variables of another job do not count."""
    variables = os.environ if environment is None else environment
    return parse_tasks(
        variables,
        in_step=_descends_from(variables.get("SLURM_TASK_PID", "")),
        open_files=Path(f"/proc/self/fd/{variables.get('PMI_FD', '')}").is_socket(),
    )


def _descends_from(task: str) -> bool:
    """Whether the process of that number is this one or one above it."""
    process_id = os.getpid()
    while task.isdigit() and process_id > 1:
        if process_id == int(task):
            return True
        try:
            process_id = int(process.read_status(process_id)[1])
        except OSError:
            return False
    return False


def ask_slurm() -> tuple[str, ...]:
    """What `srun --mpi=list` lists; empty where there is no Slurm."""
    if process.find_program("srun") is None:
        return ()
    with contextlib.suppress(LimpetError):
        done = process.run(["srun", "--mpi=list"], timeout_s=20)
        return parse_mpi_list(done.text + done.stderr)
    return ()


def parse_mpi_list(text: str) -> tuple[str, ...]:
    """`none`, `pmi2`, `pmix` … of the list, in either of Slurm's forms."""
    words = (
        re.sub(r"^srun:\s*", "", line).strip()
        for line in text.splitlines()
        if not re.search(r"plugin|types|versions|error|warning", line)
    )
    # "specific pmix plugin versions available: pmix_v4" is another line of it.
    more = re.findall(r"versions available:\s*(.*)", text)
    found = [*(w for w in words if re.fullmatch(r"\w+", w)), *re.split(r"[,\s]+", " ".join(more))]
    return tuple(dict.fromkeys(word for word in found if word))


# ---- which libraries there are -------------------------------------------------------------------


def find_libraries(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """MPI libraries by path, with what led to each: modules' variables first, the system's last."""
    variables = os.environ if environment is None else environment
    cached = read_loader_cache()
    found: dict[str, str] = {}
    seen: set[str] = set()
    places = _folders_of(variables)
    for folder, origin in places:
        for name in _LIBRARY_NAMES:
            _note(Path(folder, name), origin, found, seen)
    for name, path in cached.items():
        if NAMES.fullmatch(name) and family_of(name):
            _note(Path(path), "the loader's cache", found, seen)
    return found


def _note(path: Path, origin: str, found: dict[str, str], seen: set[str]) -> None:
    real = os.path.realpath(path)
    if real not in seen and Path(real).is_file():
        seen.add(real)
        found[str(path)] = origin


def _folders_of(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in (*_ROOTS, *sorted(filter(_EASYBUILD.match, variables))):
        root = variables.get(name, "")
        if root.startswith("/"):
            places = (*_PLACES, *_IMPI_PLACES) if "MPI" in name else _PLACES
            yield from ((f"{root}/{place}", name) for place in places)
    for folder in variables.get("LD_LIBRARY_PATH", "").split(":"):
        if folder.startswith("/"):
            yield folder, "LD_LIBRARY_PATH"
    for program in _PROGRAMS:
        path = process.find_program(program, path=variables.get("PATH"))
        for prefix in _prefixes_of(path) if path else ():
            yield from ((str(prefix / place), program) for place in _PLACES)


def _prefixes_of(program: Path) -> dict[Path, None]:
    """Two folders above it, and above what it is a link to."""
    return dict.fromkeys((program.absolute().parent.parent, program.resolve().parent.parent))


def read_loader_cache() -> dict[str, str]:
    """Libraries by name, as the loader's cache has them for this machine's own kind."""
    program = process.find_program("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if program is None:
        return {}
    with contextlib.suppress(LimpetError):
        return parse_loader_cache(process.run([program, "-p"], timeout_s=20).text)
    return {}


def parse_loader_cache(text: str) -> dict[str, str]:
    """From `ldconfig -p`; of two libraries of one name the first is taken, as the loader does."""
    found: dict[str, str] = {}
    for name, kind, path in re.findall(r"^\s+(\S+) \((\S*?)\) => (.*)$", text, re.MULTILINE):
        if "x86-64" in kind or "AArch64" in kind or kind == "libc6":
            found.setdefault(name, path)
    return found


def find_starter(host: HostSet, flag: str | None) -> tuple[str, ...]:
    """The words before a command that start two of it: the library's own mpiexec, else srun."""
    own = Path(host.library.path).parents[1] / "bin"
    mpiexec = process.find_program("mpiexec", path=str(own))
    if mpiexec is None and host.library.family == "openmpi":
        mpiexec = process.find_program("ompi-mpiexec") or process.find_program("mpirun")
    if mpiexec:
        # Open MPI counts cores, of which a login node may give one.
        more = ("--oversubscribe",) if host.library.family == "openmpi" else ()
        return (str(mpiexec), *more, "-n", "2")
    srun = process.find_program("srun")
    return (str(srun), "-n", "2", f"--mpi={flag}") if srun and flag else ()


# ---- what a library takes along ------------------------------------------------------------------


def read_set(
    name: str, path: str, origin: str, *, site: SiteSet | None = None, cache: Path | None = None
) -> HostSet | None:
    """The host set of the library at `path`; None where that is no MPI library.

    Walking takes some tenths of a second, so the result is kept in `cache` as long as the library
    is the same file and the loader finds its needs in the same places.
    """
    kept = _kept_at(path, site, cache)
    found = None
    if kept:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            found = msgspec.json.decode(kept.read_bytes(), type=HostSet)
            needed = (*found.files.values(), *found.folders.values())
            if not all(Path(place).exists() for place in needed):
                found = None
    if found is None:
        found = _Walk(os.environ.get("LD_LIBRARY_PATH", "")).gather(path, site)
        if found and kept:
            with contextlib.suppress(OSError, LimpetError):
                files.make_folder(kept.parent)
                with files.written_beside(kept) as out:
                    out.write(msgspec.json.encode(found))
    return msgspec.structs.replace(found, name=name, origin=origin) if found else None


def _kept_at(path: str, site: SiteSet | None, cache: Path | None) -> Path | None:
    if cache is None:
        return None
    with contextlib.suppress(OSError):
        status = Path(path).stat()
        words = [os.path.realpath(path), str(status.st_mtime_ns), str(status.st_size)]
        words += [os.environ.get("LD_LIBRARY_PATH", ""), os.uname().nodename.rstrip("0123456789")]
        with contextlib.suppress(OSError):
            words.append(str(Path("/etc/ld.so.cache").stat().st_mtime_ns))
        words.append(msgspec.json.encode(site).decode() if site else "")
        digest = hashlib.sha256("\0".join(["1", *words]).encode("utf-8", "surrogateescape"))
        return cache / "mpi" / f"host-{digest.hexdigest()[:24]}.json"
    return None


def _expand(pattern: str) -> list[str]:
    """The files that an absolute pattern stands for."""
    return [str(path) for path in Path("/").glob(pattern.lstrip("/")) if path.is_file()]


class _Walk:
    """From a library to all that it needs, as the loader would find it."""

    def __init__(self, loader_path: str) -> None:
        self._folders = [folder for folder in loader_path.split(":") if folder.startswith("/")]
        self._cached = read_loader_cache()
        self._files: dict[str, str] = {}
        self._folders_of_plugins: dict[str, str] = {}
        self._compiler: dict[str, str] = {}
        self._missing: list[str] = []
        self._asked: dict[str, str] = {}
        self._asked_by: dict[str, str] = {}

    def gather(self, path: str, site: SiteSet | None) -> HostSet | None:
        library = _read_library(path)
        if library is None:
            return None
        exports = self._add(library.soname, path, needed=True, symbols=True)
        if library.product == "Intel MPI":
            self._add_intel_fabric(path)
        for pattern in site.copies if site else ():
            for copy in sorted(_expand(pattern)):
                self._add(Path(copy).name, copy, needed=True)
        variables = dict(site.variables) if site else {}
        if "libfabric" in self._folders_of_plugins:
            variables.setdefault("FI_PROVIDER_PATH", f"{LIBRARIES}/libfabric")
        return HostSet(
            name="",
            library=library,
            exports=tuple(s for s in exports if s.startswith("MPI_")),
            files=self._files,
            folders=self._folders_of_plugins,
            compiler=self._compiler,
            binds=site.binds if site else (),
            variables=variables,
            conflicts=site.conflicts if site else (),
            missing=tuple(self._missing),
            asked=self._asked,
            asked_by=self._asked_by,
        )

    def _add(self, name: str, path: str, *, needed: bool, symbols: bool = False) -> tuple[str, ...]:
        """Take a library and what it needs; its exported names with `symbols`."""
        with Path(path).open("rb") as file:
            elf = read_elf(file)
            exports = read_symbols(file).exports if symbols else ()
        if elf is None:
            return ()
        self._files[name] = path
        self._note_versions(path, elf)
        for other in elf.needed:
            if is_libc(other) or other in self._files or other in self._compiler:
                continue
            found = self._find(other, path, elf)
            if other in COMPILER:
                self._compiler |= {other: found} if found else {}
            elif found:
                self._add(other, found, needed=needed)
            elif needed and other not in self._missing:
                self._missing.append(other)
        self._add_plugins(name, path)
        return exports

    def _add_intel_fabric(self, path: str) -> None:
        """Intel's library loads its libfabric at run time, from its own installation."""
        wheel, *roots = Path(path).parents[:3]
        places = [f / p for f in roots for p in ("opt/mpi/libfabric/lib", "libfabric/lib")]
        places.append(wheel / "libfabric")
        found = next((p / "libfabric.so.1" for p in places if (p / "libfabric.so.1").exists()), "")
        found = found or self._cached.get("libfabric.so.1", "")
        if found:
            self._add("libfabric.so.1", str(found), needed=True)

    def _note_versions(self, path: str, elf: Elf) -> None:
        for kind, version in elf.asked.items():
            if is_newer(version, self._asked.get(kind, "")):
                self._asked[kind] = version
                self._asked_by[kind] = path

    def _find(self, name: str, path: str, elf: Elf) -> str:
        """Where the loader finds a library that the one at `path` needs; empty for nowhere."""
        if "/" in name:
            return name if Path(name).exists() else ""
        origins = dict.fromkeys((str(Path(path).parent), str(Path(path).resolve().parent)))

        def expand(folders: Sequence[str]) -> list[str]:
            return [re.sub(r"\$(ORIGIN|\{ORIGIN\})", o, f) for f in folders for o in origins]

        before = [] if elf.runpath else expand(elf.rpath)
        for folder in (*before, *self._folders, *expand(elf.runpath)):
            if Path(folder, name).is_file():
                return os.path.normpath(Path(folder, name))
        if name in self._cached:
            return self._cached[name]
        return next((f"{f}/{name}" for f in _STANDARD if Path(f, name).is_file()), "")

    def _add_plugins(self, name: str, path: str) -> None:
        """Plug-ins' folders, and what the plug-ins need; a plug-in that cannot load is left out."""
        for start, folders in _PLUGINS.items():
            if not name.startswith(start):
                continue
            for folder in folders:
                place = Path(os.path.realpath(path)).parent / folder
                plugins = sorted(place.glob("*.so*")) if place.is_dir() else []
                if plugins and folder not in self._folders_of_plugins:
                    self._folders_of_plugins["libfabric" if folder == "prov" else folder] = str(
                        place
                    )
                    for plugin in plugins:
                        self._add_needs_of(plugin)

    def _add_needs_of(self, plugin: Path) -> None:
        with plugin.open("rb") as file:
            elf = read_elf(file)
        for other in elf.needed if elf else ():
            if not (is_libc(other) or other in self._files or other in COMPILER):
                found = self._find(other, str(plugin), elf) if elf else ""
                if found:
                    self._add(other, found, needed=False)


def _read_library(path: str) -> Library | None:
    try:
        with Path(path).open("rb") as file:
            elf = read_elf(file)
            file.seek(0)
            return identify(path, elf.soname, elf.needed, file.read()) if elf else None
    except OSError:
        return None
