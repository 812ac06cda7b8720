"""What conda-meta says of an environment, so that conda and py-rattler know what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from limpet.core.conda import CondaPackage
from limpet.core.conda_install import shown_channel, shown_url


def record_name(package: CondaPackage) -> str:
    """The file in conda-meta that stands for a package."""
    return f"{package.name}-{package.version}-{package.build}.json"


def render_record(
    package: CondaPackage, index: Mapping[str, Any], paths: Iterable[Mapping[str, Any]]
) -> bytes:
    """A PrefixRecord. The lock wins over the package's own index.json: channels correct those.

    Without the placeholder that a file had, and without the folders that conda unpacks in: nothing
    of the machines that built and installed is in an image.
    """
    paths = sorted(paths, key=lambda one: str(one["_path"]))
    kept = ("arch", "platform", "timestamp", "track_features", "license_family")
    record = {name: index[name] for name in kept if index.get(name)}
    record |= {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": package.build_number,
        "channel": shown_channel(package),
        "subdir": package.subdir,
        "fn": package.filename,
        "url": shown_url(package),
        "sha256": package.sha256,
        "depends": list(package.depends),
        "constrains": list(package.constrains),
        "files": [one["_path"] for one in paths if one["path_type"] != "directory"],
        "paths_data": {"paths_version": 1, "paths": paths},
    }
    known = {
        "md5": package.md5,
        "size": package.size_bytes,
        "noarch": package.noarch,
        "license": package.license,
        "python_site_packages_path": package.python_site_packages_path,
    }
    record |= {name: value for name, value in known.items() if value}
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def render_history(packages: Iterable[CondaPackage]) -> bytes:
    """conda-meta/history, by which conda knows a folder as an environment; of no date."""
    lines = ["==> 1970-01-01 00:00:00 <==", "# cmd: limpet build"]
    lines += [
        f"+{shown_channel(package).rstrip('/')}/{package.subdir}::"
        f"{package.name}-{package.version}-{package.build}"
        for package in sorted(packages, key=lambda package: package.name)
    ]
    return ("\n".join(lines) + "\n").encode()
