"""What cannot be packed: a clear word, and a disk as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from limpet.actions.pack import pack
from limpet.core.errors import BuildError
from limpet.core.events import Event
from limpet.core.pack import PackRequest
from tests.conftest import Base, Limpet
from tests.pack.conftest import make_tool

pytestmark = pytest.mark.real

Refused = Callable[..., str]


@pytest.fixture
def refused(limpet: Limpet, debian_base: Base, tmp_path: Path) -> Refused:
    """`refused(prefix, code, *flags)`: what limpet said; nothing has changed on the disk."""

    def pack_it(prefix: Path, code: int, *flags: str | Path, image: Path | None = None) -> str:
        image = image or tmp_path / "out" / "image.sif"
        image.parent.mkdir(exist_ok=True)
        before = listed(tmp_path)
        done = limpet("pack", prefix, "-o", image, "--base", debian_base.reference, *flags)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert listed(tmp_path) == before
        return done.stderr

    return pack_it


def listed(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def test_no_folder(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert "does not exist" in refused(tmp_path / "nothing", 2)
    assert "is no folder" in refused(tmp_path / "file", 2)
    assert "is empty" in refused(tmp_path / "empty", 2)
    assert "the image's own" in refused(Path("/usr"), 2)


def test_an_image_inside_of_what_it_is_made_of(refused: Refused, tmp_path: Path) -> None:
    folder = make_tool(tmp_path / "tool")
    said = refused(folder, 2, image=folder / "image.sif")
    assert "which is to be packed into it" in said


def test_an_image_that_is_there(refused: Refused, tmp_path: Path) -> None:
    folder = make_tool(tmp_path / "tool")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/image.sif").write_text("something", encoding="utf-8")
    assert "--force" in refused(folder, 11)


def test_files_that_cannot_be_read(refused: Refused, tmp_path: Path) -> None:
    folder = make_tool(tmp_path / "tool")
    (folder / "share/text").chmod(0)
    said = refused(folder, 10)
    assert f"{folder}/share/text" in said


def test_a_base_that_is_too_old(refused: Refused, tmp_path: Path) -> None:
    folder = make_tool(tmp_path / "tool")
    library = Path(__file__).parents[1] / "gpu" / "needs-glibc-2.36.so"
    newer = library.read_bytes().replace(b"GLIBC_2.36", b"GLIBC_2.99")
    (folder / "lib.so").write_bytes(newer)
    said = refused(folder, 5)
    assert "needs glibc 2.99" in said
    assert f"{folder}/lib.so" in said


def test_a_python_that_is_gone(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "lib/python3.13/site-packages").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("home = /no/such/bin\n", encoding="utf-8")
    (folder / "bin/python").symlink_to("/no/such/bin/python3.13")
    assert "leads to /no/such/bin/python3.13" in refused(folder, 2)


def test_a_python_that_the_base_has_not(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "lib/python3.9/site-packages").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n", encoding="utf-8")
    (folder / "bin/python").symlink_to("/usr/bin/python3")
    said = refused(folder, 5)
    assert "its packages are for 3.9" in said.replace("\n", " ")


def test_launchers_without_programs(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "file").touch()
    assert "--wrap" in refused(folder, 2, "--wrap", tmp_path / "launchers")


@pytest.mark.parametrize("when", ["start", "end"])  # of reading
@pytest.mark.parametrize("what", ["text", "new"])
def test_a_folder_that_changes_meanwhile(
    debian_base: Base, cache_dir: Path, home: Path, tmp_path: Path, when: str, what: str
) -> None:
    folder, image = make_tool(tmp_path / "tool"), tmp_path / "out" / "image.sif"
    image.parent.mkdir()
    image.write_text("the image of before", encoding="utf-8")

    def change(event: Event) -> None:
        if event.stage == "pack" and event.kind == when:
            (folder / "share" / what).write_text("changed just now", encoding="utf-8")

    request = PackRequest(
        prefix=str(folder),
        output=str(image),
        base=debian_base.reference,
        force=True,
        cache_dir=str(cache_dir),
        build_dir=str(tmp_path / "scratch"),
    )
    with pytest.raises(BuildError, match="changed while it was packed") as raised:
        pack(request, change)
    assert f"share/{what}" in raised.value.why
    assert image.read_text("utf-8") == "the image of before"
    assert [path.name for path in (image.parent).iterdir()] == ["image.sif"]
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == [".lock"]


def test_a_file_that_cannot_be_written_whole(
    debian_base: Base, cache_dir: Path, tmp_path: Path
) -> None:
    folder, image = make_tool(tmp_path / "tool"), tmp_path / "out" / "image.sif"
    image.parent.mkdir()
    image.write_text("the image of before", encoding="utf-8")
    limit = ["bash", "-c", 'ulimit -f 1000; exec "$@"', "bash"]
    source = Path(__file__).parents[2] / "src"
    words = [sys.executable, "-P", "-m", "limpet", "pack", folder, "-o", image, "--force"]
    done = subprocess.run(
        [*limit, *map(str, words), "--base", debian_base.reference],
        env={**os.environ, "PYTHONPATH": str(source), "LIMPET_CACHE_DIR": str(cache_dir)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 10, done.stderr
    assert image.read_text("utf-8") == "the image of before"
    assert [path.name for path in (image.parent).iterdir()] == ["image.sif"]
