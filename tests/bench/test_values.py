"""What follows from a trace and from times."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from limpet.actions.bench import BenchRequest, bench, check_output
from limpet.core.bench import (
    BenchReport,
    Counted,
    Dropped,
    Installed,
    Start,
    Target,
    check_imports,
    compare,
    parse_strace,
    plan_imports,
    plan_saving,
    spread,
)
from limpet.core.errors import ExistsError, SpaceError, UsageError
from limpet.report.bench import render_bench, render_html, render_json, render_svg

ROOT = "/pfs/env ü"
TRACE = r"""
7  execve("/pfs/env \303\274/bin/python", ["python"], 0x1 /* 9 vars */) = 0
7  openat(AT_FDCWD</home/me>, "/etc/ld.so.cache", O_RDONLY) = 3</etc/ld.so.cache>
7  openat(AT_FDCWD</home/me>, "/pfs/env \303\274/lib/a.so", 0) = 3</pfs/env \303\274/lib/a.so>
7  read(3</pfs/env \303\274/lib/a.so>, "\177ELF"..., 832) = 832
7  mmap(NULL, 5000, PROT_READ, MAP_PRIVATE, 3</pfs/env \303\274/lib/a.so>, 0) = 0x7f0000000000
7  mmap(NULL, 900, PROT_READ, MAP_PRIVATE, 3</pfs/env \303\274/lib/a.so>, 0x1000) = 0x7f0000002000
7  newfstatat(AT_FDCWD</home/me>, "/pfs/env \303\274/lib/b.so", 0x7f, 0) = -1 ENOENT (No such file)
7  openat(AT_FDCWD</home/me>, "/pfs/env \303\274/lib/c.py", O_RDONLY) = -1 ENOENT (No such file)
7  newfstatat(3</pfs/env \303\274/lib/a.so>, "", {st_mode=S_IFREG|0644}, AT_EMPTY_PATH) = 0
7  openat(5</pfs/env \303\274>, "lib", O_RDONLY|O_DIRECTORY) = 6</pfs/env \303\274/lib>
7  getdents64(6</pfs/env \303\274/lib>, 0x1 /* 3 entries */, 32768) = 80
7  read(3</pfs/env \303\274/lib/a.so>,  <unfinished ...>
8  stat("/pfs/env elsewhere/lib/a.so", {st_mode=S_IFREG|0644, ...}) = 0
7  <... read resumed>"x"..., 100) = 60
8  readlink("/pfs/env \303\274/bin/python", "/usr/bin/python3", 4096) = 16
"""


def test_a_trace_is_added_up_for_one_folder() -> None:
    counted, mapped = parse_strace(TRACE, [ROOT], "/home/me")
    assert counted.paths == (f"{ROOT}/lib/a.so",)
    assert counted.files == 1
    # execve, two opens, a look in vain, an open in vain, a look at what is open, a listing, a link
    assert counted.metadata == 8
    assert (counted.reads, counted.read_bytes) == (2, 892)
    assert mapped == {f"{ROOT}/lib/a.so"}


def test_another_folder_of_a_similar_name_does_not_count() -> None:
    counted, _ = parse_strace(TRACE, ["/pfs/env"], "/home/me")
    assert (counted.files, counted.metadata) == (0, 0)


@pytest.mark.parametrize("names", [("numpy; import os",), ("",), ("a..b",), ("1x",), ("a b",)])
def test_only_names_of_modules_are_imported(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--import"):
        check_imports(names)


def test_names_count_once() -> None:
    assert check_imports(("b.c", "a", "b.c", "ä")) == ("b.c", "a", "ä")


def installed(name: str, *requires: str, asked: bool = False) -> Installed:
    module = name.lower().replace("-", "_")
    record = f"{module}/__init__.py,sha256=x,9\n{module}/deep/__init__.py,,\n_{module}.so,,\n"
    return Installed(name=name, requires=requires, asked=asked, record=record)


def test_what_was_asked_for_is_imported() -> None:
    some = (installed("Top-One", "below>=1", asked=True), installed("below"), installed("other"))
    assert plan_imports((*some, installed("pip", asked=True))) == ("top_one",)


def test_where_nothing_is_known_to_be_asked_for_it_is_what_nothing_needs() -> None:
    some = (installed("top", "Be_Low>=1", "extra-one ; extra == 'x'"), installed("be-low"))
    assert plan_imports((*some, installed("extra-one"), installed("pip"))) == ("top", "extra_one")
    assert plan_imports(()) == ()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rounds": 0}, "--rounds"),
        ({"processes": 0}, "--processes"),
        ({"targets": ()}, "nothing to measure"),
    ],
)
def test_nothing_is_measured_for_a_bad_request(wrong: dict[str, object], told: str) -> None:
    request = BenchRequest(targets=("x.sif",), imports=("json",))
    with pytest.raises(UsageError, match=told):
        bench(msgspec.structs.replace(request, **wrong))


@pytest.mark.parametrize("imports", [(), ("json",)])
def test_a_folder_without_a_python_is_told_as_such(
    imports: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no Python of its own"):
        bench(BenchRequest(targets=(str(tmp_path),), imports=imports, cache_dir=str(tmp_path)))


def test_launchers_are_measured_with_their_image(tmp_path: Path) -> None:
    python = tmp_path / "env/.limpet/versions/1/bin/python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    (tmp_path / "env/bin").symlink_to(".limpet/versions/1/bin")
    (tmp_path / "mine/bin").mkdir(parents=True)
    (tmp_path / "mine/bin/python").symlink_to(tmp_path / "env/bin/python")
    for name in ("env", "mine"):
        request = BenchRequest(targets=(str(tmp_path / name),), imports=("json",))
        with pytest.raises(UsageError, match="which starts an image"):
            bench(request)


def test_a_picture_that_could_not_be_written_is_refused_first(tmp_path: Path) -> None:
    there = tmp_path / "there.svg"
    there.touch()
    with pytest.raises(ExistsError):
        check_output(there, (".svg",), force=False)
    check_output(there, (".svg",), force=True)
    with pytest.raises(UsageError, match=r"must end in \.svg or \.html"):
        check_output(tmp_path / "x.png", (".svg", ".html"), force=False)
    with pytest.raises(SpaceError):
        check_output(tmp_path / "nowhere/x.svg", (".svg",), force=False)


def start(target: str, way: str, *taken_s: float) -> Start:
    return Start(target=target, way=way, state="cold", processes=1, taken=spread(taken_s))


def report() -> BenchReport:
    hostile = "/pfs/<b>&\x1b[31m"
    counted = Counted(means="strace", files=300, metadata=900, reads=20, read_bytes=5_000_000)
    folder = Target(
        path=hostile,
        kind="folder",
        file_system="lustre",
        counted=counted,
        dropped=Dropped(files=9, size_bytes=1000, left_bytes=400, unknown_files=2),
    )
    served = Counted(means="kernel", files=1, metadata=5)
    image = Target(path="env.sif", kind="image", file_system="nfs4", counted=served)
    return BenchReport(
        limpet="1",
        imports=("json",),
        machine="n1",
        cores=2,
        load=0.5,
        targets=(folder, image),
        starts=(start(hostile, "folder", 3.0, 2.0, 10.0), start("env.sif", "runtime", 1.0, 1.5)),
        savings=(plan_saving(folder, 8),),
    )


def test_medians_and_what_is_quickest() -> None:
    (slow, by), (quick, one) = compare(report().starts)
    assert (slow.taken.median_s, slow.taken.least_s, slow.taken.most_s) == (3.0, 2.0, 10.0)
    assert (quick.taken.rounds, one) == (2, 1.0)
    assert by == pytest.approx(2.4)


def test_the_table_says_what_is_not_known() -> None:
    text = render_bench(report())
    assert "400 B of 1.0 kB stayed in the page cache" in text
    assert "of 2 files that are not yours" in text
    assert "7,200 metadata operations become about 72" in text
    assert "\x1b" not in text
    [image] = [line for line in text.splitlines() if line.startswith("env.sif ") and "nfs4" in line]
    assert image.split() == ["env.sif", "1", "5", "?", "?", "nfs4"]


def test_pictures_are_well_formed_and_show_every_start() -> None:
    tree = ET.fromstring(render_svg(report()))
    texts = [node.text or "" for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert any("3.00 s (3 rounds)" in text for text in texts)
    assert any("env.sif (runtime), cold" in text for text in texts)
    bars = [float(node.get("width", "")) for node in tree.iter() if node.get("height") == "14"]
    assert bars[0] / bars[1] == pytest.approx(2.4, rel=0.01)
    page = render_html(report())
    assert "<b>" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_json_has_all_but_the_paths() -> None:
    told = json.loads(render_json(report()))
    assert told["starts"][0]["taken"]["median_s"] == 3.0
    assert told["targets"][0]["counted"]["metadata"] == 900
    assert told["savings"][0]["command"][:2] == ["limpet", "pack"]
