"""[files]: destinations are judged before anything is touched."""

from pathlib import PurePosixPath

import pytest

from limpet.core.errors import RecipeError
from limpet.core.staging import plan_destinations, stale_byte_code


def test_a_destination_is_the_files_own_place_or_a_folder() -> None:
    places = plan_destinations({"a/config.ini": "/opt/lib/config.ini", "b.csv": "/opt/data/"})
    assert places == {
        "a/config.ini": PurePosixPath("/opt/lib/config.ini"),
        "b.csv": PurePosixPath("/opt/data/b.csv"),
    }


@pytest.mark.parametrize(
    "wanted", ["relative/x", "/opt/../../etc/passwd", "../x", "/opt/x\x00y", ""]
)
def test_outside_the_image_is_refused(wanted: str) -> None:
    with pytest.raises(RecipeError, match="outside the image"):
        plan_destinations({"a": wanted})


@pytest.mark.parametrize("wanted", ["/tmp/x", "/proc/x", "/home/me/x"])
def test_what_a_mount_covers_is_refused(wanted: str) -> None:
    with pytest.raises(RecipeError, match="never be seen"):
        plan_destinations({"a": wanted})


@pytest.mark.parametrize("wanted", ["/", "/usr", "/opt"])
def test_a_top_level_folder_is_not_replaced(wanted: str) -> None:
    with pytest.raises(RecipeError):
        plan_destinations({"a": wanted})


def test_byte_code_of_a_staged_source_is_named() -> None:
    place = PurePosixPath("/opt/env/lib/python3.13/site-packages/p/m.py")
    assert stale_byte_code(place, "3.13") == (
        "/opt/env/lib/python3.13/site-packages/p/__pycache__/m.cpython-313.pyc"
    )
