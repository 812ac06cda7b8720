"""Keys, layouts, origins: what is decided before anything is read."""

from __future__ import annotations

import msgspec
import pytest

from limpet.core.errors import LockError
from limpet.core.facts import Interpreter, Libc
from limpet.core.lock import Artifact, Lock, LockedBase, LockedPackage
from limpet.core.piece import build_key, check_fits, direct_url, is_wheel, piece_key, plan_layout
from limpet.tools.bytecode import JOB_BYTES, JOB_MODULES, Source, byte_code_path, plan_jobs

PYTHON = Interpreter(path="/usr/bin/python3", version="3.13.5", prefix="/usr", magic="f30d0d0a")
GLIBC = Libc(family="glibc", version="2.41")


def package(filename: str, kind: str = "wheel", **fields: str) -> LockedPackage:
    artifact = Artifact(kind=kind, filename=filename, **fields)  # type: ignore[arg-type]
    return LockedPackage(name="demo", version="1.0", artifact=artifact)


def on(digest: str, apt: tuple[str, ...] = ()) -> Lock:
    base = LockedBase(reference="debian:trixie", digest=digest, arch="x86_64")
    return Lock(base=base, python="3.13.5", interpreter="/usr/bin/python3", apt=apt)


def key(sha256: str = "aa", python: Interpreter = PYTHON, **changes: object) -> str:
    options = {"layout": plan_layout(python), "compressor": "zstd", **changes}
    return piece_key(sha256, interpreter=python, **options)  # type: ignore[arg-type]


def test_the_key_of_a_piece_never_changes_by_itself() -> None:
    # If this fails, every cache is made anew: raise FORMAT when bytes change, and only then.
    assert key() == "61b927f77ff38f10bcd19ed514ef04ede194b84b6b3672bba124efd8c145659e"


def test_the_key_of_a_piece_changes_with_what_its_bytes_depend_on() -> None:
    other_magic = msgspec.structs.replace(PYTHON, magic="cb0d0d0a")
    other_patch = msgspec.structs.replace(PYTHON, version="3.13.9")
    keys = [
        key(),
        key("bb"),
        key(python=other_magic),
        key(compressor="gzip"),
        key(layout=plan_layout(PYTHON, "/opt/other")),
        key(direct_url={"url": "file:./demo"}),
    ]
    assert len(set(keys)) == len(keys)
    assert key(python=other_patch) == key()


def test_a_build_is_kept_for_its_base_and_python() -> None:
    sdist = package("demo-1.0.tar.gz", "sdist", sha256="aa")
    commit = package("", "vcs", url="git+https://x/y", commit="c0ffee")
    other_patch = msgspec.structs.replace(PYTHON, version="3.13.9")
    keys = {
        build_key(which, lock=lock, interpreter=python)
        for which in (sdist, commit)
        for lock in (on("sha256:1"), on("sha256:2"), on("sha256:1", apt=("gcc=14",)))
        for python in (PYTHON, other_patch)
    }
    assert len(keys) == 12


def test_an_archive_may_be_a_wheel() -> None:
    assert is_wheel(package("demo-1.0-py3-none-any.whl", "archive").artifact)
    assert not is_wheel(package("demo-1.0.tar.gz", "archive").artifact)


def test_origins_are_those_of_pep_610() -> None:
    vcs = package("", "vcs", url="git+https://x/y.git", commit="c0", subdirectory="s").artifact
    assert direct_url(vcs) == {
        "url": "https://x/y.git",
        "subdirectory": "s",
        "vcs_info": {"vcs": "git", "commit_id": "c0"},
    }
    archive = package("a.tar.gz", "archive", url="https://x/a.tar.gz", sha256="aa").artifact
    assert direct_url(archive) == {
        "url": "https://x/a.tar.gz",
        "archive_info": {"hashes": {"sha256": "aa"}},
    }
    near = package("", "directory", path="sub/demo").artifact
    assert direct_url(near) == {"url": "file:./sub/demo", "dir_info": {}}
    far = package("", "directory", path="/srv/my demo").artifact
    assert direct_url(far) == {"url": "file:///srv/my%20demo", "dir_info": {}}
    assert direct_url(package("demo-1.0-py3-none-any.whl").artifact) is None


@pytest.mark.parametrize(
    ("tag", "fits"),
    [
        ("py3-none-any", True),
        ("cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("cp313-cp313-linux_x86_64", True),
        ("cp313-cp313-manylinux_2_17_aarch64", False),
        ("cp313-cp313-musllinux_1_2_x86_64", False),
        ("cp313-cp313-win_amd64", False),
    ],
)
def test_a_wheel_for_another_machine_is_refused(tag: str, fits: bool) -> None:
    wheel = package(f"demo-1.0-{tag}.whl")
    if fits:
        check_fits(wheel, arch="x86_64", libc=GLIBC)
        return
    with pytest.raises(LockError, match="not for this base"):
        check_fits(wheel, arch="x86_64", libc=GLIBC)


def test_jobs_are_cut_by_count_and_size() -> None:
    small = [Source(f"{number:04}", 0, 0, 10, 8) for number in range(JOB_MODULES + 1)]
    assert [len(chunk) for chunk in plan_jobs(small)] == [JOB_MODULES, 1]
    large = [Source(f"{number}", 0, 0, JOB_BYTES // 2, 8) for number in range(5)]
    assert [len(chunk) for chunk in plan_jobs(large)] == [2, 2, 1]
    assert list(plan_jobs([])) == []


def test_byte_code_lies_where_python_looks() -> None:
    assert byte_code_path("a/b.py", "cpython-313") == "a/__pycache__/b.cpython-313.pyc"
    assert byte_code_path("six.py", "cpython-313") == "__pycache__/six.cpython-313.pyc"
