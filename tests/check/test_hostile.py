"""Images that want to do harm: to limpet, to the terminal, to readers of its JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from limpet.core.errors import LimpetError
from limpet.core.findings import Finding
from limpet.report.check import render_findings, render_sizes
from limpet.report.json_text import to_json
from tests.check.images import SITE, contents, environment, findings, package, sandbox, squashfs

EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\n\rgood"


def is_harmless(text: str) -> bool:
    return all(letter == "\n" or letter.isprintable() for letter in text)


def test_control_characters_in_names(tmp_path: Path) -> None:
    tree = environment() | {f"{SITE}/a\x1b[2Jb.py": "", "opt/\x9b31m": "", "opt/\xff\u202ex": ""}
    found = findings(squashfs(tmp_path / "i.sqfs", tree))
    assert len(found["LMP731"].evidence) == 3
    assert is_harmless(render_findings(list(found.values())))


def test_control_characters_in_metadata(tmp_path: Path) -> None:
    info = f"{SITE}/evil-1.0.dist-info/METADATA"
    line = EVIL.replace("\n", "").replace("\r", "")
    tree = environment() | {
        info: f"Name: ev{line}il\nVersion: 1{line}\nRequires-Dist: gone{line}\n"
        "Requires-Dist: gone2\n"
    }
    path = squashfs(tmp_path / "i.sqfs", tree)
    found = list(findings(path).values())
    (env,) = [env for env in contents(path).environments if env.virtual]
    told = render_findings(found) + render_sizes(env.packages, ())
    assert "gone2" in told and is_harmless(told)


def test_links_that_lead_out_lead_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("Name: stolen\nVersion: 1\n")
    info = f"{SITE}/a-1.dist-info"
    tree = environment() | {
        f"{info}/METADATA -> {'../' * 40}{str(secret)[1:]}": "",
        f"{SITE}/b-1.dist-info/METADATA -> {secret}": "",
        f"{SITE}/c-1.dist-info/METADATA -> METADATA": "",
        "etc/ld.so.conf -> ../../../etc/ld.so.conf": "",
        "opt/env/pyvenv.cfg": "home = ../../../usr/bin\ninclude-system-site-packages = true\n",
    }
    for path in (squashfs(tmp_path / "i.sqfs", tree), sandbox(tmp_path / "box", tree)):
        seen = contents(path)
        names = {package.name for env in seen.environments for package in env.packages}
        assert names == {"a", "b", "c"}
        assert "stolen" not in str(seen)


def test_files_of_any_size_and_kind_in_a_folder(tmp_path: Path) -> None:
    root = sandbox(tmp_path / "box", environment() | package("a", "1.0"))
    site = root / SITE
    (site / "huge-1.dist-info").mkdir()
    with (site / "huge-1.dist-info/METADATA").open("wb") as file:
        file.write(b"Name: huge\nVersion: 1\n")
        file.truncate(1 << 40)
    with (site / "huge.so").open("wb") as file:
        file.write(b"\x7fELF" + b"\2\1\1" + b"\xff" * 57)
        file.truncate(1 << 40)
    os.mkfifo(site / "fifo.so")  # to open it would wait for ever
    os.mkfifo(site / "pyvenv.cfg")
    (root / "etc").mkdir(exist_ok=True)
    os.mkfifo(root / "etc/ld.so.conf")
    (root / "opt/loop").symlink_to("loop")
    shut = root / "shut"
    shut.mkdir()
    shut.chmod(0)
    try:
        seen = contents(root)
    finally:
        shut.chmod(0o755)
    names = {package.name for env in seen.environments for package in env.packages}
    assert names == {"a", "huge"}
    assert any("huge.so" in trouble for trouble in seen.troubles)


def test_a_fake_os_release_and_variables(tmp_path: Path) -> None:
    tree = environment() | {
        "etc/os-release": f"PRETTY_NAME='{EVIL}'\n",
        ".singularity.d/env/90.sh": f"PYTHONPATH='{EVIL}'\n$(touch /tmp/owned)\n`id`\n",
    }
    found = findings(squashfs(tmp_path / "i.sqfs", tree))
    assert is_harmless(render_findings(list(found.values())))


def test_damaged_images_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    noise = bytes((number * number) % 251 for number in range(5000))
    modules = {f"m{number}": f"x = {number}\n" for number in range(30)}
    tree = environment() | package("a", "1.0", "b", **modules)
    tree |= {"usr/lib/libc.so.6": noise, f"{SITE}/a/x.so": b"\x7fELF" + noise}
    tree |= {"opt/conda/conda-meta/a.json": '{"name": "a"}', "etc/ld.so.cache": noise}
    whole = squashfs(tmp_path / "i.sqfs", tree).read_bytes()
    read = 0
    for at in range(96, len(whole), 61):
        path = tmp_path / "damaged.sqfs"
        hurt = bytes(byte ^ 0x5A for byte in whole[at : at + 7])
        path.write_bytes(whole[:at] + hurt + whole[at + 7 :])
        try:
            findings(path)
            read += 1
        except LimpetError as error:
            assert str(path) in error.what
    assert read


@pytest.mark.parametrize(
    "text", [EVIL, "\ud800", "\udcff\udcfe", "\x7f\x80\x9f\u2028\u2066", "ä😀"]
)
def test_json_is_json_and_harmless(text: str) -> None:
    finding = Finding(code="LMP731", severity="note", what=text, evidence=(text,))
    said = to_json(finding)
    assert is_harmless(said)
    said.encode("utf-8")
    for value in (json.loads(said)["what"], msgspec.json.decode(said, type=Finding).what):
        if not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
            assert value == text
    if "\udcff" in text:
        assert json.loads(said)["what"] == "\\xff\\xfe"
