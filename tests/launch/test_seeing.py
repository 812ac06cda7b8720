"""Under which names things of the host are seen."""

from __future__ import annotations

import pytest

from limpet.core.mounts import Mount
from limpet.core.seeing import is_own, plan_aliases, plan_temporaries

LINKS = {"/appl": "/pfs/appl", "/work": "/pfs/vol1", "/home": "/pfs/home"}


def same(*paths: str) -> list[Mount]:
    return [Mount(source=path, target=path) for path in paths]


@pytest.mark.parametrize(
    ("path", "others"),
    [
        ("/pfs/appl/x", {"/appl/x"}),
        ("/appl/x", {"/pfs/appl/x"}),
        ("/pfs", {"/appl", "/work"}),  # not /home, which would lie over the home
        ("/pfs/vol1", {"/work"}),
        ("/pfs/home/other/x", {"/home/other/x"}),
        ("/pfs/applications", set()),
        ("/data", set()),
        ("/tmp/x", set()),
    ],
)
def test_other_names(path: str, others: set[str]) -> None:
    aliases = plan_aliases(same(path), LINKS, home="/home/u")
    assert {mount.target for mount in aliases} == others


def test_an_alias_keeps_what_the_mount_is() -> None:
    (alias,) = plan_aliases([Mount(source="/appl", target="/appl", writable=False)], LINKS, home="")
    assert alias == Mount(source="/appl", target="/pfs/appl", writable=False)
    elsewhere = [Mount(source="/appl/x", target="/data")]
    assert plan_aliases(elsewhere, LINKS, home="") == ()
    assert plan_aliases(same("/appl/x", "/pfs/appl/x"), LINKS, home="") == ()


def test_an_alias_never_lies_over_the_image() -> None:
    links = {"/odd": "/opt/env/lib", "/bin2": "/usr/bin"}
    assert plan_aliases(same("/odd", "/bin2"), links, home="", prefix="/opt/env") == ()


@pytest.mark.parametrize(
    ("path", "own"),
    [("/usr/lib", True), ("/opt", True), ("/opt/x", False), ("/opt/env/x", True), ("/u", False)],
)
def test_what_is_the_images_own(path: str, own: bool) -> None:
    assert is_own(path, "/opt/env") is own


def test_temporary_folders() -> None:
    folders = ("/local/job1", "/local/job1", "/tmp/x", "/home/u/tmp", "/home", "/usr/tmp")
    found = plan_temporaries(folders, visible=("/tmp", "/home/u"), home="/home/u")
    assert found == tuple(same("/local/job1"))
    assert plan_temporaries(("/home/u/tmp",), visible=(), home="/home/u") == tuple(
        same("/home/u/tmp")
    )
