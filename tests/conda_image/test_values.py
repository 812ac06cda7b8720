"""What conda packages mean for the bill of materials, the plan and the environment script."""

from __future__ import annotations

import json
from pathlib import Path

from limpet.core.activation import Setting
from limpet.core.conda import CondaPackage
from limpet.core.conda_record import render_history
from limpet.core.facts import BaseFacts
from limpet.core.lock import Lock, LockedBase
from limpet.core.plan import plan_build
from limpet.core.sbom import render_sbom
from limpet.core.skeleton import CondaFrame, plan_conda_frame, render_env_script
from tests.conda_image.locks import conda_package

BASE = LockedBase(reference="debian:trixie", digest="sha256:0", arch="x86_64")


def lock(*packages: CondaPackage) -> Lock:
    return Lock(base=BASE, python="3.13.5", interpreter="/opt/env/bin/python", conda=packages)


def test_the_bill_has_conda_packages_by_their_own_name() -> None:
    package = conda_package("zlib", channel="https://c.org/conda-forge", license="Zlib")
    component = json.loads(render_sbom(lock(package), name="x", limpet_version="1"))["components"][
        1
    ]
    assert component["purl"] == (
        "pkg:conda/zlib@1.0?build=h0_0&channel=conda-forge&subdir=linux-64&type=conda"
    )
    assert component["licenses"] == [{"license": {"name": "Zlib"}}]


def test_the_bill_does_not_depend_on_the_locks_order() -> None:
    one, other = conda_package("a"), conda_package("b")
    texts = {
        render_sbom(lock(*some), name="x", limpet_version="1")
        for some in ((one, other), (other, one))
    }
    assert len(texts) == 1


def test_neither_bill_nor_history_name_a_folder_of_this_machine() -> None:
    package = conda_package(
        "zlib", channel="file:///home/me/channel", url="file:///home/me/channel/linux-64/z.conda"
    )
    assert "/home/me" not in render_sbom(lock(package), name="x", limpet_version="1")
    assert b"/home/me" not in render_history([package])
    assert b"+file:/linux-64::zlib-1.0-h0_0" in render_history([package]).replace(b"///", b"/")


def test_the_plan_says_what_is_fetched() -> None:
    plan = plan_build(
        lock(conda_package("a", size_bytes=5), conda_package("b")),
        BaseFacts(digest="sha256:0", arch="x86_64"),
        output=Path("x.sif"),
        layout="auto",
        compression="zstd",
        kept=(),
        kept_conda={"b"},
    )
    assert [(step.name, step.way) for step in plan.packages] == [("a", "fetched"), ("b", "kept")]
    assert plan.fetched_bytes == 5


def test_the_recipes_variables_win_over_activation() -> None:
    frame = CondaFrame(history=b"", settings=(Setting(name="A", value="activated"),))
    lines = render_env_script({}, {"A": "mine"}, frame).splitlines()
    assert lines.index("export A=activated") < lines.index("export A=mine")
    assert "export CONDA_PREFIX=/opt/env" in lines
    assert "export VIRTUAL_ENV=" in lines


def test_without_conda_there_is_no_trace_of_it() -> None:
    assert plan_conda_frame(lock()) is None
    assert "CONDA" not in render_env_script({}, {})
