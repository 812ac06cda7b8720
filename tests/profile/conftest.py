"""The folders to build in that `tests/build` has."""

from tests.build.conftest import fresh, workshop

__all__ = ["fresh", "workshop"]
