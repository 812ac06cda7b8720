"""SIFs to and from a real registry, with what Apptainer pushes and pulls beside it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from limpet.cli import main
from tests import images
from tests.bases.server import Answer, serve
from tests.build.workshop import Workshop, check_refused, unchanged

pytestmark = pytest.mark.real

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(project: Workshop, tmp_path: Path) -> Workshop:
    """A folder with the project's image in it."""
    made = Workshop(tmp_path / "a place", cache=project.cache)
    shutil.copy(project.folder / "image.sif", made.folder / "image.sif")
    return made


@pytest.fixture
def run(place: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """limpet's command line in this process: none of its start-up is paid for here."""
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("LIMPET_CACHE_DIR", str(place.cache))

    def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        code = main([str(word) for word in words])
        said = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    return command


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A private key, its public key, and somebody else's."""
    for name in ("own", "other"):
        key = tmp_path / f"{name}.pem"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        words: list[str | Path] = [
            "openssl",
            "rsa",
            "-in",
            key,
            "-pubout",
            "-out",
            tmp_path / f"{name}.pub",
        ]
        subprocess.run(words, check=True, capture_output=True)
    return tmp_path / "own.pem", tmp_path / "own.pub", tmp_path / "other.pub"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_limpet_pushes_apptainer_pulls_and_the_other_way(
    place: Workshop, run: Run, registry: str
) -> None:
    image = place.folder / "image.sif"
    reference = f"oras://{registry}/sifs/env:one"
    done = run("push", "image.sif", reference, "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["result"]["size_bytes"] == image.stat().st_size
    assert any(event.get("unit") == "bytes" for event in events)
    pulled = place.run(["apptainer", "pull", "--no-https", "theirs.sif", reference])
    assert pulled.returncode == 0, pulled.stderr
    assert digest(place.folder / "theirs.sif") == digest(image)

    theirs = f"oras://{registry}/sifs/env:two"
    pushed = place.run(["apptainer", "push", "--no-https", "-U", "image.sif", theirs])
    assert pushed.returncode == 0, pushed.stderr
    mine = run("pull", theirs, "-o", "mine.sif")
    assert mine.returncode == 0, mine.stderr
    assert digest(place.folder / "mine.sif") == digest(image)
    exact = f"oras://{registry}/sifs/env@{events[-1]['result']['digest']}"
    assert run("pull", exact, "-o", "exact.sif").returncode == 0
    assert "nothing of it moved" in run("push", "image.sif", reference).stdout
    with unchanged(place.folder):
        check_refused(run("pull", theirs, "-o", "mine.sif"), 11, "--force")
        container = f"docker://{registry}/sifs/env:one"
        check_refused(run("pull", container, "-o", "x.sif"), 2, "oras://")


def test_a_signature_is_checked(
    place: Workshop, run: Run, registry: str, keys: tuple[Path, Path, Path]
) -> None:
    private, public, other = keys
    reference = f"oras://{registry}/sifs/signed:1"
    unsigned = f"oras://{registry}/sifs/unsigned:1"
    assert run("push", "image.sif", unsigned).returncode == 0
    signed = place.run(["apptainer", "sign", "--key", private, "image.sif"])
    assert signed.returncode == 0, signed.stderr
    assert run("push", "image.sif", reference).returncode == 0

    done = run("pull", reference, "-o", "a.sif", "--key", public)
    assert done.returncode == 0, done.stderr
    assert "valid" in done.stdout
    without = run("pull", reference, "-o", "b.sif")
    assert "not checked" in without.stdout, without.stderr
    with unchanged(place.folder):
        pull = ("pull", reference, "-o", "c.sif", "--key", other)
        check_refused(run(*pull), 8, "signature is not valid")
        pull = ("pull", unsigned, "-o", "c.sif", "--key", public)
        check_refused(run(*pull), 8, "not signed")
        pull = ("pull", unsigned, "-o", "c.sif", "--key", Path("nokey"))
        check_refused(run(*pull), 2, "no key nokey")


def test_a_changed_image_does_not_pass_for_a_signed_one(
    place: Workshop, run: Run, registry: str, keys: tuple[Path, Path, Path]
) -> None:
    private, public, _ = keys
    assert place.run(["apptainer", "sign", "--key", private, "image.sif"]).returncode == 0
    with (place.folder / "image.sif").open("r+b") as file:
        file.seek(1 << 20)
        byte = file.read(1)
        file.seek(1 << 20)
        file.write(bytes([byte[0] ^ 1]))
    reference = f"oras://{registry}/sifs/changed:1"
    assert run("push", "image.sif", reference).returncode == 0
    pull = ("pull", reference, "-o", "a.sif", "--key", public)
    check_refused(run(*pull), 8, "not valid", "integrity")
    assert not (place.folder / "a.sif").exists()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that wants a login."""
    folder = tmp_path_factory.mktemp("guarded")
    made = subprocess.run(
        ["htpasswd", "-nbB", "ada", "secret"], capture_output=True, text=True, check=True
    )
    with images.start_registry(folder, htpasswd=made.stdout.strip()) as address:
        yield address


def test_a_login_is_asked_for_and_found(
    place: Workshop, run: Run, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = place.folder / "small.sif"
    write_small_sif(small)
    reference = f"oras://{guarded}/mine/small:1"
    check_refused(run("push", small, reference), 6, "refuses", "Log in")
    monkeypatch.setenv("APPTAINER_DOCKER_USERNAME", "ada")
    monkeypatch.setenv("APPTAINER_DOCKER_PASSWORD", "secret")
    done = run("push", small, reference)
    assert done.returncode == 0, done.stderr
    done = run("pull", reference, "-o", "back.sif")
    assert done.returncode == 0, done.stderr
    assert digest(place.folder / "back.sif") == digest(small)
    monkeypatch.setenv("APPTAINER_DOCKER_PASSWORD", "wrong")
    check_refused(run("pull", reference, "-o", "x.sif"), 6, "not accepted")


def write_small_sif(path: Path) -> None:
    from limpet.formats.sif import SifWriter
    from limpet.formats.squashfs import Entry, write_squashfs

    with path.open("w+b") as file:
        writer = SifWriter(file, arch="amd64", ident=bytes(16))
        with writer.partition("root") as out:
            write_squashfs(out, [Entry("etc", "dir", mode=0o755)])
        writer.finish()


def test_bad_places_and_broken_answers_are_told(place: Workshop, run: Run, registry: str) -> None:
    refused = [
        (("push", "image.sif", f"oras://{registry}/a b:1"), 2, "no repository name"),
        (("push", "image.sif", f"oras://{registry}/x:a tag"), 2, "no tag"),
        (("push", "image.sif", f"docker://{registry}/x:a tag"), 2, "no tag"),
        (("push", "image.sif", f"oras://{registry}/x@sha256:{'0' * 64}"), 2, "Name a tag"),
        (("push", "image.sif", "/some/where"), 2, "oras://"),
        (("push", "nothing.sif", f"oras://{registry}/x:1"), 8, "no image"),
        (("push", "image.sif", "oras://127.0.0.1:9/x:1"), 6, "cannot be reached"),
        (("pull", "oras://127.0.0.1:9/x:1", "-o", "x.sif"), 6, "cannot be reached"),
        (("pull", f"oras://{registry}/nobody/home:1", "-o", "x.sif"), 5, "has no 1"),
        (("pull", f"oras://{registry}/x:1", "-o", "no/where.sif"), 10, "does not exist"),
        (("export", "image.sif", "--to", "oci"), 2, "-o DIR"),
        (("export", "image.sif", "--to", "oci", "-o", "."), 11, "other things"),
        (("export", "nothing.sif", "--to", "oci", "-o", "x"), 8, "no image"),
        (("export", "image.sif", "--to", "dockerfil"), 2, "Did you mean dockerfile"),
        (("export", "nothing.in", "--to", "dockerfile"), 2, "no file"),
        (("export", "image.sif", "--to", "ftp://x"), 2, "docker://"),
    ]
    with unchanged(place.folder):
        for words, code, said in refused:
            check_refused(run(*words), code, said)
    place.write("not.sif", "SIF_MAGIC but no SIF")
    done = run("push", "not.sif", f"oras://{registry}/x:1")
    check_refused(done, 8, "no SIF")


def test_a_registry_that_gives_other_bytes_is_not_believed(place: Workshop, run: Run) -> None:
    layer = {"mediaType": "application/vnd.sylabs.sif.layer.v1.sif", "size": 4}
    layer["digest"] = f"sha256:{hashlib.sha256(b'good').hexdigest()}"
    config = {"mediaType": "x", "digest": f"sha256:{'1' * 64}", "size": 2}
    document = {"schemaVersion": 2, "config": config, "layers": [layer]}
    manifest = json.dumps(document).encode()
    answers: dict[str, Answer | list[Answer]] = {
        "/v2/x/manifests/1": (200, {}, manifest),
        f"/v2/x/manifests/sha256:{'2' * 64}": (200, {}, manifest),
        f"/v2/x/blobs/{layer['digest']}": (200, {}, b"evil"),
    }
    with serve(answers) as (address, _), unchanged(place.folder):
        pull = ("pull", f"oras://{address}/x:1", "-o", "x.sif")
        check_refused(run(*pull), 6, "damaged")
        pull = ("pull", f"oras://{address}/x@sha256:{'2' * 64}", "-o", "x.sif")
        check_refused(run(*pull), 6, "damaged manifest")
