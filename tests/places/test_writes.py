"""From what two runs saw to findings."""

from __future__ import annotations

from typing import Any

import pytest

from limpet.core.findings import Finding
from limpet.core.writes import Attempt, Changed, ImportSeen, Setting, judge_imports

SETTING = Setting(image="a.sif", is_limpets=True, home="/home/u", timeout_s=5)
SITE = "/opt/env/lib/python3.13/site-packages/p"


def seen(outcome: str = "ok", *refused: str, **more: Any) -> ImportSeen:
    attempts = tuple(Attempt(event="open", path=path, refused=True) for path in refused)
    fields: dict[str, Any] = {"module": "p", "outcome": outcome, "attempts": attempts} | more
    return ImportSeen(**fields)


def layer(*paths: str, **more: Any) -> ImportSeen:
    return seen(changed=Changed(image=paths), **more)


def judge(plain: ImportSeen, over: ImportSeen, setting: Setting = SETTING) -> list[Finding]:
    return list(judge_imports([plain], [over], setting))


def test_nothing_to_tell() -> None:
    written = Attempt(event="open", path="/tmp/x", refused=False)
    assert judge(seen(attempts=(written,)), seen()) == []
    # neither the host's folders nor the home are the image
    assert judge(seen("ok", "/home/u/.x/y", "/tmp/z", "/run/w"), seen()) == []


def test_a_file_in_the_packages_own_folder_can_be_baked_in() -> None:
    (finding,) = judge(seen("failed", f"{SITE}/c.ini", last=("OSError",)), layer(f"{SITE}/c.ini"))
    assert (finding.code, finding.severity) == ("LMP801", "error")
    assert finding.evidence == (f"refused  {SITE}/c.ini", "OSError")
    assert "[warm]" in finding.cure and f'"c.ini" = "{SITE}/c.ini"' in finding.cure


@pytest.mark.parametrize(
    ("path", "again", "ours", "cure"),
    [
        ("/opt/cache/k", True, True, "--bind FOLDER_OF_YOURS:/opt/cache "),
        (f"{SITE}/c", True, True, "limpet overlay create"),
        ("/opt/cache/k", False, True, "[warm]"),
        ("/opt/cache/k", False, False, "--bind FOLDER_OF_YOURS:/opt/cache "),
        (f"{SITE}/c", False, False, "limpet overlay create"),
    ],
)
def test_the_cure_fits(path: str, again: bool, ours: bool, cure: str) -> None:
    setting = Setting(image="a.sif", is_limpets=ours, home="", timeout_s=5)
    over = layer(path, again=(path,) if again else ())
    (finding,) = judge(seen("ok", path), over, setting)
    assert (finding.code, finding.severity) == ("LMP802", "warning")
    assert cure in finding.cure


def test_a_package_of_the_table_gets_its_variable() -> None:
    over = layer(f"{SITE}/__pycache__/f.nbi", distribution="numba")
    (finding,) = judge(seen(distribution="numba"), over)
    assert "--env NUMBA_CACHE_DIR=/tmp/numba" in finding.cure
    over = layer("/opt/x", distribution="pytensor")
    (finding,) = judge(seen(distribution="pytensor"), over)
    assert "--env PYTENSOR_FLAGS=base_compiledir=/tmp/pytensor" in finding.cure


def test_a_path_is_told_once_and_folders_by_what_is_in_them() -> None:
    one = layer("/opt/c/k")
    other = ImportSeen(module="q", outcome="ok", changed=Changed(image=("/opt/c/k",)))
    found = judge_imports([seen("ok", "/opt/c"), other], [one, other], SETTING)
    assert [(f.what.split()[1], f.evidence) for f in found] == [("p", ("written  /opt/c/k",))]


def test_the_worst_comes_first() -> None:
    plain = [seen(), ImportSeen(module="q", outcome="hung"), ImportSeen(module="r", outcome="ok")]
    over = [
        seen(changed=Changed(home=("/.x",))),
        ImportSeen(module="q", outcome="hung"),
        ImportSeen(module="r", outcome="ok", changed=Changed(image=("/opt/r",))),
    ]
    found = judge_imports(plain, over, SETTING)
    assert [f.severity for f in found] == ["error", "warning", "note"]


@pytest.mark.parametrize(
    ("last", "cure"),
    [
        ("ModuleNotFoundError: No module named 'x'", "Add to the description: 'x'"),
        ("ImportError: libGL.so.1: cannot open shared object file: No such", "has libGL.so.1 to"),
        ("ValueError: 3", ""),
    ],
)
def test_why_it_fails_everywhere(last: str, cure: str) -> None:
    broken = seen("failed", last=(last,))
    (finding,) = judge(broken, broken)
    assert finding.code == "LMP806"
    assert cure in finding.cure if cure else finding.cure == ""


def test_the_layer_not_the_read_only_image_breaks_it() -> None:
    assert judge(seen(), seen("failed")) == []
