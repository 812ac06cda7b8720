"""Conda packages as a lock names them."""

from __future__ import annotations

import msgspec


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
