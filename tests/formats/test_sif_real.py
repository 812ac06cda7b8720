"""Our SIF files in Apptainer: listed, inspected, run, signed and verified."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from limpet.formats.sif import SifWriter, architecture_of, read_object, read_sif
from limpet.formats.squashfs import Entry, Source, Squashfs, compose, write_squashfs
from tests.formats.outside import run
from tests.formats.trees import image_of

pytestmark = pytest.mark.real
ARCHITECTURE = architecture_of(platform.machine())


def small_root() -> Iterator[Entry]:
    """Enough of a system to run a shell: the host's, with the libraries it needs."""
    for folder in ("proc", "sys", "dev", "tmp", "etc", "root", "home", "var/tmp"):
        yield Entry(folder, "dir", 0o755)
    for program in ("/bin/sh", "/bin/cat"):
        yield from _files(program)
        listing = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True)
        for library in sorted(set(re.findall(r"(/\S+) \(0x", listing.stdout))):
            yield from _files(library)
    yield Entry(".singularity.d/labels.json", "file", content=b'{"limpet.test": "yes"}')
    yield Entry("etc/passwd", "file", content=b"root:x:0:0:root:/root:/bin/sh\n")


def _files(path: str) -> Iterator[Entry]:
    content = Path(path).read_bytes()
    yield Entry(path[1:], "file", 0o755, content=content)


PIECE = image_of([Entry("hello", "file", 0o755, content=b"#!/bin/sh\necho from the piece\n")],
                 block_size=131072)  # fmt: skip


def write_image(path: Path, layout: str) -> None:
    with path.open("w+b") as file:
        writer = SifWriter(
            file, arch=architecture_of(platform.machine()), ident=b"limpet's own id."
        )
        writer.add_object("lock.json", '{"ä": 1}'.encode(), "json")
        base = BytesIO()
        write_squashfs(base, small_root())
        with writer.partition("root") as out:
            if layout == "composed":
                piece = Source(Squashfs(BytesIO(PIECE)), "opt/env")
                compose(out, [Source(Squashfs(base)), piece])
            else:
                out.write(base.getvalue())
        if layout == "layered":
            with writer.partition("overlay") as out:
                compose(out, [Source(Squashfs(BytesIO(PIECE)), "opt/env")])
        writer.add_object("sbom.json", b'{"bomFormat": "CycloneDX"}', "sbom")
        writer.add_object("recipe", b"astropy\n", "deffile")
        writer.add_object("raw", bytes(range(256)), "raw")
        writer.finish()
    path.chmod(0o755)


@pytest.mark.parametrize("layout", ["plain", "composed", "layered"])
def test_apptainer_runs_it(layout: str, shared_folder: Path) -> None:
    image = shared_folder / "image ä.sif"
    write_image(image, layout)
    command = ["cat", "/etc/passwd"] if layout == "plain" else ["/opt/env/hello"]
    out = run("apptainer", "exec", "-C", "--no-home", image, *command, home=shared_folder)
    assert ("root:x:0:0" if layout == "plain" else "from the piece") in out
    assert "limpet.test" in run("apptainer", "inspect", image, home=shared_folder)


def test_apptainer_reads_the_objects(shared_folder: Path) -> None:
    image = shared_folder / "image.sif"
    write_image(image, "layered")
    listing = run("apptainer", "sif", "list", image)
    for kind in (
        "JSON.Generic",
        f"FS (Squashfs/*System/{ARCHITECTURE})",
        f"FS (Squashfs/Overlay/{ARCHITECTURE})",
        "SBOM (cyclonedx-json)",
        "Def.FILE",
        "Generic/Raw",
    ):
        assert kind in listing
    header = run("apptainer", "sif", "header", image)
    assert "6c696d70-6574-2773-206f-776e2069642e" in header
    assert re.search(r"Descriptors Free: +42\n", header)
    assert run("apptainer", "sif", "dump", "1", image) == '{"ä": 1}'
    assert run("apptainer", "sif", "dump", "5", image) == "astropy\n"


def test_apptainer_signs_and_verifies(shared_folder: Path) -> None:
    image = shared_folder / "image.sif"
    write_image(image, "layered")
    image.chmod(0o777)
    home = shared_folder / "home"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    names = ("--name", "t", "--email", "t@example.org", "--comment", "test", "--password", "")
    run("apptainer", "key", "newpair", *names, "--push=false", home=home)
    run("apptainer", "sign", image, home=home)
    verified = run("apptainer", "verify", image, home=home)
    assert "Verified signature(s)" in verified
    assert verified.count("|FS") == 2
    with image.open("rb") as file:
        sif = read_sif(file)
        assert [item.kind.name for item in sif.descriptors][-1] == "SIGNATURE"
        assert read_object(file, sif.descriptors[0]) == '{"ä": 1}'.encode()
    with image.open("r+b") as file:
        file.seek(sif.descriptors[1].offset + 2000)
        file.write(b"bent")
    assert "Verified" not in run("apptainer", "verify", image, home=home, check=False)


def test_reads_what_apptainer_made(shared_folder: Path) -> None:
    image, squashfs = shared_folder / "made.sif", shared_folder / "root.sqfs"
    squashfs.write_bytes(PIECE)
    squashfs.chmod(0o644)
    run("apptainer", "sif", "new", image)
    partition = ("--datatype", "4", "--parttype", "2", "--partfs", "1", "--partarch", "2")
    run(
        "apptainer",
        "sif",
        "add",
        *partition,
        "--groupid",
        "1",
        "--filename",
        "base",
        image,
        squashfs,
    )
    with image.open("rb") as file:
        sif = read_sif(file)
        (item,) = sif.descriptors
        assert (item.arch, sif.arch, item.group, item.name) == ("amd64", "amd64", 1, "base")
        assert Squashfs(file, item.offset).read("hello").startswith(b"#!/bin/sh")
