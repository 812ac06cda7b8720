"""Activation becomes exports: what is set, what is put before, what depends on the host."""

from __future__ import annotations

import subprocess

import pytest

from limpet.core.activation import (
    MARK,
    Activation,
    Capture,
    Setting,
    marked_variables,
    plan_activation,
    render_settings,
)

BEFORE = {"PATH": "/usr/bin", "PWD": "/"}


def capture(**after: str) -> Capture:
    return Capture(before=BEFORE, after={**BEFORE, **after})


def planned(
    one: Capture, marked: Capture | None = None, other: Capture | None = None
) -> Activation:
    return plan_activation(one, other or one, marked or one)


def test_what_scripts_put_around_a_value_stays_around_it() -> None:
    one = capture(PATH="/opt/env/x:/usr/bin", LD="/opt/env/lib:", SET="v", OURS="own", _="x")
    assert marked_variables(one).keys() == {"LD", "SET", "OURS"}
    marked = Capture(
        before=BEFORE,
        after={"PATH": "x", "LD": f"/opt/env/lib:{MARK}", "SET": "v", "OURS": MARK},
    )
    assert planned(one, marked).settings == (
        Setting(name="LD", value="/opt/env/lib", way="prepend"),
        Setting(name="OURS", value="own", way="default"),
        Setting(name="PATH", value="/opt/env/x", way="prepend"),
        Setting(name="SET", value="v"),
    )


def test_what_differs_between_hosts_is_left_out_and_named() -> None:
    one, other = capture(CACHE="/home/a/x", SAME="1", A="1"), capture(CACHE="/b/x", SAME="1")
    done = planned(one, other=other)
    assert done.host_dependent == ("A", "CACHE")
    assert [setting.name for setting in done.settings] == ["SAME"]


def test_what_scripts_put_aside_is_not_for_the_image() -> None:
    assert planned(capture(CONDA_BACKUP_CC="gcc", CONDA_SHLVL="2")).settings == ()


@pytest.mark.parametrize("value", ["plain", "with 'quotes' \"both\"", "a$b`c\\d}e", "two\nlines"])
@pytest.mark.parametrize(
    ("way", "unset", "there"),
    [
        ("set", "{}", "{}"),
        ("default", "{}", "before"),
        ("prepend", "{}", "{}:before"),
        ("append", "{}", "before:{}"),
    ],
)
@pytest.mark.real
def test_exports_say_it_in_shell(value: str, way: str, unset: str, there: str) -> None:
    (line,) = render_settings([Setting(name="NAME", value=value, way=way)])  # type: ignore[arg-type]
    for start, expected in (("unset NAME", unset), ("NAME=before", there)):
        script = f'{start}\n{line}\nprintf %s "$NAME"'
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == expected.format(value)
