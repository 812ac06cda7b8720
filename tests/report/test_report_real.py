"""Reports of real images, looked at in a real browser; `inspect` and `diff` of the same images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from selenium.webdriver.common.keys import Keys

from limpet.actions.report import Found, make_report
from limpet.report.page import render_page
from tests.conftest import Limpet, SharedOnce
from tests.report.browser import Browser
from tests.report.trees import FACTS, SITE, package, write_image

pytestmark = pytest.mark.real

SIZES = [(390, 844), (1280, 900)]
EVIL = "</script><img src=x onerror=document.title='owned'>\u202egnp.\x1b[2J\x07"
FOCUS = "document.activeElement"


@pytest.fixture(scope="session")
def page(
    shared_once: SharedOnce, run_folder: Path, pair: tuple[Path, Path], cache_dir: Path
) -> Path:
    """The report on both images, started."""

    def make() -> str:
        report = make_report([str(path) for path in pair], statement="import requests")
        place = run_folder / "pair.html"
        place.write_text(render_page(report))
        return str(place)

    return Path(shared_once("report-page", make))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_page_in_a_browser(
    browser: Browser, page: Path, width: int, height: int, scheme: str
) -> None:
    browser.requested()
    browser.show(page, width=width, height=height, scheme=scheme)
    assert browser.log() == []
    asked = [address for address in browser.requested() if not address.startswith("data:")]
    assert asked == [page.as_uri()]
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("document.querySelectorAll('#treemap .box').length") > 10
    assert browser.ask("document.querySelectorAll('.flame .box').length") > 10
    inside = """(() => {
        const map = document.getElementById('treemap').getBoundingClientRect();
        return [...document.querySelectorAll('#treemap .box')].every((box) => {
            const one = box.getBoundingClientRect();
            return one.left >= map.left - 1 && one.right <= map.right + 1
                && one.top >= map.top - 1 && one.bottom <= map.bottom + 1;
        }); })()"""
    assert browser.ask(inside)
    dark = browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert dark == (scheme == "dark")
    headings = browser.ask("[...document.querySelectorAll('h1, h2')].map((e) => e.textContent)")
    assert headings[0] == "old" and "Difference" in headings and "Licences" in headings
    rows = "[...document.querySelectorAll('#difference tbody tr')].map((r) => r.innerText)"
    assert any(row.startswith("tabulate") and "removed" in row for row in browser.ask(rows))


def test_a_page_by_keyboard(browser: Browser, page: Path) -> None:
    browser.show(page, width=1280, height=900)
    browser.press(Keys.TAB)
    assert browser.ask(f"{FOCUS}.className") == "skip"
    browser.ask("document.querySelector(\"#treemap [tabindex='0']\").focus()")
    first = browser.ask(f"{FOCUS}.getAttribute('aria-label')")
    browser.press(Keys.ARROW_RIGHT)
    second = browser.ask(f"{FOCUS}.getAttribute('aria-label')")
    assert second != first and browser.ask(f"{FOCUS}.classList.contains('box')")
    assert browser.ask(f"getComputedStyle({FOCUS}).outlineStyle") == "solid"
    assert browser.ask("document.querySelectorAll(\"#treemap [tabindex='0']\").length") == 1
    # one stop for the whole treemap: the next one is behind it
    browser.press(Keys.TAB)
    assert not browser.ask(f"Boolean({FOCUS}.closest('#treemap'))")
    choose = "document.querySelector(\"#treemap .box[data-name='idna']\")"
    browser.ask(f"{choose}.focus()")
    browser.press(Keys.ENTER)
    assert browser.ask("document.querySelector('#answer h3').textContent").startswith("idna 3.")
    assert browser.ask("document.querySelectorAll('#answer svg g').length") == 2
    assert "requests" in browser.ask("document.querySelector('#answer .columns').innerText")
    # the flame chart enlarges and goes back
    bars = "document.querySelectorAll('.flame .box').length"
    before = browser.ask(bars)
    browser.ask("[...document.querySelectorAll('.flame .box')].at(-1).focus()")
    browser.press(Keys.ENTER)
    assert browser.ask(bars) < before
    browser.press(Keys.ESCAPE)
    assert browser.ask(bars) == before
    # the other image
    browser.ask("document.querySelectorAll('#chooser button')[1].click()")
    assert browser.ask("document.querySelector('h1').textContent") == "new"
    assert browser.log() == []


def evil_image(folder: Path) -> Path:
    """Everything that an image can say of itself, said with ill will."""
    facts = msgspec.structs.replace(
        FACTS, name=EVIL, labels={EVIL: EVIL, "__proto__": "x"}, env={"constructor": EVIL}
    )
    member = package("alpha", "1", f"Summary: {EVIL}", f"License: {EVIL}")
    return write_image(
        folder / "evil <b>.sif",
        {
            **member,
            f"{SITE}/e-1.dist-info/METADATA": (
                f"Name: {EVIL}\nVersion: {EVIL}\nRequires-Dist: alpha\n\n".encode()
            ),
            f"{SITE}/p-1.dist-info/METADATA": b"Name: __proto__\nVersion: 1\n\n",
            "usr/<script>alert(1)</script>/x": b"x" * 500,
            "usr/lib/os-release": b'PRETTY_NAME="\x1b[2J"\n',
        },
        facts=facts,
        requested=("constructor", "alpha"),
    )


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_hostile_image_harms_no_page(
    browser: Browser, tmp_path: Path, width: int, height: int
) -> None:
    place = tmp_path / "evil.html"
    report = make_report([str(evil_image(tmp_path))] * 2, starts=False)
    place.write_text(render_page(report))
    browser.requested()
    browser.show(place, width=width, height=height)
    assert browser.log() == []
    assert [one for one in browser.requested() if not one.startswith("data:")] == [place.as_uri()]
    assert browser.ask("document.title") != "owned"
    assert browser.ask("document.querySelectorAll('img, iframe, b b').length") == 0
    assert browser.ask("document.querySelectorAll('script').length") == 2
    assert browser.ask("document.documentElement.scrollWidth") <= width
    text = str(browser.ask("document.body.innerText"))
    assert "onerror=document.title='owned'" in text and "\\u202egnp" in text
    assert "\u202e" not in text and "\x1b" not in text


def test_a_hostile_image_harms_no_terminal(limpet: Limpet, tmp_path: Path) -> None:
    image = evil_image(tmp_path)
    plain = write_image(tmp_path / "plain.sif", package("alpha"))
    for words in (
        ("inspect", image),
        ("inspect", image, "--all"),
        ("inspect", image, "--labels"),
        ("inspect", image, "--why", "alpha"),
        ("diff", plain, image),
    ):
        done = limpet(*words)
        assert done.returncode == (1 if words[0] == "diff" else 0), done.stderr
        assert not set("\x1b\x07\u202e") & set(done.stdout + done.stderr)


def test_a_report_is_written_once(limpet: Limpet, pair: tuple[Path, Path], tmp_path: Path) -> None:
    image = pair[1]
    page = tmp_path / "a page.html"
    done = limpet("report", image, "-o", page, "--no-start")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"Wrote {page}\n" and page.stat().st_size > 30_000
    assert "not started" in page.read_text()
    again = limpet("report", image, "-o", page, "--no-start")
    assert again.returncode != 0 and "--force" in again.stderr
    assert limpet("report", image, "-o", page, "--no-start", "--force").returncode == 0
    nowhere = limpet("report", image, "-o", tmp_path / "no" / "page.html")
    assert nowhere.returncode != 0 and "does not exist" in nowhere.stderr


def test_what_is_timed(pair: tuple[Path, Path]) -> None:
    found: list[Sequence[str]] = []

    def find(image: str, names: Sequence[str], timeout_s: float, config: str) -> Found:
        found.append(names)
        return (), ()

    report = make_report([str(pair[1])], timeout_s=120, find=find)
    imports = report.images[0].imports
    assert imports and imports.statement == "import requests" and not imports.failure
    modules = {span.module: span for span in imports.spans}
    assert "urllib3" in modules and modules["requests"].level == 0
    assert modules["requests"].total_us >= modules["urllib3"].total_us > 0
    assert found == [("requests",)]
    broken = make_report([str(pair[1])], statement="import nowhere", find=lambda *_: (None, ()))
    told = broken.images[0].imports
    assert told and "No module named 'nowhere'" in told.failure


def test_inspect_and_diff(limpet: Limpet, pair: tuple[Path, Path]) -> None:
    old, new = pair
    said = limpet("inspect", new).stdout
    assert "5 packages" in said and "Apache-2.0" in said and "\x1b" not in said
    contents = json.loads(limpet("inspect", new, "--json").stdout)["contents"]
    assert contents["requested"] == ["requests"]
    why = limpet("inspect", new, "--why", "idna").stdout
    assert "requests → idna" in why and "needed by  requests" in why
    diff = limpet("diff", old, new)
    assert diff.returncode == 1 and "-  tabulate" in diff.stdout and "~  requests" in diff.stdout
    told = json.loads(limpet("diff", old, new, "--json").stdout)
    assert {c["name"] for c in told["changes"] if c["kind"] == "removed"} == {"tabulate"}
    assert limpet("diff", new, new).returncode == 0
    bill = json.loads(limpet("inspect", new, "--sbom").stdout)
    needs = {one["ref"].partition("@")[0]: one["dependsOn"] for one in bill["dependencies"]}
    assert len(needs["pkg:pypi/requests"]) == 4 and len(needs["image"]) == 1
