"""Whether the loader would find what compiled modules need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limpet.core.elf import Elf
from limpet.core.image_contents import Environment, ImageContents, Library
from limpet.core.loading import judge_libraries
from limpet.formats.image_tree import opened_tree
from limpet.tools.contents.libraries import find_loader_folders, find_shared
from limpet.tools.images import read_image
from tests.check.images import SITE, contents, environment, findings, squashfs

MODULE = f"/{SITE}/pkg/_c.cpython-313-x86_64-linux-gnu.so"
REAL = Path(__file__).parents[1] / "gpu" / "needs-glibc-2.36.so"


def asks(path: str, needed: tuple[str, ...] = (), glibc: str = "", **more: Any) -> Library:
    asked = {"GLIBC": glibc} if glibc else {}
    return Library(path=path, elf=Elf(needed=needed, asked=asked, **more))


def codes(library: Library, *, libc: str = "2.41", **found: str) -> list[tuple[str, str]]:
    names: dict[str, tuple[str, ...]] = {
        path.rpartition("/")[2]: (path,) for path in found.values()
    }
    seen = ImageContents(
        libc=libc,
        libraries=(library,),
        loader=("/usr/lib", "/etc/extra"),
        found=names,
        environments=(
            Environment(prefix="/opt/env", python="3.13", virtual=True, folders=(f"/{SITE}",)),
        ),
    )
    return [(finding.code, finding.severity) for finding in judge_libraries(seen)]


@pytest.mark.parametrize(
    "place", ["/usr/lib/libx.so.1", "/etc/extra/libx.so.1", "/opt/env/lib/libx.so.1"]
)
def test_found_where_the_loader_looks(place: str) -> None:
    assert codes(asks(MODULE, needed=("libx.so.1",)), x=place) == []


@pytest.mark.parametrize(
    "search", ["$ORIGIN/../pkg.libs", "${ORIGIN}/../pkg.libs", f"/{SITE}/pkg.libs"]
)
def test_found_by_the_modules_own_path(search: str) -> None:
    library = asks(MODULE, needed=("libx.so.1",), rpath=(search,))
    assert codes(library, x=f"/{SITE}/pkg.libs/libx.so.1") == []


def test_missing() -> None:
    assert codes(asks(MODULE, needed=("libx.so.1",))) == [("LMP601", "error")]
    plugin = asks(f"/{SITE}/pkg/plugins/libp.so", needed=("libx.so.1",))
    assert codes(plugin) == [("LMP601", "warning")]


def test_off_the_path() -> None:
    library = asks(MODULE, needed=("libx.so.1",))
    elsewhere = f"/{SITE}/nvidia/lib/libx.so.1"
    assert codes(library, x=elsewhere) == [("LMP602", "note")]
    # a library beside another: the module that loads both has the path
    assert codes(asks(f"/{SITE}/p/liby.so", needed=("libx.so.1",)), x=f"/{SITE}/p/libx.so.1") == []


def test_what_the_host_brings() -> None:
    needed = ("libcuda.so.1", "libnvidia-ml.so.1", "ld-linux-x86-64.so.2", "libmpi.so.40")
    assert codes(asks(MODULE, needed=needed)) == [("LMP603", "note")]


def test_modules_of_another_python_are_not_loaded() -> None:
    other = MODULE.replace("-313-", "-312-")
    assert codes(asks(other, needed=("libx.so.1",))) == []
    assert (
        codes(asks(MODULE.replace("cpython-313-x86_64-linux-gnu", "abi3"), needed=("l.so",))) != []
    )


def test_a_newer_glibc() -> None:
    assert codes(asks(MODULE, glibc="2.38"), libc="2.36") == [("LMP604", "error")]
    assert codes(asks(MODULE, glibc="2.38"), libc="2.38") == []
    assert codes(asks(MODULE, glibc="2.38"), libc="musl") == []


def test_read_from_an_image(tmp_path: Path) -> None:
    tree = environment() | {
        f"{SITE}/pkg/_c.abi3.so": REAL.read_bytes(),
        f"{SITE}/pkg/damaged.so": b"\x7fELF" + b"\xff" * 200,
        f"{SITE}/pkg/script.so": "INPUT(-lx)",
        "usr/lib/x86_64-linux-gnu/libc.so.6": b"x" * 200_000 + b"stable release version 2.31.\n",
        "lib -> usr/lib": "",
        "etc/ld.so.conf": "include /etc/ld.so.conf.d/*.conf\n",
        "etc/ld.so.conf.d/a.conf": "# comment\n/opt/lib\n",
        "etc/ld.so.cache": b"glibc-ld.so.cache1.1\0libq.so\0/opt/cached/libq.so\0",
        "opt/lib/libq.so": b"",
        "opt/cached/libq.so": b"",
    }
    path = squashfs(tmp_path / "i.sqfs", tree)
    seen = contents(path)
    assert seen.libc == "2.31"
    assert {"/opt/lib", "/opt/cached", "/usr/lib/x86_64-linux-gnu"} <= set(seen.loader)
    assert [library.path for library in seen.libraries] == [f"/{SITE}/pkg/_c.abi3.so"]
    assert any("damaged.so" in trouble for trouble in seen.troubles)
    assert "LMP604" in findings(path)
    with opened_tree(read_image(str(path))) as members:
        assert find_shared(members)["libq.so"] == ("/opt/cached/libq.so", "/opt/lib/libq.so")
        assert "/usr/lib" in find_loader_folders(members)


@pytest.mark.parametrize("size", [0, 1, 4096, 131072, 131073, 400_000])
def test_files_of_images_can_be_sought_in(size: int, tmp_path: Path) -> None:
    data = bytes((number * 7) % 251 for number in range(size))
    path = squashfs(tmp_path / "i.sqfs", {"f": data, "g": "tail"})
    with opened_tree(read_image(str(path))) as members, members.members["f"].open() as file:
        assert file.read() == data
        for at in (size // 2, 0, max(0, size - 3), size + 10):
            file.seek(at)
            assert file.read(5) == data[at : at + 5]
        file.seek(-min(size, 2), 2)
        assert file.read() == data[size - min(size, 2) :]
