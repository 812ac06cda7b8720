"""Which personal packages of an earlier image fit the one that was built in its place.

A rebuilt image has a folder of its own: what an earlier image at the same path had of personal
packages is carried over where it fits. The earlier folder stays as it is, for jobs that still run
and for the day the old image comes back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from limpet.core.state import PersonalPackage

_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_|manylinux(1|2010|2014)_")
_OLD_NAMES = {"1": (2, 5), "2010": (2, 12), "2014": (2, 17)}


class ImageInside(msgspec.Struct, frozen=True, kw_only=True):
    """What an image's Python says of itself: version, place, glibc, and what it sees."""

    python: str
    executable: str = ""
    libc: str = ""
    versions: dict[str, str] = msgspec.field(default_factory=dict)


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """Which personal packages fit an image, and why the others do not (`name` → reason)."""

    fit: tuple[PersonalPackage, ...] = ()
    left: dict[str, str] = msgspec.field(default_factory=dict)


def minor(python: str) -> str:
    """`3.13` of `3.13.5`."""
    return ".".join(python.split(".")[:2])


def plan_carry(
    packages: Sequence[PersonalPackage], image: ImageInside, *, python: str, same_base: bool
) -> Carried:
    """Which of an earlier image's personal packages can be used with this one.

    `python` is the Python they were installed for. What the image has itself now is not carried,
    and not a word is said of it where the version is the same.
    """
    if minor(python) != minor(image.python):
        why = f"it is for Python {minor(python)}, and the image has {minor(image.python)}"
        return Carried(left={package.name: why for package in packages})
    left: dict[str, str] = {}
    fit = {}
    for package in packages:
        theirs = image.versions.get(package.name)
        if theirs is None:
            fit[package.name] = package
        elif theirs != package.version:
            left[package.name] = f"the image has {theirs} itself"
    while unfit := _find_unfit(fit, image, same_base):
        left |= unfit
        fit = {name: package for name, package in fit.items() if name not in unfit}
    return Carried(fit=tuple(fit.values()), left=left)


def _find_unfit(
    fit: Mapping[str, PersonalPackage], image: ImageInside, same_base: bool
) -> dict[str, str]:
    versions = image.versions | {name: package.version for name, package in fit.items()}
    unfit = {}
    for name, package in fit.items():
        reason = _unmet(package, versions, image.python)
        reason = reason or ("" if same_base else _foreign_binary(package, image.libc))
        if reason:
            unfit[name] = reason
    return unfit


def _unmet(package: PersonalPackage, versions: Mapping[str, str], python: str) -> str:
    environment: dict[str, str] = {
        name: str(value) for name, value in default_environment().items()
    }
    environment |= {
        "python_version": minor(python),
        "python_full_version": python,
        "extra": "",
    }
    for text in package.requires:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if wanted.marker and not wanted.marker.evaluate(environment):
            continue
        has = versions.get(canonicalize_name(wanted.name))
        if has is None:
            return f"it needs {wanted.name}, which is not there"
        if not wanted.specifier.contains(has, prereleases=True):
            return f"it needs {wanted.name}{wanted.specifier}, and the image has {has}"
    return ""


def _foreign_binary(package: PersonalPackage, libc: str) -> str:
    """Why compiled code does not suit another base; a wheel names the oldest glibc it runs on."""
    platforms = {tag.rsplit("-", 1)[-1] for tag in package.tags} - {"any"}
    if not platforms:
        return ""
    needed = [_libc_of(platform) for platform in platforms]
    has = tuple(int(part) for part in libc.split(".")[:2]) if libc else ()
    if any(one and one <= has for one in needed):
        return ""
    return "it was compiled for another base"


def _libc_of(platform: str) -> tuple[int, int] | tuple[()]:
    found = _MANYLINUX.match(platform)
    if not found:
        return ()
    return (int(found[1]), int(found[2])) if found[1] else _OLD_NAMES[found[3]]
