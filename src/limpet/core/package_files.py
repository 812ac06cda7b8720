"""The files by which installers note what they installed, read with suspicion: image files are
anybody's, so what does not parse is nothing, and nothing here raises.

Formats: https://packaging.python.org/en/latest/specifications/core-metadata/ and
…/recording-installed-packages/ ; deb-status(5) ; conda-meta as conda writes it.
"""

from __future__ import annotations

import csv
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from email.parser import HeaderParser
from typing import Any

import msgspec
from packaging.utils import canonicalize_name

from limpet.core.secrets import scrub

MOST_LICENSE = 80
MOST_SUMMARY = 200
MOST_VALUE = 2000  # of any other field
_CLASSIFIER = "License :: "


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """One package's own words; `files` are absolute paths in the image without the first slash.

    `folder` is where it is installed, as such a path: site-packages, or conda's prefix. `trouble`
    says why a name and version are only guessed.
    """

    name: str
    version: str = ""
    build: str = ""
    arch: str = ""
    folder: str = ""
    license: str = ""
    summary: str = ""
    requires: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    trouble: str = ""


def parse_metadata(data: bytes) -> Metadata | None:
    """METADATA or PKG-INFO; None without a name."""
    try:
        said = HeaderParser().parsestr(data.decode("utf-8", "replace"))
        name = _text(said["Name"])
        if not name:
            return None
        return Metadata(
            name=canonicalize_name(name),
            version=_text(said["Version"]),
            license=_license(said.get_all("Classifier", []), said),
            summary=_text(said["Summary"])[:MOST_SUMMARY],
            requires=tuple(map(_text, said.get_all("Requires-Dist", []))),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def guess_metadata(path: str) -> Metadata:
    """What the name of a package's metadata folder says, where that is all that can be read."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    guess = re.match(r"(.+?)-(\d[^-]*)", stem)
    return Metadata(
        name=canonicalize_name(guess[1] if guess else stem),
        version=guess[2] if guess else "",
        trouble=f"/{path}: there is no name in its metadata",
    )


def _license(classifiers: list[Any], said: Any) -> str:
    """The SPDX expression; else the short text; else what the classifiers say."""
    if expression := _text(said["License-Expression"]):
        return expression[:MOST_LICENSE]
    text = str(said["License"] or "").strip()
    if text and "\n" not in text and len(text) <= MOST_LICENSE and text.upper() != "UNKNOWN":
        return text
    named = [_text(line).rpartition(" :: ")[2] for line in classifiers if _CLASSIFIER in str(line)]
    named = [name for name in named if name != "OSI Approved"]
    return ", ".join(named)[:MOST_LICENSE] or text.split("\n")[0][:MOST_LICENSE]


def _text(value: object) -> str:
    return " ".join(str(value or "")[:MOST_VALUE].split())


def parse_direct_url(told: Mapping[str, Any]) -> dict[str, str]:
    """`url`, `sha256` and `commit` of a direct_url.json (PEP 610), as far as it tells them.

    A place on this machine is none for an image to name, and credentials are left out.
    """
    archive, checkout = (told.get(name) for name in ("archive_info", "vcs_info"))
    archive = archive if isinstance(archive, dict) else {}
    checkout = checkout if isinstance(checkout, dict) else {}
    hashes = archive.get("hashes")
    sha256 = hashes.get("sha256") if isinstance(hashes, dict) else ""
    old = str(archive.get("hash", ""))  # what `hashes` was called before
    sha256 = str(sha256 or (old.removeprefix("sha256=") if old.startswith("sha256=") else ""))
    commit = str(checkout.get("commit_id", ""))
    url = str(told.get("url", ""))
    found = {
        "url": "" if url.startswith("file:") else scrub(url),
        "sha256": sha256.lower() if re.fullmatch(r"[0-9a-fA-F]{64}", sha256) else "",
        "commit": commit if re.fullmatch(r"[0-9a-fA-F]{7,64}", commit) else "",
    }
    return {name: value for name, value in found.items() if value}


def parse_record(data: bytes, site: str) -> Iterator[str]:
    """The paths in a RECORD, from the image's root; `site` is the folder that they start at."""
    text = data.decode("utf-8", "surrogateescape")
    lines = (line for line in text.split("\n") if line.strip() and "\0" not in line)
    try:
        for row in csv.reader(lines):
            path = posixpath.normpath(posixpath.join("/", site, row[0])) if row else ""
            yield path.lstrip("/")
    except csv.Error:
        return


def parse_conda_meta(data: bytes, prefix: str) -> Metadata | None:
    """One file of conda-meta; `prefix` is the environment's folder."""
    try:
        said = json.loads(data)
        return Metadata(
            name=str(said["name"]),
            version=str(said.get("version", "")),
            build=str(said.get("build", "")),
            folder=prefix,
            license=str(said.get("license") or "")[:MOST_LICENSE],
            requires=tuple(map(str, said.get("depends") or ())),
            files=tuple(
                posixpath.normpath(f"/{prefix}/{name}").lstrip("/")
                for name in said.get("files") or ()
            ),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def parse_dpkg_status(data: bytes) -> Iterator[Metadata]:
    """The installed packages of a dpkg status file."""
    for stanza in re.split(r"\n\n+", data.decode("utf-8", "replace")):
        said = dict(re.findall(r"(?m)^([A-Za-z-]{1,40}): ?(.*)$", stanza))
        if said.get("Package") and said.get("Status", "").endswith(" installed"):
            depends = f"{said.get('Pre-Depends', '')},{said.get('Depends', '')}"
            yield Metadata(
                name=said["Package"],
                version=said.get("Version", ""),
                arch=said.get("Architecture", ""),
                summary=said.get("Description", "")[:MOST_SUMMARY],
                requires=tuple(part.strip() for part in depends.split(",") if part.strip()),
            )
