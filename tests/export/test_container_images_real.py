"""Images for container engines: the base's layers untouched, the environment on top of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.build.workshop import Workshop, check_refused, unchanged
from tests.conftest import Base
from tests.export.conftest import LISTING, Buildah, Listing

# One worker, for each has a registry of its own, and the project is made on the first one's base.
pytestmark = [pytest.mark.real, pytest.mark.xdist_group("export")]

INSIDE = (
    "import json, os, tiny; print(json.dumps([tiny.answer, os.environ['SURVEY'], "
    "os.path.exists(tiny.__cached__), open('/opt/data/two words.txt').read(), "
    "os.environ['VIRTUAL_ENV']]))"
)


def read_json(layout: Path, digest: str) -> Any:
    return json.loads((layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes())


def read_layout(layout: Path) -> tuple[Any, Any]:
    """The manifest and the config of a layout's one image."""
    (listed,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = read_json(layout, listed["digest"])
    return manifest, read_json(layout, manifest["config"]["digest"])


def manifest_at(reference: str) -> Any:
    host, _, rest = reference.removeprefix("docker://").partition("/")
    name, _, tag = rest.rpartition(":")
    request = urllib.request.Request(f"http://{host}/v2/{name}/manifests/{tag}")
    request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def skopeo(*words: str | Path) -> str:
    argv = ["skopeo", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def layout(project: Workshop, tmp_path: Path) -> Path:
    done = project.run(
        project.words("export", "image.sif", "--to", "oci", "-o", tmp_path / "layout")
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "layout"


def test_the_base_is_untouched_and_the_environment_is_one_layer(
    project: Workshop, base: str, layout: Path, buildah: Buildah, listing: Listing
) -> None:
    manifest, config = read_layout(layout)
    assert manifest["layers"][:-1] == manifest_at(base)["layers"]
    for blob in (manifest["config"], *manifest["layers"]):
        data = (layout / "blobs" / "sha256" / blob["digest"][7:]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (blob["digest"][7:], blob["size"])
    layer = layout / "blobs" / "sha256" / manifest["layers"][-1]["digest"][7:]
    plain = gzip.decompress(layer.read_bytes())
    assert config["rootfs"]["diff_ids"][-1] == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        names = tar.getnames()
    outside = [n for n in names if not n.startswith(("opt", ".limpet", ".singularity.d"))]
    assert outside == []
    assert config["config"]["Env"][0] == f"PATH=/opt/env/bin:{images.PATH}"
    assert "org.example.field=7 b" in [f"{k}={v}" for k, v in config["config"]["Labels"].items()]

    seen = json.loads(skopeo("inspect", f"oci:{layout}:latest"))
    assert len(seen["Layers"]) == len(manifest["layers"])
    buildah("from", "--name", "layered", f"oci:{layout}:latest")
    inside = buildah("run", "layered", "--", "python", "-c", INSIDE)
    assert json.loads(inside.stdout) == [42, 'a "b" $c', True, "a line\n", "/opt/env"]
    assert json.loads(buildah("run", "layered", "--", "python", "-c", LISTING).stdout) == listing


def test_the_same_image_gives_the_same_bytes(
    project: Workshop, layout: Path, tmp_path: Path
) -> None:
    words = ("export", "image.sif", "--to", "oci", "-o", tmp_path / "again")
    assert project.run(project.words(*words)).returncode == 0
    assert (tmp_path / "again" / "index.json").read_bytes() == (layout / "index.json").read_bytes()
    with unchanged(tmp_path / "again"):
        check_refused(project.run(project.words(*words)), 11, "already", "--force")
    blobs = tmp_path / "again" / "blobs" / "sha256"
    kept = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    (tmp_path / "again" / "index.json").unlink()  # as a broken-off export leaves it
    before = kept.stat().st_mtime_ns
    assert project.run(project.words(*words)).returncode == 0
    assert kept.stat().st_mtime_ns == before
    zstd = project.run(project.words(*words, "--force", "--compression", "zstd"))
    assert zstd.returncode == 0, zstd.stderr
    manifest, config = read_layout(tmp_path / "again")
    assert manifest["layers"][-1]["mediaType"].endswith("+zstd")
    assert config["rootfs"] == read_layout(layout)[1]["rootfs"]
    shutil.rmtree(tmp_path / "copied", ignore_errors=True)
    skopeo("copy", "--insecure-policy", f"oci:{tmp_path / 'again'}:latest", f"dir:{tmp_path / 'c'}")


def test_a_push_sends_only_the_environment(project: Workshop, registry: str, base: str) -> None:
    target = f"docker://{registry}/pushed/env:1.0"
    done = project.run(project.words("push", "image.sif", target, "--json"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])["result"]
    manifest = manifest_at(target)
    assert manifest["layers"][:-1] == manifest_at(base)["layers"]
    own = manifest["layers"][-1]["size"] + manifest["config"]["size"]
    assert result["moved_bytes"] == own < result["size_bytes"]
    assert (
        skopeo("inspect", "--tls-verify=false", "--format={{.Digest}}", target).strip()
        == (result["digest"])
    )
    again = project.run(project.words("export", "image.sif", "--to", target))
    assert "nothing of it moved" in again.stdout


def test_a_base_without_layers_is_one_layer(
    project: Workshop, debian_base: Base, tmp_path: Path, buildah: Buildah
) -> None:
    workshop = Workshop(tmp_path / "plain", cache=project.cache, base=debian_base.reference)
    workshop.add_wheel("tiny", {"tiny/__init__.py": "answer = 42\n"})
    workshop.require("tiny")
    workshop.build("requirements.in", "--layout", "layered", "--force")
    words = ("export", workshop.image, "--to", "oci", "-o", "plain-oci", "--compression", "zstd")
    done = workshop.run(workshop.words(*words))
    assert done.returncode == 0, done.stderr
    assert "layers: Making one layer of the base" in done.stderr  # which takes a while
    manifest, _ = read_layout(workshop.folder / "plain-oci")
    assert len(manifest["layers"]) == 2
    buildah("from", "--name", "plain", f"oci:{workshop.folder / 'plain-oci'}:latest")
    code = "import tiny, ssl; print(tiny.answer)"
    assert buildah("run", "plain", "--", "python", "-c", code).stdout.strip() == "42"
