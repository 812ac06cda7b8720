"""A user, and an image to keep mounted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.personal.conftest import User, images, user, wheels

__all__ = ["images", "kept_image", "user", "wheels"]


@pytest.fixture
def kept_image(user: User, images: dict[str, Path]) -> Path:
    """A copy of this test's own."""
    return Path(shutil.copy(images["one"], user.folder / "own image.sif"))
