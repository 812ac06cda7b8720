"""Target: which wheels and which markers fit the base's Python; nothing of the host's enters."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from packaging.tags import Tag, compatible_tags, cpython_tags

from limpet.core.errors import LockError
from limpet.core.facts import Interpreter, Libc
from limpet.core.markers import linux_markers

# PEP 600: the old names and the glibc that each one means.
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_OLDEST = {"x86_64": 5, "aarch64": 17}
# What `--python-platform` of uv 0.13.8 takes; newer ones know at least these.
_UV_MANYLINUX = (17, 28, *range(31, 41))


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The Python, C library and processor that packages are chosen for."""

    python: str
    implementation: str
    arch: str
    libc: Libc
    markers: dict[str, str]

    @property
    def minor(self) -> tuple[int, int]:
        """(3, 13) of 3.13.5."""
        major, minor = self.python.split(".")[:2]
        return int(major), int(minor)

    @property
    def described(self) -> str:
        """For messages: `Python 3.13.5 on x86_64 with glibc 2.41`."""
        return f"Python {self.python} on {self.arch} with {self.libc.family} {self.libc.version}"


def make_target(interpreter: Interpreter, libc: Libc | None, arch: str) -> Target:
    """The target that a base is; a base whose C library is unknown counts as glibc 2.17."""
    if interpreter.implementation != "cpython":
        raise LockError(
            f"The base's Python is {interpreter.implementation}; limpet can lock for CPython only.",
            now="Choose a base with CPython.",
        )
    return Target(
        python=interpreter.version,
        implementation=interpreter.implementation,
        arch=arch,
        libc=libc or Libc(family="glibc", version="2.17"),
        markers=linux_markers(interpreter.version, arch, interpreter.implementation)
        | interpreter.markers,
    )


def target_tags(target: Target) -> list[Tag]:
    """Every wheel tag that fits, best first."""
    platforms = list(_platforms(target))
    name = "".join(str(part) for part in target.minor)
    abi = f"cp{name}m" if target.minor < (3, 8) else f"cp{name}"
    return [
        *cpython_tags(python_version=target.minor, abis=[abi], platforms=platforms),
        *compatible_tags(python_version=target.minor, interpreter=f"cp{name}", platforms=platforms),
    ]


def _platforms(target: Target) -> Iterator[str]:
    major, minor = _version(target.libc)
    if target.libc.family == "musl":
        for step in range(minor, -1, -1):
            yield f"musllinux_{major}_{step}_{target.arch}"
    else:
        for step in range(minor, _OLDEST[target.arch] - 1, -1):
            yield f"manylinux_{major}_{step}_{target.arch}"
            if step in _LEGACY:
                yield f"{_LEGACY[step]}_{target.arch}"
    yield f"linux_{target.arch}"


def _version(libc: Libc) -> tuple[int, int]:
    major, minor = libc.version.split(".")[:2]
    return int(major), int(minor)


def uv_platform(target: Target) -> str:
    """The value for uv's `--python-platform`: the newest that it knows and the base still has."""
    if target.libc.family == "musl":
        return f"{target.arch}-unknown-linux-musl"
    minor = _version(target.libc)[1]
    fitting = [known for known in _UV_MANYLINUX if known <= minor]
    return f"{target.arch}-manylinux_2_{max(fitting, default=_UV_MANYLINUX[0])}"
