"""Our images in other people's readers, and other people's images in ours."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from limpet.core.errors import ImageError
from limpet.formats.squashfs import Front, Hot, Kept, Squashfs, compose
from limpet.formats.squashfs.compose import Source
from tests.formats.outside import IS_ROOT, run
from tests.formats.trees import Look, everything, image_of, looks, looks_on_disk, noise

pytestmark = pytest.mark.real


def _images(folder: Path) -> dict[str, Path]:
    """Images as limpet writes and composes them."""
    found = {}
    for name, options in (("zstd", {}), ("gzip", {"compressor": "gzip", "level": 9})):
        found[name] = folder / f"{name}.sqfs"
        found[name].write_bytes(image_of(everything(), **options))
    found["composed"] = folder / "composed.sqfs"
    with found["zstd"].open("rb") as source, found["composed"].open("wb") as out:
        image = Squashfs(source)
        compose(out, [Source(image), Source(image, "opt/env")], order=["opt/env/etc/long"])
    found["front"] = folder / "front.sqfs"
    front = Front(path="front/blocks", index="front/index", describe=lambda *_: b"index")
    with found["zstd"].open("rb") as source, found["front"].open("wb") as out:
        image = Squashfs(source)
        order = [path for path, node in image.walk() if node.is_file]
        compose(out, [Source(image)], order=order, front=front, hot=_hot())
    found["hot"] = folder / "hot.sqfs"
    with found["front"].open("rb") as source, found["hot"].open("wb") as out:
        image = Squashfs(source)
        compose(out, [Source(image)], order=["front/blocks", *order], hot=_hot())
    return found


def _hot() -> Hot:
    return Hot(read={"etc/long": ((0, 5000),)}, level=15, kept=Kept())


def _expected(path: Path, *, devices: bool) -> dict[str, Look]:
    found = looks(path.read_bytes())
    del found[""]
    unwanted = () if devices else ("char", "block")
    return {name: look for name, look in found.items() if look[0] not in unwanted}


def test_unsquashfs(shared_folder: Path) -> None:
    for name, path in _images(shared_folder).items():
        target = shared_folder / f"from {name}"
        run("unsquashfs", "-q", "-n", "-no-exit-code", "-d", target, path, plain=not IS_ROOT)
        devices = IS_ROOT
        expected = _expected(path, devices=devices)
        if not IS_ROOT:  # unsquashfs gives no suid bits away
            expected = {
                place: (kind, mode & 0o1777, held) for place, (kind, mode, held) in expected.items()
            }
        assert looks_on_disk(target, devices=devices) == expected
        small, twin = target / "etc/small", target / "etc/twin"
        assert small.stat().st_ino == twin.stat().st_ino
        listing = run("unsquashfs", "-lln", path)
        assert re.search(r"crw-rw-rw- 0/0 +1, +3 .*/dev/null", listing)
        assert re.search(r"brw-rw---- 0/0 +7, +0 .*/dev/loop0", listing)


@pytest.mark.parametrize("program", ["squashfuse", "squashfuse_ll"])
def test_squashfuse(program: str, shared_folder: Path) -> None:
    for name, path in _images(shared_folder).items():
        point = shared_folder / f"mounted {name}"
        point.mkdir()
        run(program, path, point, plain=False)  # who mounts is the one who can read it
        try:
            assert looks_on_disk(point, devices=True) == _expected(path, devices=True)
        finally:
            run("fusermount3", "-u", point, plain=False)


@pytest.mark.skipif(not IS_ROOT, reason="only root may mount with the kernel's own squashfs")
def test_the_kernel(shared_folder: Path) -> None:
    if "squashfs" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no squashfs")
    for name, path in _images(shared_folder).items():
        point = shared_folder / f"mounted {name}"
        point.mkdir()
        run("mount", "-o", "loop,ro", "-t", "squashfs", path, point, plain=False)
        try:
            assert looks_on_disk(point, devices=True) == _expected(path, devices=True)
        finally:
            run("umount", point, plain=False)


def _real_tree(folder: Path) -> Path:
    tree = folder / "tree"
    (tree / "sub/many").mkdir(parents=True)
    (tree / "empty").touch()
    (tree / "big").write_bytes(noise(300_000) + bytes(200_000) + b"x" * 131_072)
    (tree / "block").write_bytes(noise(131_072, 4))
    (tree / "sub/twin").hardlink_to(tree / "big")
    (tree / "sub/link").symlink_to("../big")
    os.mkfifo(tree / "sub/fifo")
    for i in range(500):
        (tree / "sub/many" / f"{'f' * 80}{i}").write_bytes(b"%d\n" % i)
    # mksquashfs gives zeros the place of the next file, which is compressible here.
    for name in ("sparse", "text-0"):
        with (tree / name).open("wb") as file:
            file.truncate(1_000_000)
    (tree / "text-1").write_bytes(b"".join(b"%d\n" % (i * i) for i in range(60_000)))
    (tree / "sub").chmod(stat.S_ISVTX | 0o775)
    return tree


@pytest.mark.parametrize(
    "options",
    [
        ["-comp", "gzip", "-Xcompression-level", "1"],
        ["-comp", "gzip", "-Xwindow-size", "10"],
        ["-comp", "xz", "-Xdict-size", "100%", "-Xbcj", "x86"],
        ["-comp", "zstd", "-Xcompression-level", "3", "-b", "1M"],
        ["-comp", "zstd", "-no-fragments", "-noI", "-noId"],
        ["-comp", "zstd", "-always-use-fragments", "-no-exports", "-b", "4K"],
    ],
)
def test_what_mksquashfs_makes(options: list[str], shared_folder: Path) -> None:
    tree, made = _real_tree(shared_folder), shared_folder / "made.sqfs"
    run("mksquashfs", tree, made, "-quiet", "-no-progress", *options, plain=False)
    expected = looks_on_disk(tree, devices=True)
    found = looks(made.read_bytes())
    del found[""]
    assert found == expected
    with made.open("rb") as file:
        image = Squashfs(file)
        assert image.find("big") is image.find("sub/twin")
        every = [path for path, node in image.walk() if node.is_file]
        for order in ([], ["sub/link", "sub/many/" + "f" * 80 + "7"], every):
            again = shared_folder / "again.sqfs"
            with again.open("wb") as out:
                compose(out, [Source(image)], order=order, hot=_hot() if order else None)
            run("unsquashfs", "-q", "-n", "-d", shared_folder / "again", again, plain=False)
            assert looks_on_disk(shared_folder / "again", devices=True) == expected
            shutil.rmtree(shared_folder / "again")


def test_lz4_is_refused_in_words(shared_folder: Path) -> None:
    tree, made = shared_folder / "tree", shared_folder / "made.sqfs"
    tree.mkdir()
    run("mksquashfs", tree, made, "-quiet", "-no-progress", "-comp", "lz4", plain=False)
    with made.open("rb") as file, pytest.raises(ImageError, match="lz4"):
        Squashfs(file)
