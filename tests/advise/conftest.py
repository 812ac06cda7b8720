"""A workshop to build images in."""

from tests.build.conftest import workshop  # noqa: F401 - a fixture
