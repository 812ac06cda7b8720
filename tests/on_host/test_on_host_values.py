"""What is mounted of a host, and what makes a Python of it the same one."""

from __future__ import annotations

import shlex

import msgspec
import pytest

from limpet.core.errors import BaseError, HostError, RecipeError
from limpet.core.host_python import (
    HostFile,
    HostPython,
    choose_folders,
    digest_host,
    render_check,
)
from limpet.core.lock import Lock, LockedBase, find_differences
from limpet.core.recipe_text import parse_recipe
from limpet.core.reference import parse_reference
from limpet.tools.host_python import check_host_python

PYTHON = HostPython(
    version="3.11.7",
    hexversion=0x030B07F0,
    cache_tag="cpython-311",
    prefix="/opt/cray/pe/python/3.11.7",
    machine="x86_64",
    libc="glibc 2.31",
    files=(
        HostFile(
            path="/opt/cray/pe/python/3.11.7/bin/python3.11",
            size_bytes=18,
            mtime_ns=1_700_000_000_123_456_789,
            sha256="a" * 64,
        ),
    ),
    folders=("/usr", "/opt/cray", "/home/me/.local/share/py"),
)


@pytest.mark.parametrize(
    ("needed", "more"),
    [
        ((), ()),
        (("/opt/cray/pe/python/3.11.7", "/usr/lib"), ()),
        (("/home/me/py/bin", "/home/me/py", "/home/me/py/lib"), ("/home/me/py",)),
        (("/pfs/me/py", "/pfs/other/lib"), ("/pfs/me/py", "/pfs/other/lib")),
    ],
)
def test_what_is_mounted(needed: tuple[str, ...], more: tuple[str, ...]) -> None:
    names = ("usr", "lib64", "proc", "tmp", "home", "root", "opt", "appl", "pfs", ".limpet")
    found = choose_folders(names, ("cray", "env", "limpet"), ("/pfs/me", "/pfs/users/me"), needed)
    assert found == ("/appl", "/lib64", "/usr", "/opt/cray", *more)


def test_a_home_at_the_top_hides_nothing() -> None:
    assert choose_folders(("usr",), (), ("/", ""), ()) == ("/usr",)


def test_the_digest_is_of_what_makes_it_the_same() -> None:
    same = digest_host(PYTHON)
    file = PYTHON.files[0]
    touched = msgspec.structs.replace(file, mtime_ns=1)
    other = msgspec.structs.replace(file, sha256="b" * 64)
    replace = msgspec.structs.replace
    assert digest_host(replace(PYTHON, files=(touched,), folders=("/usr",))) == same
    changed = (
        replace(PYTHON, files=(other,)),
        replace(PYTHON, libc="glibc 2.38"),
        replace(PYTHON, prefix="/elsewhere"),
        replace(PYTHON, version="3.11.9"),
    )
    assert len({same, *map(digest_host, changed)}) == 5


def test_the_check_is_quoted_for_the_shell() -> None:
    odd = "/opt/it's $HOME %s `x`/bin/python"
    file = msgspec.structs.replace(PYTHON.files[0], path=odd)
    variables = {"LD_LIBRARY_PATH": "/opt/a b"}
    script = render_check(msgspec.structs.replace(PYTHON, files=(file,), variables=variables))
    assert shlex.quote(odd) in script
    assert "export LD_LIBRARY_PATH='/opt/a b'\"${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\"" in script
    assert "'18 1700000000'" in script


def test_a_missing_python_is_told() -> None:
    with pytest.raises(HostError, match=r"which is not here") as raised:
        check_host_python(PYTHON, "/a.sif")
    assert "No such file" in raised.value.why


def test_references() -> None:
    found = parse_reference("host:/opt/a python/bin/python3")
    assert (found.scheme, found.path) == ("host", "/opt/a python/bin/python3")
    with pytest.raises(BaseError):
        parse_reference("host:")
    recipe = parse_recipe('[image]\non = "/opt/py/bin/python"\n', "limpet.toml")
    assert (recipe.image.base, recipe.image.on) == ("host:/opt/py/bin/python", "")
    with pytest.raises(RecipeError, match="exclude each other"):
        parse_recipe('[image]\non = "/opt/py/bin/python"\nbase = "debian:trixie"\n', "limpet.toml")


def test_a_lock_knows_what_the_base_had() -> None:
    base = LockedBase(reference="host:/p", digest="sha256:0", arch="x86_64")
    lock = Lock(base=base, python="3.11.7", interpreter="/p", provided={"numpy": "1.26.0"})

    def told(now: dict[str, str] | None) -> tuple[str, ...]:
        return find_differences(lock, recipe_sha256="", provided=now)

    assert told(None) == told({"numpy": "1.26.0", "more": "1"}) == ()
    assert told({"numpy": "2.0"}) == ("the base had numpy 1.26.0, and now has 2.0",)
    assert told({}) == ("the base had numpy 1.26.0, and now has none",)
