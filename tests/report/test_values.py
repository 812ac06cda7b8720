"""Graphs, differences, import times, tables and the page's data, as values."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.core.contents import Contents, Software
from limpet.core.dependencies import find_ways, plan_graph, plan_requested
from limpet.core.findings import Finding
from limpet.core.importtime import parse_importtime
from limpet.core.inspection import Inspection
from limpet.core.markers import linux_markers
from limpet.core.page import ImageReport, Report
from limpet.core.sbom import render_sbom
from limpet.report.difference import format_change
from limpet.report.inspect import render_inspection
from limpet.report.page import _part, render_page
from limpet.report.table import Cell, Table, render_table
from limpet.report.text import safe
from tests.build.test_sbom import LOCK

MARKERS = linux_markers("3.13.5", "x86_64")


def pip(name: str, *requires: str) -> Software:
    return Software(name=name, version="1", manager="pip", requires=requires)


def graph_of(*software: Software, requested: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    contents = Contents(software=software, requested=requested, markers=MARKERS)
    return [(edge.source, edge.target) for edge in plan_graph(contents).edges]


# ---- who needs whom ------------------------------------------------------------------------------


def test_markers_and_extras_decide() -> None:
    app = pip(
        "app",
        "lib[fast]>=1",
        'win; sys_platform == "win32"',
        'new; python_version >= "3.13"',
        'plot; extra == "plot"',
    )
    lib = pip("lib", 'speed; extra == "fast"', 'docs; extra == "docs"')
    others = [pip(name) for name in ("win", "new", "plot", "speed", "docs")]
    assert graph_of(app, lib, *others) == [("app", "lib"), ("app", "new"), ("lib", "speed")]
    asked = graph_of(app, lib, *others, requested=("app[plot]", "nowhere"))
    assert ("app", "plot") in asked


def test_conda_and_pip_meet() -> None:
    numpy = Software(
        name="numpy-base", manager="conda", provides=("numpy",), requires=("blas 3.*",)
    )
    blas = Software(name="blas", manager="conda")
    assert graph_of(numpy, blas, pip("app", "NumPy>=2")) == [
        ("app", "numpy-base"),
        ("numpy-base", "blas"),
    ]


def test_ways_are_short_and_circles_end() -> None:
    circle = (pip("a", "b"), pip("b", "c", "a"), pip("c", "a"), pip("root", "b"), pip("x", "c"))
    graph = plan_graph(Contents(software=circle, requested=("root", "x"), markers=MARKERS))
    assert find_ways(graph, "c") == (("x", "c"), ("root", "b", "c"))
    assert find_ways(graph, "root") == (("root",),)
    unknown = plan_graph(Contents(software=circle, markers=MARKERS))
    assert unknown.loose == ("root", "x") and find_ways(unknown, "c")[0] == ("x", "c")
    alone = plan_graph(Contents(software=(pip("a", "a"),), requested=("b",), markers=MARKERS))
    assert alone.edges == () and alone.loose == ("a",)


def test_what_was_asked_for_is_written_without_secrets() -> None:
    lines = ("numpy>=2 --hash=sha256:ab", "x @ https://me:secret@host/x.whl", "./local", "")
    assert plan_requested(lines, ("conda-forge::scipy=1.*", "zlib")) == (
        "numpy>=2",
        "x",
        "scipy",
        "zlib",
    )


def test_the_sbom_has_the_edges_and_the_licences() -> None:
    from limpet.core.package_files import Metadata

    metadata = {"pyerfa": Metadata(name="pyerfa", license="BSD", requires=("numpy>=2", "q"))}
    text = render_sbom(
        LOCK, name="a", limpet_version="1", metadata=metadata, requested=("pyerfa>=2",)
    )
    bill = json.loads(text)
    by_ref = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    assert by_ref["image"] == ["pkg:pypi/pyerfa@2.0%2Blocal"]
    assert by_ref["pkg:pypi/pyerfa@2.0%2Blocal"] == ["pkg:pypi/numpy@2.5.5"]
    told = {one["name"]: one.get("licenses") for one in bill["components"]}
    assert told["pyerfa"] == [{"license": {"name": "BSD"}}] and told["numpy"] is None


# ---- import time ---------------------------------------------------------------------------------

SAID = """import time: self [us] | cumulative | imported package
import time:       100 |        100 | encodings
import time:        50 |         50 | site
import time:        10 |         10 |     c
import time:        20 |         30 |   b
import time:         5 |          5 |   d
a warning of somebody's
import time:         7 |         42 | a
import time:         3 |          3 | e
"""


def test_spans_stand_in_their_parents() -> None:
    spans = [(s.module, s.start_us, s.total_us, s.level) for s in parse_importtime(SAID)]
    assert spans == [
        ("a", 0, 42, 0),
        ("b", 0, 30, 1),
        ("c", 0, 10, 2),
        ("d", 30, 5, 1),
        ("e", 42, 3, 0),
    ]


@given(st.lists(st.tuples(st.integers(0, 400), st.text(max_size=5)), max_size=40))
def test_any_output_gives_spans(lines: list[tuple[int, str]]) -> None:
    text = "\n".join(f"import time: 1 | 2 | {' ' * level}{name}" for level, name in lines)
    for span in parse_importtime(text):
        assert 0 <= span.level <= 200 and span.start_us >= 0


# ---- text ----------------------------------------------------------------------------------------


def test_tables_are_plain_or_coloured() -> None:
    table = Table(
        columns=(("name", "left"), ("n", "right")),
        rows=((Cell(text="a\x1b[31m\u202e", style="bold"), Cell(text="10")),),
    )
    plain = list(render_table(table))
    assert plain == ["  name              n", "  a\\x1b[31m\\u202e  10"]
    wide = "\n".join(render_table(table, width=40))
    assert "\x1b[1m" in wide and "\x1b[31m" not in wide and "\u202e" not in wide
    assert max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in wide.split("\n")) <= 40


@pytest.mark.parametrize("sign", "\u200b\u200f\u202a\u202e\u2066\u2069\ufeff\u061c\x9b\x7f")
def test_no_sign_hides_or_turns_text(sign: str) -> None:
    assert sign not in safe(f"a{sign}b") and safe(f"a{sign}b").isascii()


def test_changes_have_signs() -> None:
    assert [format_change(n) for n in (1_500_000, -20, 0)] == ["+1.5 MB", "-20 B", "+0 B"]


def test_an_inspection_is_cut_and_tells_how_to_see_all() -> None:
    many = tuple(pip(f"p{n:02}") for n in range(20))
    seen = Inspection(
        path="a", kind="sif", arch="", size_bytes=1, identity="", contents=Contents(software=many)
    )
    text = render_inspection(seen)
    assert "p14" in text and "p15" not in text and "… and 5 smaller: limpet inspect --all" in text
    assert "p19" in render_inspection(seen, all_packages=True)


# ---- the page ------------------------------------------------------------------------------------

EVIL = "</script><script>alert(1)</script><!--\u2028\u202e\x00&quot;"


def evil_report() -> Report:
    one = Software(name=EVIL, version=EVIL, manager="pip", license=EVIL, size_bytes=5, files=1)
    seen = Inspection(
        path=EVIL,
        kind="sif",
        arch="",
        size_bytes=1,
        identity="",
        contents=Contents(software=(one,)),
    )
    finding = Finding(code=EVIL, severity="error", what=EVIL, evidence=(EVIL,), cure=EVIL)
    graph = plan_graph(seen.contents or Contents())
    return Report(
        limpet="1",
        images=(ImageReport(seen=seen, graph=graph, findings=(finding,), notes=(EVIL,)),),
    )


def test_data_cannot_leave_their_element() -> None:
    page = render_page(evil_report())
    assert page.count("</script>") == 2 and page.count("<script") == 2
    text = page.partition('id="data">')[2].partition("</script>")[0]
    assert not set("<>&\u2028\u202e\x00") & set(text)
    shown = json.loads(text)["images"][0]["path"]
    assert shown == "</script><script>alert(1)</script><!--\\u2028\\u202e\\x00&quot;"


def test_the_page_asks_nobody_and_allows_only_its_own_script() -> None:
    page = render_page(evil_report())
    policy = page.partition('Policy" content="')[2].partition('"')[0]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert not re.search(r"(src|href)=\"?(https?:)?//|@import|url\(", page)
    script = _part("page.js")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", script)


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast of two colours `#rrggbb`."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_on_every_colour() -> None:
    schemes = re.findall(r":root \{(.*?)\}", _part("page.css"), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", scheme))
        fills = ["pip", "conda", "base", "system", "other", *(f"flame{n}" for n in range(5))]
        pairs = [("ink", name) for name in (*fills, "page", "card", "mark")]
        words = ("soft", "link", "error", "warning", "note", "added", "removed")
        pairs += [(name, ground) for name in words for ground in ("page", "card")]
        for text, ground in pairs:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
