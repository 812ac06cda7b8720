"""A local advisory database: a JSON file, a folder, or a zip of OSV records."""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from limpet.core.advisories import Advisory, parse_records
from limpet.core.errors import UsageError

MOST_BYTES = 64 << 20  # of one record: far more than any has


def read_advisories(path: Path, packages: set[str]) -> dict[str, list[Advisory]]:
    """The advisories on these packages; UsageError where nothing can be read there.

    OSV offers all records of PyPI as one zip file (`PyPI/all.zip`).
    """
    wanted = {canonicalize_name(name) for name in packages}
    found: dict[str, list[Advisory]] = defaultdict(list)
    number = 0
    try:
        for document in _documents(path):
            number += 1
            for advisory in parse_records(document):
                if advisory.package in wanted:
                    found[advisory.package].append(advisory)
    except FileNotFoundError as error:
        raise UsageError(f"There is no advisory database {path}.") from error
    except (OSError, zipfile.BadZipFile, ValueError, RecursionError) as error:
        raise UsageError(f"The advisory database {path} cannot be read.", why=str(error)) from error
    if not number:
        raise UsageError(f"The advisory database {path} has no records in it.")
    return found


def _documents(path: Path) -> Iterator[Any]:
    if path.is_dir():
        for file in sorted(path.rglob("*.json")):
            yield _parse(file.read_bytes())
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".json") and info.file_size <= MOST_BYTES:
                    yield _parse(archive.read(info))
    else:
        yield _parse(path.read_bytes())


def _parse(data: bytes) -> Any:
    return json.loads(data)
