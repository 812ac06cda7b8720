"""This user's set-up: start-up files, packages in the home, variables. Reading files may hang."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit, urlunsplit

from limpet.core.machine import UserSite
from limpet.core.variable_groups import FOREIGN

START_FILES = (
    *(".bashrc", ".bash_profile", ".bash_login", ".profile", ".zshrc", ".zprofile", ".zshenv"),
    *(".cshrc", ".tcshrc", ".login", ".config/fish/config.fish", ".kshrc"),
)
# What `conda init`, `mamba init` and people by hand write.
_HOOK = re.compile(
    r">>> (?:conda|mamba|micromamba) initialize >>>|/etc/profile\.d/conda\.(?:c?sh|fish)"
    r"|^\s*(?:conda|mamba|micromamba|source) activate\b"
)
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
BUNDLES = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"),
    *("GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE"),
)
_LEAKING = ("python", "conda", "loader")
_MOST_BYTES = 1 << 20


def find_hooks(home: Path) -> tuple[str, ...]:
    """`FILE:LINE` of what starts conda in each shell."""
    return tuple(_hooks(home))


def _hooks(home: Path) -> Iterator[str]:
    for name in START_FILES:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), _opened(home / name) as f:
            for number, line in enumerate(f.read(_MOST_BYTES).splitlines(), start=1):
                comment = line.lstrip().startswith("#") and ">>>" not in line
                if not comment and _HOOK.search(line):
                    yield f"{home / name}:{number}"
                    break


def _opened(path: Path) -> TextIO:
    return path.open(encoding="utf-8", errors="replace")


def find_sites(home: Path, images: Mapping[str, Sequence[str]]) -> tuple[UserSite, ...]:
    """The packages in `~/.local` by Python; `images` are those known to limpet, by `3.13`."""
    found = []
    for folder in sorted((home / ".local/lib").glob("python3*/site-packages")):
        python = folder.parent.name.removeprefix("python")
        with os.scandir(folder) as entries:
            packages = sum(e.name.endswith((".dist-info", ".egg-info")) for e in entries)
        if packages:
            site = UserSite(
                path=str(folder),
                python=python,
                packages=packages,
                images=tuple(images.get(python, ())),
            )
            found.append(site)
    return tuple(found)


def find_leaking(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Variables that a bare runtime would hand to the Python in an image."""
    patterns = [p for group in FOREIGN if group.name in _LEAKING for p in group.patterns]
    return tuple(
        sorted(name for name in environment if any(fnmatchcase(name, p) for p in patterns))
    )


def find_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxies that are set, as written but for passwords."""
    return {
        name: without_password(environment[name])
        for lower in PROXIES
        for name in (lower, lower.upper())
        if environment.get(name)
    }


def without_password(url: str) -> str:
    """The address without its login."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no address)"
    if "@" not in parts.netloc:
        return url if "@" not in url else "(with a login)"
    return urlunsplit(parts._replace(netloc=f"…@{parts.netloc.rpartition('@')[2]}"))


def find_bundles(environment: Mapping[str, str]) -> tuple[tuple[str, str, bool], ...]:
    """The variables that name certificates, and whether these can be read."""
    named = [(name, environment[name]) for name in BUNDLES if environment.get(name)]
    return tuple((name, path, os.access(path, os.R_OK)) for name, path in named)
