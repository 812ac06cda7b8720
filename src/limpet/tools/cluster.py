"""Slurm, MPI and quotas, as their commands tell. Each may hang."""

from __future__ import annotations

import os

from limpet.core.machine import (
    Program,
    Quota,
    parse_lfs_quota,
    parse_pmi,
    parse_quota,
    parse_version,
)
from limpet.tools import process


def probe_mpi(timeout_s: float) -> tuple[Program, ...]:
    """The compilers and starters of MPI in PATH."""
    found = []
    for name in ("mpicc", "mpirun", "mpiexec"):
        if path := process.find_program(name):
            options = ["-show"] if name == "mpicc" else ["--version"]
            done = process.run([path, *options], timeout_s=timeout_s)
            version = parse_version(done.text) if name != "mpicc" else ""
            found.append(Program(name=name, path=str(path), version=version))
    return tuple(found)


def probe_slurm(timeout_s: float) -> tuple[str, tuple[str, ...]]:
    """Slurm's version and its PMI types; empty where it is not here."""
    srun = process.find_program("srun")
    if not srun:
        return "", ()
    version = parse_version(process.run([srun, "--version"], timeout_s=timeout_s).text)
    listed = process.run([srun, "--mpi=list"], timeout_s=timeout_s)
    version = version or "without a configuration"
    return version, parse_pmi(listed.text + listed.stderr) if listed.code == 0 else ()


def probe_quota(timeout_s: float) -> tuple[Quota, ...]:
    """What `quota` says of this user; nothing where there is no such program."""
    program = process.find_program("quota")
    return parse_quota(process.run([program, "-wp"], timeout_s=timeout_s).text) if program else ()


def probe_lfs_quota(folder: str, timeout_s: float) -> tuple[Quota, ...]:
    """What Lustre says of this user below a folder."""
    program = process.find_program("lfs")
    if not program:
        return ()
    argv = [str(program), "quota", "-q", "-u", str(os.getuid()), folder]
    done = process.run(argv, timeout_s=timeout_s)
    return parse_lfs_quota(folder, done.text) if done.code == 0 else ()
