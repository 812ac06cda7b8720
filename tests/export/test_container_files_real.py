"""Dockerfiles and definition files, built by buildah and Apptainer: the same packages inside."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.build.workshop import Workshop
from tests.export.conftest import CA_INSIDE, LISTING, Buildah, Listing, host_ca

# One worker, for each has a registry of its own, and the project is made on the first one's base.
pytestmark = [pytest.mark.real, pytest.mark.xdist_group("export")]

SEEN = (
    "import json, os, tiny; print(json.dumps([tiny.answer, os.environ['SURVEY'], os.getuid(), "
    "open('/opt/data/two words.txt').read(), os.path.exists('/opt/packages'), "
    "os.path.exists('/opt/requirements.txt'), tiny.__cached__, os.path.exists(tiny.__cached__)]))"
)


def export(project: Workshop, source: str, form: str, output: str, *words: str) -> str:
    argv = project.words("export", source, "--to", form, "-o", output, "--force", *words)
    done = project.run(argv)
    assert done.returncode == 0, done.stderr
    return (project.folder / output).read_text()


def test_the_dockerfile_gives_the_same_packages(
    project: Workshop, buildah: Buildah, listing: Listing
) -> None:
    text = export(project, "limpet.toml", "dockerfile", "Dockerfile")
    ca = host_ca()
    assert "ca-certificates" not in text
    assert "has changed" not in text
    words = ["--volume", f"{ca}:{CA_INSIDE}:ro"] if ca else []
    options = ("--tls-verify=false", "--isolation", "chroot", *words)
    buildah("bud", *options, "-t", "written", project.folder)
    buildah("from", "--pull-never", "--name", "written", "localhost/written")
    inside = buildah("run", "written", "--", "python", "-c", SEEN)
    answer, survey, user, file, *there = json.loads(inside.stdout)
    assert (answer, survey, user, file) == (42, 'a "b" $c', 10001, "a line\n")
    assert there[:2] == [False, False]
    assert there[3]
    found = buildah("run", "written", "--", "python", "-c", LISTING)
    assert json.loads(found.stdout) == listing


def test_the_definition_file_gives_the_same_packages(
    project: Workshop, listing: Listing, tmp_path: Path
) -> None:
    export(project, "limpet.toml", "def", "image.def")
    ca = host_ca()
    binds = ["--bind", f"{ca}:{CA_INSIDE}"] if ca else []
    quick = ["--mksquashfs-args", "-comp zstd -Xcompression-level 1"]
    done = project.run(
        ["apptainer", "build", "--fakeroot", *binds, *quick, tmp_path / "x.sif", "image.def"],
        APPTAINER_NOHTTPS="1",
        APPTAINER_CACHEDIR=str(tmp_path / "cache"),
        APPTAINER_TMPDIR=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    answer, survey, _, file, *there = json.loads(
        project.python(tmp_path / "x.sif", SEEN, PYTHONPATH="/nowhere")
    )
    assert (answer, survey, file) == (42, 'a "b" $c', "a line\n")
    assert there[:2] == [False, False]
    assert there[3]
    assert json.loads(project.python(tmp_path / "x.sif", LISTING)) == listing
    labels = subprocess.run(
        ["apptainer", "inspect", "--json", tmp_path / "x.sif"], capture_output=True, check=True
    ).stdout
    assert json.loads(labels)["data"]["attributes"]["labels"]["org.example.field"] == "7 b"
