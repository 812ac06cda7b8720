"""What real builds start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.build.workshop import BASE, Workshop
from tests.conftest import Base

TINY = {"tiny/__init__.py": "answer = 42\n", "tiny/other.py": "answer = 43\n"}


@pytest.fixture
def workshop(tmp_path: Path, cache_dir: Path, home: Path, debian_base: Base) -> Workshop:
    """A folder with the wheel `tiny`, on `debian:trixie`, with the cache that all tests share."""
    made = Workshop(tmp_path / "project", cache=cache_dir, base=BASE)
    made.add_wheel("tiny", TINY)
    return made


@pytest.fixture
def fresh(tmp_path: Path, home: Path, debian_base: Base) -> Workshop:
    """A workshop with a cache of its own, in which nothing has ever been built."""
    made = Workshop(tmp_path / "project", cache=tmp_path / "cache", base=debian_base.sif)
    made.add_wheel("tiny", TINY)
    return made


def copy_workshop(workshop: Workshop, name: str, *, cache: str = "") -> Workshop:
    """The same description in another folder, if need be with another cache."""
    folder = workshop.folder.parent / name
    shutil.copytree(workshop.folder, folder, ignore=shutil.ignore_patterns("*.sif", "pylock*"))
    place = workshop.folder.parent / cache if cache else workshop.cache
    return Workshop(folder, cache=place, base=workshop.base)
