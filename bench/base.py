"""The base image that all contenders build on, in a real registry on loopback.

Debian trixie with Python, pip and CA certificates, slim as the official Python images are, made
by mmdebstrap as a plain user, as one gzip layer in an OCI layout, pushed by skopeo.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Self

PACKAGES = "python3,python3-pip,python3-venv,python-is-python3,ca-certificates"
# What Debian's own slim images leave out.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def make_root_tar(tar: Path, temporary: Path) -> None:
    """A root file system as a tar, from Debian's packages."""
    excludes = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    # mmdebstrap's own namespace cannot enter a home that is closed to others.
    namespace = ["unshare", "--map-root-user", "--map-auto", "--mount", "--pid", "--fork"]
    options = [
        "--quiet",
        "--mode=root",
        "--variant=apt",
        "--skip=output/mknod",
        f"--include={PACKAGES}",
    ]
    options += ["--aptopt=APT::Install-Recommends false", *excludes]
    subprocess.run(
        [*namespace, "mmdebstrap", *options, "trixie", str(tar)],
        check=True,
        env={
            **os.environ,
            "TMPDIR": str(temporary),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        },
    )


def make_oci_layout(tar: Path, layout: Path) -> None:
    """One image named `base` in an OCI layout, from a root file system."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    layer = layout / "layer"
    with tar.open("rb") as plain, gzip.GzipFile(layer, "wb", compresslevel=6, mtime=0) as packed:
        shutil.copyfileobj(plain, packed, 1 << 20)
    with tar.open("rb") as plain:
        diff_id = hashlib.file_digest(plain, "sha256").hexdigest()
    with layer.open("rb") as packed_layer:
        layer_id = hashlib.file_digest(packed_layer, "sha256").hexdigest()
    layer_bytes = layer.stat().st_size
    layer.rename(blobs / layer_id)

    def add(kind: str, content: dict[str, object]) -> dict[str, object]:
        data = json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        media_type = f"application/vnd.oci.image.{kind}.v1+json"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    architecture = ARCHITECTURES[platform.machine()]
    config = add(
        "config",
        {
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": ["python3"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        },
    )
    packed_media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    layers = [{"mediaType": packed_media_type, "digest": f"sha256:{layer_id}", "size": layer_bytes}]
    manifest = add("manifest", {"schemaVersion": 2, "config": config, "layers": layers})
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "base"}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))


class Registry:
    """A docker-registry on a free loopback port, for as long as the `with` block."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._folder = folder

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        config = self._folder / "config.yml"
        storage = json.dumps(str(self._folder / "data"))
        config.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {storage}}}}}\n"
            f"http: {{addr: '{self.address}'}}\n"
        )
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(config)], stdout=log, stderr=log
            )
        self._wait_until_ready()
        return self

    def _wait_until_ready(self) -> None:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(100):
            try:
                direct.open(f"http://{self.address}/v2/", timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.1)
        raise RuntimeError(f"docker-registry did not start; see {self._folder / 'log'}")

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()

    def push(self, layout: Path) -> str:
        """Push the layout's image; returns the reference to build on."""
        name = f"docker://{self.address}/bench/base:1"
        copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
        subprocess.run([*copy, f"oci:{layout}:base", name], check=True)
        return name
