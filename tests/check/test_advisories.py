"""Known vulnerabilities from a local database of OSV records."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from limpet.core.advisories import is_affected, judge_advisories, parse_records
from limpet.core.contents import Software
from limpet.core.errors import UsageError
from limpet.tools.advisories import read_advisories


def record(*events: dict[str, str], name: str = "Some.Package", **more: Any) -> dict[str, Any]:
    affected = {
        "package": {"ecosystem": "PyPI", "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
    }
    return {"id": "PYSEC-1", "summary": "bad", "aliases": ["CVE-1"], "affected": [affected], **more}


@pytest.mark.parametrize(
    ("events", "hit", "miss"),
    [
        ([{"introduced": "0"}, {"fixed": "2.0"}], ["0.1", "1.9", "2.0rc1"], ["2.0", "2.0.1"]),
        ([{"introduced": "1.0"}, {"last_affected": "1.5"}], ["1.0", "1.5"], ["0.9", "1.5.1"]),
        ([{"introduced": "3"}], ["3", "99"], ["2.9"]),
        (
            [{"introduced": "1"}, {"fixed": "1.2"}, {"introduced": "2"}, {"fixed": "2.1"}],
            ["1.1", "2.0.5"],
            ["1.2", "1.9", "2.1"],
        ),
        ([], [], ["1.0"]),
    ],
)
def test_ranges(events: list[dict[str, str]], hit: list[str], miss: list[str]) -> None:
    (advisory,) = parse_records(record(*events))
    assert [version for version in hit if not is_affected(advisory, version)] == []
    assert [version for version in miss if is_affected(advisory, version)] == []


def test_findings() -> None:
    serious = record({"introduced": "0"}, {"fixed": "2.0"}, database_specific={"severity": "HIGH"})
    advisories = list(parse_records([serious]))
    package = Software(manager="pip", name="some_package", version="1.0", folder="/s")
    (found,) = judge_advisories([package, package], {"some-package": advisories})
    assert (found.code, found.severity) == ("LMP711", "error")
    assert found.cure == 'Add to the description: "some_package>=2.0"'
    assert found.evidence == ("bad", "PYSEC-1, CVE-1", "/s")


@pytest.mark.parametrize(
    "document",
    [
        None,
        3,
        "text",
        {},
        {"affected": None},
        {"affected": [None, {"package": 3}, {"package": {"ecosystem": "npm", "name": "x"}}]},
        {"withdrawn": "2024", **record({"introduced": "0"})},
        {"vulns": [{"affected": "x"}]},
    ],
)
def test_what_is_not_for_python_is_passed_over(document: Any) -> None:
    assert list(parse_records(document)) == []


def test_odd_ranges_and_versions_harm_nothing() -> None:
    odd = record({"fixed": "1"}, {"introduced": "x.y"}, {"fixed": "1"}, {"limit": "*"})
    (advisory,) = parse_records(odd)
    assert not is_affected(advisory, "1.0") and not is_affected(advisory, "not a version")
    bare = record()
    bare["affected"][0]["ranges"] = [None, {"type": "GIT"}, {"type": "ECOSYSTEM", "events": "x"}]
    bare["affected"][0]["versions"] = ["1.0", 2]
    (advisory,) = parse_records(bare)
    assert is_affected(advisory, "1.0")


@pytest.mark.parametrize("form", ["file", "folder", "zip"])
def test_databases(form: str, tmp_path: Path) -> None:
    text = json.dumps(record({"introduced": "0"}))
    other = json.dumps(record({"introduced": "0"}, name="other"))
    path = tmp_path / "database"
    if form == "file":
        path.write_text(f"[{text}, {other}]")
    elif form == "folder":
        (path / "below").mkdir(parents=True)
        (path / "below/a.json").write_text(text)
        (path / "b.json").write_text(other)
    else:
        path = path.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.json", text)
            archive.writestr("b.json", other)
    found = read_advisories(path, {"some-package"})
    assert list(found) == ["some-package"] and len(found["some-package"]) == 1


def test_databases_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.zip").write_text("no zip")
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name in ("absent", "bad.json", "bad.zip", "empty", "deep.json"):
        with pytest.raises(UsageError, match="advisory database"):
            read_advisories(tmp_path / name, {"x"})
