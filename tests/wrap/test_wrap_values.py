"""Which programs get a launcher, what is written about them, and the other ways to them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from limpet.core.errors import ImageError, LimpetError, UsageError
from limpet.core.fronts import check_kernel_name, render_kernel, render_module
from limpet.core.image import Ahead
from limpet.core.launcher import render_beside, render_launcher
from limpet.core.launcher_staged import relocate
from limpet.core.mpi import Consumer, ImageMpi
from limpet.core.recipe import Run
from limpet.core.seen import HostSeen, ImageSeen, Request
from limpet.core.wrap import (
    Wrap,
    WrapRequest,
    check_host_allowed,
    choose_programs,
    parse_path,
)
from tests.wrap.conftest import MACHINE, facts

FOUND = {name: f"/opt/env/bin/{name}" for name in ("python", "python3", "pip", "tool", "tool-x")}


def chosen(*, strict: bool = True, **request: object) -> list[str]:
    wanted = msgspec.convert(request, WrapRequest)
    return list(choose_programs(FOUND, wanted, title="small", strict=strict))


def test_only_and_except_take_names_and_patterns() -> None:
    assert chosen() == sorted(FOUND)
    assert chosen(only=["tool", "pyth*"]) == ["python", "python3", "tool"]
    assert chosen(excluded=["pip", "tool*"]) == ["python", "python3"]


def test_a_name_that_does_not_exist_is_an_error_except_after_a_rebuild() -> None:
    with pytest.raises(UsageError, match="no program tol") as raised:
        chosen(only=["tol"])
    assert "tool" in raised.value.why
    with pytest.raises(UsageError, match="no program nothing"):
        chosen(excluded=["nothing"])
    assert chosen(only=["tol", "pip"], strict=False) == ["pip"]


@pytest.mark.parametrize("request_", [{"only": ["a"], "excluded": ["b"]}, {"excluded": ["*"]}])
def test_contradictions(request_: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        choose_programs(FOUND, msgspec.convert(request_, WrapRequest), title="small")


def test_an_image_without_programs() -> None:
    with pytest.raises(ImageError, match="no programs"):
        choose_programs({}, WrapRequest(), title="small")


def test_the_path_of_a_foreign_image() -> None:
    docker = 'export PATH="/opt/conda/bin:/usr/bin"\n'
    later = "export PATH=/opt/more/bin:$PATH\n"
    assert parse_path([docker, later])[:3] == ("/opt/more/bin", "/opt/conda/bin", "/usr/bin")
    assert "/usr/local/bin" in parse_path([])


@pytest.mark.parametrize("run", [Run(variables="strict"), Run(home="none"), Run(home="private")])
def test_an_image_that_wants_to_be_apart_is_not_mixed_with_the_host(run: Run) -> None:
    image = ImageSeen(path="/i.sif", kind="sif", identity="i", title="i", facts=facts(run))
    with pytest.raises(ImageError, match="not made to be mixed"):
        check_host_allowed(image)
    check_host_allowed(msgspec.structs.replace(image, facts=None))
    check_host_allowed(msgspec.structs.replace(image, facts=facts()))


def test_a_kernelspec() -> None:
    spec = json.loads(render_kernel("/my env", "ästro"))
    assert spec["argv"][0] == "/my env/bin/python"
    assert spec["argv"][-1] == "{connection_file}"
    assert spec["display_name"] == "Python (ästro)"
    assert check_kernel_name("Astro-1.2") == "astro-1.2"
    with pytest.raises(UsageError):
        check_kernel_name("a b")


def test_modulefiles_quote_what_their_languages_would_evaluate() -> None:
    root = '/a $b [c] "d" \\e ä'
    lua = render_module(root, "t", lua=True)
    assert 'prepend_path(\'PATH\', "/a $b [c] \\"d\\" \\\\e ä/bin")' in lua
    tcl = render_module(root, "t", lua=False)
    assert tcl.startswith("#%Module")
    assert 'PATH "/a \\$b \\[c\\] \\"d\\" \\\\e \\u00e4/bin"' in tcl


HOST = HostSeen(
    runtime="/usr/bin/apptainer",
    runtime_kind="apptainer",
    runtime_version="1.4.5",
    arch=MACHINE,
    environment={},
    home="/home/me",
    real_home="/home/me",
    account_home="/home/me",
    state="/state",
    cwd="/",
)
IMAGE = ImageSeen(path="/it's.sif", kind="sif", identity="i-1", title="i", facts=facts())


def made(programs: dict[str, str] | None = None, host: bool = False, **launch: object) -> Wrap:
    return Wrap(
        limpet="0",
        number=7,
        image=IMAGE.path,
        source=IMAGE.path,
        identity=IMAGE.identity,
        title=IMAGE.title,
        programs=programs or {"tool": "/opt/env/bin/tool"},
        root_names=("usr", "etc"),
        request=WrapRequest(launch=msgspec.convert(launch, Request), host=host),
    )


def rendered(programs: dict[str, str] | None = None, **settings: Any) -> str:
    return render_launcher(made(programs, **settings), IMAGE, HOST, "/my $launchers")


def test_nothing_is_left_to_fill_in_and_nothing_of_the_plan_escapes_its_quotes() -> None:
    text = rendered(env=["A=$(touch x)@HOME@"], binds=["/da'ta"])
    assert not re.search(r"@[A-Z_]{3,}@", text.replace("$(touch x)@HOME@", ""))
    assert "_limpet_root='/my $launchers'\n" in text
    assert "_limpet_put A '$(touch x)@HOME@'" in text
    assert "_limpet_image='/it'\"'\"'s.sif'" in text


def test_what_these_launchers_never_need_is_not_in_them() -> None:
    bare = rendered() + "".join(render_beside(made(), IMAGE, HOST, "/d"))
    for word in ("ranks.sh", "_limpet_share", "mpi.sh", "_limpet_served=", "#if"):
        assert word not in bare


def test_programs_of_several_folders() -> None:
    text = rendered({"a": "/usr/bin/a", "b": "/usr/bin/b", "c": "/opt/c/bin/c"})
    assert 'c) _limpet_program=/opt/c/bin/"$_limpet_name" ;;' in text
    assert '*) _limpet_program=/usr/bin/"$_limpet_name" ;;' in text


def test_launchers_for_a_jobs_own_folder_differ_in_where_they_are_alone() -> None:
    text = rendered()
    moved = relocate(text, "/local/it's \\1", "/local/a.sif")
    assert "_limpet_root='/local/it'\"'\"'s \\1'\n" in moved
    assert "_limpet_image=/local/a.sif\n" in moved
    changed = zip(text.splitlines(), moved.splitlines(), strict=True)
    assert sum(one != other for one, other in changed) == 2
    assert relocate("#!/bin/sh\nexec true\n", "/a", "/b") == ""


def test_an_image_for_another_machine_gets_no_launchers() -> None:
    other = msgspec.structs.replace(IMAGE, arch="sparc")
    with pytest.raises(LimpetError, match="sparc"):
        render_launcher(
            Wrap(
                limpet="0",
                number=1,
                image=other.path,
                source=other.path,
                identity="i",
                title="i",
                programs={"a": "/a"},
                request=WrapRequest(),
            ),
            other,
            HOST,
            "/d",
        )


# As `core.launcher_text` excuses it: names that another file sets, lists that the shell splits.
EXCUSED = (
    "SC1007,SC1090,SC1091,SC2016,SC2034,SC2046,SC2086,SC2089,SC2090,SC2154,SC2163,SC2166,SC2221,SC2222,"
    "SC2295,SC3013,SC3044,SC3045,SC3054"
)


@pytest.mark.real
@pytest.mark.parametrize(
    ("variables", "home"),
    [("clean", "isolated"), ("strict", "private"), ("clean", "none"), ("host", "host")],
)
def test_the_scripts_are_clean(tmp_path: Path, variables: str, home: str) -> None:
    wrap = made(
        host=home != "none",
        binds=["/data", "/b:/c:ro"],
        env=["A", "B=1", "PYTENSOR_FLAGS"],
        variables=variables,
        home=home,
    )
    mpi = ImageMpi(consumers=(Consumer(name="mpi4py", needs={}),))
    own = msgspec.structs.replace(facts(), places=("/it's", "/home/me/$x"), mpi=mpi)
    ahead = Ahead(ranges=((900_000, 50_000), (0, 300_000), (400_000, 8_000)))
    image = msgspec.structs.replace(IMAGE, facts=own, ahead=ahead)
    links = {"/appl": "/pfs/appl", "/it's": "/pfs/it's $x"}
    host = msgspec.structs.replace(HOST, setuid=False, links=links)
    texts = {"tool": render_launcher(wrap, image, host, "/my $launchers")}
    texts |= render_beside(wrap, image, host, "/my $launchers")
    assert {"job.sh", "ranks.sh", "mpi.sh"} <= texts.keys()
    assert ("ahead.sh" in texts) is (home != "host")
    if home != "host":
        assert "_limpet_read 900000:50000" in texts["ahead.sh"]
        assert "_limpet_read 0:408000" in texts["ahead.sh"]  # a gap costs less than a process
    for name, text in texts.items():
        assert not re.search(r"(?m)@[A-Z_]{3,}@|^#(if|end)", text), name
        (tmp_path / name).write_text(text)
        for shell in filter(shutil.which, ("dash", "bash")):
            parsed = subprocess.run([shell, "-n", name], cwd=tmp_path, capture_output=True)
            assert parsed.returncode == 0, parsed.stderr
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(
        [shellcheck, "-s", "sh", "-e", EXCUSED, *texts],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
