"""Conda packages as a lock names them, and channels as they may be written down."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from limpet.core.facts import PREFIX, Arch, Distribution, Interpreter, Libc

SUBDIRS: dict[str, str] = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}
DEFAULT_CHANNEL = "conda-forge"

# Conda names of well-known packages whose distribution has another name.
_DISTRIBUTIONS = {
    "brotli-python": "brotli",
    "dask-core": "dask",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "py-opencv": "opencv-python",
    "py-xgboost": "xgboost",
    "pytables": "tables",
    "python-blosc": "blosc",
    "python-fastjsonschema": "fastjsonschema",
    "python-graphviz": "graphviz",
    "python-tzdata": "tzdata",
    "pytorch": "torch",
    "ray-core": "ray",
    "tensorflow-base": "tensorflow",
}
# anaconda.org's and its kin's form: https://HOST/t/TOKEN/CHANNEL. A variable's name is no secret.
_TOKEN = re.compile(r"(://[^/\s]+(?:/[^/\s]+)*?)/t/(?!\$\{)([^/\s]+)")


class CondaPackage(msgspec.Struct, frozen=True, kw_only=True):
    """One conda package, exactly: what conda calls a record, reduced to what installs it.

    `url` (or `path`, absolute or relative to the lock's folder) is where the archive lies, without
    credentials; `sha256` is that of the archive, never empty. `subdir` is `linux-64`,
    `linux-aarch64` or `noarch`. `depends` and `constrains` are match specs as the channel has them.
    """

    name: str
    version: str
    build: str
    build_number: int = 0
    subdir: str
    channel: str
    filename: str
    url: str = ""
    path: str = ""
    sha256: str
    md5: str = ""
    size_bytes: int | None = None
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    noarch: str = ""
    license: str = ""
    python_site_packages_path: str = ""
    purls: tuple[str, ...] = ()


def hide_login(url: str) -> str:
    """A channel's or package's URL as it may be written down: no user, password or token."""
    from limpet.core.secrets import scrub  # each start imports this module, and needs none of it

    return scrub(_TOKEN.sub(r"\1", url))


def find_token(url: str) -> str:
    """The token in a channel's URL, or nothing."""
    found = _TOKEN.search(url)
    return found[2] if found else ""


def show_login(url: str, channels: Iterable[str]) -> str:
    """The URL with the login that one of these channel URLs has for it; itself where none has."""
    for channel in channels:
        bare = hide_login(channel).rstrip("/")
        if bare != channel.rstrip("/") and url.startswith(f"{bare}/"):
            return channel.rstrip("/") + url[len(bare) :]
    return url


def python_of(packages: Iterable[CondaPackage]) -> CondaPackage | None:
    """The Python among these packages."""
    return next((one for one in packages if one.name == "python"), None)


def conda_interpreter(packages: Iterable[CondaPackage]) -> Interpreter | None:
    """The Python that conda brings, with the distributions beside it; None where it brings none."""
    packages = tuple(packages)
    python = python_of(packages)
    if python is None:
        return None
    found = (_distribution(package) for package in packages)
    return Interpreter(
        path=f"{PREFIX}/bin/python",
        version=python.version,
        implementation="pypy" if "pypy" in python.build else "cpython",
        prefix=PREFIX,
        magic="",
        distributions=tuple(one for one in found if one),
    )


def plan_virtual(libc: Libc | None, arch: Arch, cuda: str) -> dict[str, str]:
    """The virtual packages of a target: name → version, or `version=build`.

    The kernel and the processor are the oldest that clusters still have: an image is for many.
    """
    virtual = {"__unix": "0", "__linux": "4.18", "__archspec": f"1={arch}"}
    if libc is None or libc.family == "glibc":
        virtual["__glibc"] = libc.version if libc else "2.17"
    return virtual | ({"__cuda": cuda} if cuda else {})


def distribution_names(package: CondaPackage) -> tuple[str, ...]:
    """The normalised name of the Python distribution that a conda package is, if it is one."""
    from packaging.utils import canonicalize_name

    found = _distribution(package)
    return (str(canonicalize_name(found.name)),) if found else ()


def _distribution(package: CondaPackage) -> Distribution | None:
    """The Python distribution that a conda package is, as far as its record shows.

    Channels that have package URLs say it; else a package that needs Python counts as the
    distribution of its own name.
    """
    from packaging.utils import canonicalize_name  # a start of a program loads this module, too
    from packaging.version import InvalidVersion, Version

    for purl in package.purls:
        named = re.match(r"pkg:pypi/([^@?#]+)(?:@([^?#]+))?", purl)
        if named:
            return Distribution(name=named[1], version=named[2] or package.version)
    needs = {spec.split()[0].partition("=")[0] for spec in package.depends if spec.split()}
    if package.purls or not ({"python", "python_abi"} & needs or package.noarch == "python"):
        return None
    try:
        Version(package.version)
    except InvalidVersion:
        return None
    name = _DISTRIBUTIONS.get(package.name, str(canonicalize_name(package.name)))
    return (
        None
        if name in ("python", "python-abi")
        else Distribution(name=name, version=package.version)
    )
