"""Makes the images that the tests build on: OCI layouts from tars, and a registry to push them to.

Plain functions; what comes from Debian's mirror is kept in a folder that outlives a test run.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import claim_ports

Layer = Path | bytes
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def debian_tar(cache: Path, suite: str = "trixie") -> Path:
    """A root file system with Debian's Python as a tar; made once per cache folder."""
    from limpet.tools import debian, files

    target = cache / f"debian-{suite}.tar"
    cache.mkdir(parents=True, exist_ok=True)
    with files.held(cache / "debian.lock"):
        if not target.exists():
            scratch = cache / "scratch"
            scratch.mkdir(exist_ok=True)
            arch = os.uname().machine
            with files.written_beside(target) as out, debian.open_tar(suite, arch, scratch) as tar:
                shutil.copyfileobj(tar, out, 1 << 20)
    return target


# Layers -------------------------------------------------------------


def make_layer(members: dict[str, str | bytes | None], *, mode: int = 0o755) -> bytes:
    """A tar: names ending in "/" are folders, `name -> target` symlinks, others files.

    A name `.wh.x` hides x of the layers below, as it stands.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            path, arrow, target = name.partition(" -> ")
            info = tarfile.TarInfo(path.rstrip("/"))
            info.mode, info.mtime = mode, 1_600_000_000
            data = content.encode() if isinstance(content, str) else content or b""
            if arrow:
                info.type, info.linkname = tarfile.SYMTYPE, target
            elif name.endswith("/"):
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def rewrite_tar(source: Path, target: Path, rename: Callable[[str], str | None]) -> Path:
    """A copy of a tar with members renamed, or left out where `rename` gives None."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for info in old:
            name = rename(info.name.removeprefix("./"))
            if name is None:
                continue
            if info.islnk():
                linked = rename(info.linkname.removeprefix("./"))
                if linked is None:
                    continue
                info.linkname = linked
            info.name = name
            new.addfile(info, old.extractfile(info) if info.isreg() else None)
    return target


def without_python(source: Path, target: Path) -> Path:
    """A plain operating system: the same tar with no Python in it."""
    return rewrite_tar(source, target, lambda name: None if _is_python(name) else name)


def python_slim(source: Path, target: Path) -> Path:
    """The shape of `python:slim`: Python in /usr/local, its own to change, none of Debian's."""

    def rename(name: str) -> str | None:
        if not _is_python(name):
            return name
        if name.startswith(("usr/bin/", "usr/lib/python3.")) and "EXTERNALLY" not in name:
            return name.replace("usr/", "usr/local/", 1)
        return None

    return rewrite_tar(source, target, rename)


def _is_python(name: str) -> bool:
    return name.startswith(("usr/lib/python3", "usr/share/python3", "usr/bin/py", "etc/python3"))


def vendor_layer(
    *, site: str = "usr/lib/python3/dist-packages", version: str = "2.3.0a0+vendor"
) -> bytes:
    """A large package with a local version, as vendor images carry it, and one that it needs."""
    info = f"{site}/torch-{version}.dist-info"
    needed = f"{site}/typing_extensions-4.12.2.dist-info"
    metadata = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n"
    return make_layer(
        {
            f"{site}/torch/__init__.py": f"__version__ = {version!r}\n",
            f"{info}/METADATA": metadata.format("torch", version)
            + "Requires-Dist: typing-extensions>=4.8\n",
            f"{info}/RECORD": "torch/__init__.py,,\n",
            f"{info}/INSTALLER": "pip\n",
            f"{site}/typing_extensions.py": "Protocol = object\n",
            f"{needed}/METADATA": metadata.format("typing_extensions", "4.12.2"),
            f"{needed}/RECORD": "typing_extensions.py,,\n",
        }
    )


# OCI layouts -------------------------------------------------------------


def make_oci_layout(
    folder: Path,
    layers: Sequence[Layer],
    env: Iterable[str] = (f"PATH={PATH}",),
    *,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    labels: dict[str, str] | None = None,
    arch: str = "",
    compression: str = "gzip",
    tag: str = "latest",
    index: bool = False,
) -> str:
    """An OCI layout in a folder; gives the digest of its manifest. `index` wraps it in an index."""
    arch = arch or {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    described, plain_digests = [], []
    for layer in layers:
        data = layer.read_bytes() if isinstance(layer, Path) else layer
        plain_digests.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
        media = f"application/vnd.oci.image.layer.v1.tar+{compression}"
        described.append(_add_blob(folder, _compress(data, compression), media))
    config = {
        "os": "linux",
        "config": {
            "Env": list(env),
            "Entrypoint": list(entrypoint),
            "Cmd": list(command),
            "Labels": labels or {},
        },
        "rootfs": {"type": "layers", "diff_ids": plain_digests},
    }
    descriptor = _add_manifest(folder, config, described, arch)
    digest = str(descriptor["digest"])
    if index:
        other = _add_manifest(folder, config, described, "s390x")
        media = "application/vnd.oci.image.index.v1+json"
        document = {"schemaVersion": 2, "mediaType": media, "manifests": [other, descriptor]}
        descriptor = _add_json(folder, document, media)
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    return digest


def _add_manifest(
    folder: Path, config: dict[str, Any], layers: list[dict[str, Any]], arch: str
) -> dict[str, Any]:
    config_media = "application/vnd.oci.image.config.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _add_json(folder, config | {"architecture": arch}, config_media),
        "layers": layers,
    }
    descriptor = _add_json(folder, manifest, str(manifest["mediaType"]))
    return descriptor | {"platform": {"os": "linux", "architecture": arch}}


def _compress(data: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(data, 1, mtime=0)
    from limpet.formats.zstd import ZstdCompressor

    packed: bytes = ZstdCompressor(1).compress(data, ZstdCompressor.FLUSH_FRAME)
    return packed


def _add_json(folder: Path, document: dict[str, Any], media: str) -> dict[str, Any]:
    return _add_blob(folder, json.dumps(document, sort_keys=True).encode(), media)


def _add_blob(folder: Path, data: bytes, media: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(data)
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}


# A registry -------------------------------------------------------------


@contextmanager
def start_registry(folder: Path, *, htpasswd: str = "") -> Iterator[str]:
    """A real registry on a free loopback port, its blobs in `folder`; gives `127.0.0.1:PORT`.

    `htpasswd` is a line of an htpasswd file (bcrypt); with it the registry wants a login.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ports = claim_ports()
    address = f"127.0.0.1:{ports.numbers[0]}"
    lines = ["version: 0.1", "log: {level: error}", "storage:"]
    lines += [f"  filesystem: {{rootdirectory: {json.dumps(str(folder / 'data'))}}}"]
    lines += [f"http: {{addr: {address}}}"]
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd + "\n")
        path = json.dumps(str(folder / "htpasswd"))
        lines += [f"auth: {{htpasswd: {{realm: limpet, path: {path}}}}}"]
    (folder / "config.yml").write_text("\n".join(lines) + "\n")
    log = (folder / "log").open("wb")
    argv = ["docker-registry", "serve", str(folder / "config.yml")]
    with ports.claim, log, subprocess.Popen(argv, stdout=log, stderr=log) as running:
        try:
            _wait_for(address, running)
            yield address
        finally:
            running.terminate()


def _wait_for(address: str, running: subprocess.Popen[bytes]) -> None:
    host, _, port = address.partition(":")
    for _ in range(1200):
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        if running.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError("the registry does not start")


def push_image(
    layout: Path, address: str, name: str, *, tag: str = "latest", login: str = ""
) -> str:
    """Push an OCI layout's image; gives its `docker://` reference."""
    argv = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "--quiet"]
    argv += ["--multi-arch=all"] if _is_index(layout) else []
    argv += [f"--dest-creds={login}"] if login else ["--dest-no-creds"]
    done = subprocess.run(
        [*argv, f"oci:{layout}:latest", f"docker://{address}/{name}:{tag}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"skopeo: {done.stderr}")
    return f"docker://{address}/{name}:{tag}"


def _is_index(layout: Path) -> bool:
    manifests = json.loads((layout / "index.json").read_text())["manifests"]
    return "index" in str(manifests[0]["mediaType"])
