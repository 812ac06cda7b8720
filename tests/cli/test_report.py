"""Values as text."""

from __future__ import annotations

import io
import json
import subprocess

import pytest

from limpet.core.errors import LimpetError
from limpet.core.events import Event
from limpet.core.image import ImageFacts
from limpet.core.inspection import Inspection, Package, Part
from limpet.core.lock import LockedBase
from limpet.report import progress
from limpet.report.errors import render_error
from limpet.report.inspect import render_inspection
from limpet.report.text import format_size, quote, safe

EVENTS = (
    Event(stage="base", kind="start"),
    Event(stage="fetch", done=1_000_000, total=2_000_000, unit="bytes"),
    Event(stage="fetch", kind="note", message="[bold]\x1b[2J"),
    Event(stage="wheels", done=3, total=7, unit="packages"),
    Event(stage="wheels", kind="end", done=7, total=7, unit="packages", message="all there"),
)


def test_lines_for_a_log() -> None:
    stream = io.StringIO()
    notify = progress.line_listener(stream)
    for event in EVENTS:
        notify(event)
    lines = [line.split("] ", 1)[1] for line in stream.getvalue().splitlines()]
    # amounts in between come every few seconds only
    assert lines == ["base: started", "fetch: [bold]\\x1b[2J", "wheels: all there (7/7 packages)"]
    stream = io.StringIO()
    notify = progress.line_listener(stream, interval_s=0)
    notify(EVENTS[1])
    assert stream.getvalue().endswith("] fetch: 1.0 MB of 2.0 MB\n")


def test_json_lines() -> None:
    stream = io.StringIO()
    with progress.shown("json", stream) as notify:
        for event in EVENTS:
            notify(event)
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [item["kind"] for item in said] == ["start", "progress", "note", "progress", "end"]
    assert said[1]["done"] == 1_000_000


def test_bars() -> None:
    stream = io.StringIO()
    with progress.shown("bars", stream) as notify:
        for event in EVENTS:
            notify(event)
    said = stream.getvalue()
    assert "base" in said and "7/7 packages" in said and "[bold]\\x1b[2J" in said


def test_silence() -> None:
    stream = io.StringIO()
    with progress.shown("none", stream) as notify:
        notify(EVENTS[0])
    assert stream.getvalue() == ""


def test_errors_in_colour_and_without() -> None:
    error = LimpetError("What.", now="Now.")
    assert render_error(error) == "limpet: What.\nNow.\n"
    assert render_error(error, colour=True).startswith("\033[1;31mlimpet:\033[0m What.")


@pytest.mark.parametrize("word", ["", "a", "a b", "it's", "$x`y`", "\x1b[1m", "a\nb'\\n", "ä", "~"])
def test_quoted_words_come_back(word: str) -> None:
    done = subprocess.run(["bash", "-c", f"printf %s {quote(word)}"], capture_output=True)
    assert done.stdout == word.encode()
    assert not set(quote(word)) & {"\x1b", "\n"}


def test_text_cannot_move_the_cursor() -> None:
    assert safe("a\x1b[2J\r\n\x9bä\u202e\udcff") == "a\\x1b[2J\\r\\n\\x9bä\\u202e\\udcff"


def test_sizes() -> None:
    assert [format_size(n) for n in (0, 999, 1000, 2.5e6, 3e9, 4e12)] == [
        *("0 B", "999 B", "1.0 kB", "2.5 MB", "3.00 GB", "4000.00 GB"),
    ]


def test_an_inspection() -> None:
    base = LockedBase(reference="debian:trixie", digest="sha256:1", arch="x86_64")
    facts = ImageFacts(
        limpet="0.1", name="n", layout="merged", arch="x86_64", python="3.13.5", base=base
    )
    text = render_inspection(
        Inspection(
            path="/a\n.sif",
            kind="sif",
            arch="x86_64",
            size_bytes=2_000_000,
            identity="i",
            facts=facts,
            parts=(Part(name="root", kind="root partition", size_bytes=1_000_000),),
            packages=(Package(name="evil\x1b[2J", version="1.0"),),
        )
    )
    for said in ("/a\\n.sif", "3.13.5 in /opt/env", "debian:trixie (sha256:1)", "1.0 MB  root"):
        assert said in text
    assert "1 packages\n  evil\\x1b[2J 1.0\n" in text
    assert "isolated" in text and "\x1b" not in text
