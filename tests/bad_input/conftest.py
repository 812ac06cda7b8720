"""The same workshop as for builds that succeed."""

from tests.build.conftest import fresh, workshop

__all__ = ["fresh", "workshop"]
