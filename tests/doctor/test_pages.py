"""The pages that are made from tables are in step with them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from limpet.core.failure_tables import FAILURES
from limpet.core.finding_codes import CODES

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "render_reference.py"
    spec = importlib.util.spec_from_file_location("render_reference", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_code_has_a_page(script: ModuleType) -> None:
    for name, render in script.PAGES.items():
        assert (REFERENCE / name).read_text("utf-8") == render(), "`make docs` writes it anew"
    there = {page.stem for page in (REFERENCE / "findings").glob("LMP*.md")}
    assert there == set(CODES)


def test_codes_in_the_source_are_known_and_used() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    used = set(re.findall(r'code="(LMP\d+)"|\("(LMP\d+)", "', source))
    named = {code for pair in used for code in pair if code}
    named |= {"LMP002", "LMP001"}  # chosen between in one place
    assert named == set(CODES)


def test_there_are_sources_for_all_messages() -> None:
    assert len(FAILURES) >= 30
    assert len({row.name for row in FAILURES}) == len(FAILURES)
    assert all(row.source.startswith("https://") and row.example for row in FAILURES)
