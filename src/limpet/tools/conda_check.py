"""Whether the packages of a conda environment have what their records name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from limpet.core.findings import Finding
from limpet.core.package_files import Metadata


def judge_conda(packages: Sequence[Metadata]) -> Iterator[Finding]:
    """Each dependency that is missing or of another version; virtual packages are the host's."""
    by_prefix: dict[str, dict[str, Metadata]] = defaultdict(dict)
    for package in packages:
        by_prefix[package.folder][package.name] = package
    for prefix, there in by_prefix.items():
        for package in there.values():
            for depend in package.requires:
                if why := _trouble(depend, there):
                    yield Finding(
                        code="LMP504",
                        severity="error",
                        what=f"{package.name} {package.version} needs {depend}{why}.",
                        evidence=(f"conda environment /{prefix}",),
                        cure=f'Add to the description: "{depend}"',
                    )


def _trouble(depend: str, there: dict[str, Metadata]) -> str:
    name = re.split(r"[\s=<>!~\[]", depend.strip(), maxsplit=1)[0].rpartition("::")[2].lower()
    if name.startswith("__") or not name:
        return ""
    found = there.get(name)
    if found is None:
        return ", which is not installed"
    return "" if _matches(depend, found) else f", and {found.version} is installed"


def _matches(depend: str, package: Metadata) -> bool:
    from rattler import BuildString, MatchSpec, PackageRecord
    from rattler.exceptions import (
        InvalidMatchSpecError,
        InvalidPackageNameError,
        InvalidVersionError,
    )

    try:
        record = PackageRecord(
            name=package.name,
            version=package.version,
            build=BuildString(package.build),
            build_number=0,
            subdir="linux-64",
        )
        # The build number is not in a dependency's reach, and a channel says nothing here.
        return bool(MatchSpec(depend.rpartition("::")[2]).matches(record))
    except (
        InvalidMatchSpecError,
        InvalidPackageNameError,
        InvalidVersionError,
        ValueError,
    ):  # an image's text
        return True
