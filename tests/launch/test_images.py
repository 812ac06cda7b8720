"""Image files, without starting them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from limpet.actions.inspect import inspect_image, read_object
from limpet.cli.main import main
from limpet.core.errors import ImageError, UsageError
from limpet.core.image import FACTS_OBJECT, LOCK_OBJECT, ImageFacts
from limpet.core.inspection import Package
from limpet.formats.sif import SifWriter, architecture_of
from limpet.tools.images import read_image
from tests.launch.conftest import FACTS, MACHINE

LOCK = b"""lock-version = "1.0"
[[packages]]
name = "zz"
version = "2.0"
[[packages]]
name = "local"
[packages.directory]
path = "."
"""


def write(path: Path, *, facts: bytes | ImageFacts | None = FACTS, lock: bytes = LOCK) -> Path:
    with path.open("w+b") as file:
        writer = SifWriter(file, arch=architecture_of(MACHINE), ident=b"0123456789abcdef")
        if facts is not None:
            data = facts if isinstance(facts, bytes) else msgspec.json.encode(facts)
            writer.add_object(FACTS_OBJECT, data, "json")
            writer.add_object(LOCK_OBJECT, lock, "raw")
        with writer.partition("root", "root") as into:
            into.write(b"hsqs" + bytes(5000))
        writer.finish()
    return path


def test_what_limpet_made(tmp_path: Path) -> None:
    seen = inspect_image(str(write(tmp_path / "a.sif")))
    assert seen.facts == FACTS
    assert (seen.kind, seen.arch) == ("sif", MACHINE)
    assert seen.packages == (Package(name="local", version=""), Package(name="zz", version="2.0"))
    assert [part.kind for part in seen.parts] == ["json", "raw", "root partition"]
    assert seen.parts[2].size_bytes == 5004


def test_what_others_made(tmp_path: Path) -> None:
    image = write(tmp_path / "a.sif", facts=None)
    seen = inspect_image(str(image))
    assert (seen.facts, seen.packages) == (None, ())
    with pytest.raises(UsageError, match="no lock"):
        read_object(str(image), "lock")


def test_an_identity_is_no_path(tmp_path: Path) -> None:
    """Folders of the user's are named by it, and an image may say anything."""
    right = read_image(str(write(tmp_path / "a.sif"))).identity
    for said in ("/../../../../bin", "f" * 63, "f" * 63 + "\n", "F" * 64):
        hostile = msgspec.structs.replace(FACTS, identity=said)
        assert read_image(str(write(tmp_path / "b.sif", facts=hostile))).identity == right
    told = msgspec.structs.replace(FACTS, identity="f" * 64)
    assert "f" * 16 in read_image(str(write(tmp_path / "c.sif", facts=told))).identity


def test_copies_and_rebuilds_share_an_identity(tmp_path: Path) -> None:
    image = write(tmp_path / "a.sif")
    first = read_image(str(image)).identity
    assert first.startswith("small-") and len(first) == len("small-") + 16
    assert read_image(str(shutil.copy(image, tmp_path / "b.sif"))).identity == first
    newer = msgspec.structs.replace(FACTS, limpet="0.2")
    assert read_image(str(write(tmp_path / "c.sif", facts=newer))).identity == first
    other = msgspec.structs.replace(FACTS, lock_sha256="1")
    assert read_image(str(write(tmp_path / "d.sif", facts=other))).identity != first
    foreign = {
        read_image(str(write(tmp_path / name, facts=None))).identity for name in ("e.sif", "f.sif")
    }
    assert foreign == {b"01234567".hex()}


def test_names_stay_below_the_state_folder(tmp_path: Path) -> None:
    evil = msgspec.structs.replace(FACTS, name="../../x y\n" + "z" * 300)
    identity = read_image(str(write(tmp_path / "a.sif", facts=evil))).identity
    assert "/" not in identity and "." not in identity and len(identity) <= 57


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"limpet": 1}', b"\xff"])
def test_facts_that_cannot_be_read(tmp_path: Path, data: bytes) -> None:
    image = write(tmp_path / "a.sif", facts=data)
    with pytest.raises(ImageError) as caught:
        read_image(str(image))
    assert str(image) in caught.value.what and "newer limpet" in caught.value.now


@pytest.mark.parametrize("lock", [b"= x", b"packages = 1", b"packages = [{}]", b"\xff"])
def test_a_lock_that_cannot_be_read(tmp_path: Path, lock: bytes) -> None:
    with pytest.raises(ImageError, match="lock in the image"):
        inspect_image(str(write(tmp_path / "a.sif", lock=lock)))


def test_a_sandbox_and_a_plain_squashfs(tmp_path: Path) -> None:
    (tmp_path / "box/.singularity.d").mkdir(parents=True)
    assert read_image(str(tmp_path / "box")).kind == "sandbox"
    (tmp_path / "a.sqfs").write_bytes(b"hsqs" + bytes(200))
    assert read_image(str(tmp_path / "a.sqfs")).kind == "squashfs"


def test_the_command(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    labelled = msgspec.structs.replace(FACTS, labels={"b": "2\x1b", "a": "1"})
    image = str(write(tmp_path / "a.sif", facts=labelled))
    assert main(["inspect", "--lock", image]) == 0
    assert capsysbinary.readouterr().out == LOCK
    assert main(["inspect", "--labels", image]) == 0
    assert capsysbinary.readouterr().out == b"a=1\nb=2\\x1b\n"
    assert main(["inspect", "--json", image]) == 0
    said = json.loads(capsysbinary.readouterr().out)
    assert (said["facts"]["name"], said["packages"][1]["version"]) == ("small", "2.0")
    assert main(["inspect", image]) == 0
    assert b"\n2 packages\n  local\n  zz 2.0\n" in capsysbinary.readouterr().out
    assert main(["inspect", "--sbom", image]) == 2
