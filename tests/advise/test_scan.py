"""Environments below a folder, found and counted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from limpet.actions.advise import scan_folders
from limpet.core.errors import UsageError
from limpet.core.file_systems import find_mount
from limpet.tools import environments


def fill(folder: Path, *names: str, files: int = 1) -> Path:
    """Folders below `folder`, each with that many files."""
    for name in names:
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(files):
            (place / f"{number}.py").touch()
    return folder


def found(*roots: Path) -> dict[str, tuple[str, int]]:
    top = roots[0]
    return {
        os.path.relpath(one.path, os.path.realpath(top)): (one.manager, one.files)
        for one in scan_folders([str(root) for root in roots]).environments
    }


def test_each_kind_is_known_by_its_marks(tmp_path: Path) -> None:
    fill(tmp_path / "venv", "lib/python3.13/site-packages", files=3)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    fill(tmp_path / "cönda base", "conda-meta", "lib", "pkgs/a", files=2)
    fill(tmp_path / "cönda base", "envs/one/conda-meta", "envs/one/lib", files=5)
    fill(tmp_path / "home/.local/lib/python3.12/site-packages", "a", files=4)
    fill(tmp_path / "opt/spack", ".spack-db", "linux/gcc/py-numpy/.spack", "linux/gcc/py-numpy/lib")
    fill(tmp_path / "tools/hdf5", ".spack", "lib")
    fill(tmp_path / "easybuild", "software/Py/3/easybuild", "software/Py/3/lib", "modules/all")
    fill(tmp_path / "eb/Py/3", "easybuild", "bin")
    fill(tmp_path / "user/.spack", "cache", "linux")  # configuration, no installation
    fill(tmp_path / "work/lib", "data", files=9)
    assert found(tmp_path) == {
        "venv": ("venv", 4),
        "cönda base": ("conda", 6),
        "cönda base/envs/one": ("conda", 10),
        "home/.local/lib/python3.12": ("user", 4),
        "opt/spack": ("spack", 3),
        "tools/hdf5": ("spack", 2),
        "easybuild": ("easybuild", 3),
        "eb/Py/3": ("easybuild", 2),
    }


def test_largest_first_each_file_once(tmp_path: Path) -> None:
    for number in (3, 9, 6):
        place = fill(tmp_path / f"env{number}", "lib", files=number)
        (place / "pyvenv.cfg").touch()
    scan = scan_folders([str(tmp_path), str(tmp_path / "env9"), f"{tmp_path}/env3/.."])
    assert [one.files for one in scan.environments] == [10, 7, 4]
    assert scan.files == 21
    assert scan.folders == 7
    assert {one.owner for one in scan.environments} == {environments.owner_of(str(tmp_path))}


def test_links_are_never_followed(tmp_path: Path) -> None:
    fill(tmp_path / "env", "lib")
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "env" / "lib64").symlink_to("lib")
    (tmp_path / "env" / "lib" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to("env")
    assert found(tmp_path) == {"env": ("venv", 4)}
    assert found(tmp_path / "again") == {".": ("venv", 4)}  # a link that was asked for


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    fill(tmp_path, *(f"closed{number}" for number in range(30)), "open")
    for number in range(30):
        (tmp_path / f"closed{number}").chmod(0)
    scan = scan_folders([str(tmp_path)])
    for number in range(30):
        (tmp_path / f"closed{number}").chmod(0o700)
    assert scan.unreadable_count == 30
    assert len(scan.unreadable) == environments.TOLD_PLACES
    assert "Permission denied" in scan.unreadable[0]
    assert scan.files == 1


def test_a_folder_that_vanishes_meanwhile_is_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a", "b")
    real: Callable[[str], object] = os.scandir

    def vanishing(place: str) -> object:
        if place.endswith("/a"):
            raise FileNotFoundError(2, "No such file or directory", place)
        return real(place)

    with monkeypatch.context() as patch:  # pytest removes tmp_path by the same function
        patch.setattr(environments.os, "scandir", vanishing)  # type: ignore[attr-defined]
        scan = scan_folders([str(tmp_path)])
    assert (scan.files, scan.unreadable_count) == (1, 1)


def test_an_error_in_a_thread_ends_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(environments, "classify", broken)
    with pytest.raises(RuntimeError, match="a mistake"):
        scan_folders([str(tmp_path)])


def test_a_hundred_thousand_entries(tmp_path: Path) -> None:
    """As many as a handful of conda environments; counted by another way of walking, too."""
    for number in range(4):
        env = tmp_path / f"group{number % 2}" / f"env{number}"
        for package in range(50):
            folder = env / "lib" / "python3.13" / "site-packages" / f"package{package}"
            for below in ("", "core", "tests", "data", "util"):
                place = folder / below
                place.mkdir(parents=True, exist_ok=True)
                for name in range(98 + number):
                    os.close(os.open(place / f"{name}.py", os.O_CREAT))
        (env / "conda-meta").mkdir()
    scan = scan_folders([str(tmp_path)])
    expected = {
        os.path.realpath(env): sum(len(files) for _, _, files in os.walk(env))
        for env in tmp_path.glob("group*/env*")
    }
    assert {one.path: one.files for one in scan.environments} == expected
    assert [one.files for one in scan.environments] == [25_250, 25_000, 24_750, 24_500]
    assert scan.files + scan.folders > 100_000


def test_a_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        scan_folders([str(tmp_path / "none")])


MOUNTS = """\
22 28 0:20 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:22 / /pfs/my\\040work rw - lustre mgs@tcp:/work rw
25 22 0:23 / /home rw shared:2 - nfs4 server:/home rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homer", "ext4"),
        ("/home/ada/env", "nfs4"),
        ("/pfs/my work/env", "lustre"),
        ("/proc/1", "proc"),
    ],
)
def test_the_kind_of_file_system(path: str, kind: str) -> None:
    assert find_mount(path, MOUNTS).kind == kind
