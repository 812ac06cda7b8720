from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.formats.outside import IS_ROOT, USER


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A short-lived folder that the plain user may write to as well."""
    folder = Path(tempfile.mkdtemp(prefix="limpet test ä "))
    if IS_ROOT:
        shutil.chown(folder, USER)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
