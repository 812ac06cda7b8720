"""What programs of bench/ make of images and of measurements."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from limpet.core.image import AHEAD_OBJECT
from limpet.formats.sif import SifWriter
from limpet.tools.images import list_parts


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    return importlib.import_module("ahead")


def test_a_copy_does_not_say_what_is_to_be_read_ahead(ahead: ModuleType, tmp_path: Path) -> None:
    image, copy = tmp_path / "image.sif", tmp_path / "copy.sif"
    with image.open("w+b") as file:
        writer = SifWriter(file, arch="amd64", ident=bytes(16))
        writer.add_object("data", AHEAD_OBJECT.encode() + b"\0", kind="raw")
        writer.add_object(AHEAD_OBJECT, b"{}", kind="json")
        writer.finish()
    ahead.hide_ranges(image, copy)
    assert [part.name for part in list_parts(image)] == ["data", AHEAD_OBJECT]
    assert [part.name for part in list_parts(copy)] == ["data", "-head.json"]
    changed = zip(image.read_bytes(), copy.read_bytes(), strict=True)
    assert sum(one != other for one, other in changed) == 1


def test_medians_and_their_ratios_to_one_of_the_ways(ahead: ModuleType) -> None:
    order = importlib.import_module("order")

    def sample(wall_s: float, reads: int) -> tuple[float, object]:
        counts = {"attributes": 1, "opens": 1, "links": 0, "listings": 0}
        return wall_s, order.Counted(reads=reads, read_bytes=reads * 100_000, **counts)

    found = {
        "ahead": [sample(1, 100), sample(9, 900), sample(2, 300)],
        "without": [sample(4, 600)],
    }
    first, second = order.rows(0.5, found, against="without")
    assert first == ["0.5 ms", "ahead", "300", "0.50", "30.0", "0.50", "2.00", "0.50"]
    assert second == ["0.5 ms", "without", "600", "1.00", "60.0", "1.00", "4.00", "1.00"]
    assert len(order.header("without")) == len(first)
