"""An image for container engines: a base's config and layers, with one layer more on top."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from limpet.core.facts import PREFIX
from limpet.core.module_archive import ARCHIVE, INDEX

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
SIF_LAYER_TYPE = "application/vnd.sylabs.sif.layer.v1.sif"
SIF_CONFIG_TYPE = "application/vnd.sylabs.sif.config.v1+json"
TITLE = "org.opencontainers.image.title"
ENV_SCRIPT = ".singularity.d/env/95-limpet.sh"
# Apptainer's own files: it writes them anew when it makes a SIF of such an image.
_RUNTIME = (".singularity.d", ".exec", ".run", ".shell", ".test", "environment", "singularity")
# Every engine mounts its own there, and writes its own names into the two files.
_MOUNTED = ("dev", "proc", "sys")
_WRITTEN_OVER = ("etc/resolv.conf", "etc/hosts")
_DOCKER_LAYERS = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{LAYER_TYPE}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{LAYER_TYPE}+zstd",
    "application/vnd.docker.image.rootfs.diff.tar": LAYER_TYPE,
}
_EXPORT = re.compile(r"export ([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_REFERENCE = re.compile(
    r"\$\{(?P<name>\w+):(?P<sign>[-+])(?P<text>(?:\\.|[^}\\])*)\}|\$(?P<bare>\w+)|\\(?P<escaped>.)",
    re.DOTALL,
)


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A blob as a manifest names it."""

    media_type: str
    digest: str
    size_bytes: int
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


_ARCHIVE = frozenset(path.lstrip("/") for path in (ARCHIVE, INDEX))


def is_runtimes_own(path: str) -> bool:
    """Whether a path in a SIF is the container runtime's, and none of the image's content.

    limpet's own start script stays: it keeps the host's Python out where Apptainer runs the image.
    The module archive goes: only limpet's starts use it, and in a layer it would be a copy.
    """
    if path in _ARCHIVE:
        return True
    if path == ENV_SCRIPT or ENV_SCRIPT.startswith(f"{path}/"):
        return False
    top, _, below = path.partition("/")
    return top in _RUNTIME or (bool(below) and top in _MOUNTED) or path in _WRITTEN_OVER


def oci_type(media_type: str) -> str:
    """A layer's media type in OCI's words; the blob is the same."""
    return _DOCKER_LAYERS.get(media_type, media_type)


def read_exports(script: str, before: Mapping[str, str]) -> dict[str, str]:
    """What limpet's start script sets in an environment that holds `before`.

    It understands what `render_env_script` writes, and no more of a shell.
    """
    known = dict(before)
    for line in _statements(script):
        found = _EXPORT.fullmatch(line)
        if found:
            known[found[1]] = _value(found[2], known)
    return {
        name: value
        for name, value in known.items()
        if before.get(name) != value and (value or name in before)
    }


def _statements(script: str) -> list[str]:
    """Lines, with those that a quoted line break divides joined again."""
    whole: list[str] = []
    pending = ""
    for line in script.split("\n"):
        if not pending and line.startswith("#"):
            continue
        pending = f"{pending}\n{line}" if pending else line
        try:
            shlex.split(pending)
        except ValueError:
            continue
        whole.append(pending)
        pending = ""
    return whole


def _value(text: str, known: Mapping[str, str]) -> str:
    parts = []
    for quoted in re.findall(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|[^'\"]+", text):
        if quoted.startswith("'"):
            parts.append(quoted[1:-1])
            continue
        bare = quoted[1:-1] if quoted.startswith('"') else quoted
        parts.append(_REFERENCE.sub(lambda found: _replaced(found, known), bare))
    return "".join(parts)


def _replaced(found: re.Match[str], known: Mapping[str, str]) -> str:
    if found["escaped"] is not None:
        return found["escaped"]
    if found["bare"]:
        return known.get(found["bare"], "")
    there = known.get(found["name"], "")
    other = _REFERENCE.sub(lambda inner: _replaced(inner, known), found["text"])
    if found["sign"] == "-":
        return there or other
    return other if there else ""


def render_config(
    base: Mapping[str, Any],
    *,
    diff_ids: Sequence[str],
    variables: Mapping[str, str],
    labels: Mapping[str, str],
    comment: str,
    arch: str,
    has_python: bool = True,
) -> bytes:
    """The base's image configuration, with layers, variables and labels added to it."""
    config = dict(base.get("config") or {})
    env = dict(one.partition("=")[::2] for one in config.get("Env") or ())
    config["Env"] = [f"{name}={value}" for name, value in {**env, **variables}.items()]
    config["Labels"] = {**(config.get("Labels") or {}), **labels}
    config["Cmd"] = [f"{PREFIX}/bin/python" if has_python else "/bin/sh"]
    rootfs = dict(base.get("rootfs") or {"type": "layers"})
    rootfs["diff_ids"] = [*rootfs.get("diff_ids", ()), *diff_ids]
    history = [*(base.get("history") or ()), *({"created_by": comment} for _ in diff_ids)]
    document = {
        **base,
        "architecture": base.get("architecture") or arch,
        "os": base.get("os") or "linux",
        "config": config,
        "rootfs": rootfs,
    }
    if base.get("history") or not base:
        document["history"] = history
    return json.dumps(document, sort_keys=True, ensure_ascii=False).encode()


def render_manifest(
    config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str]
) -> bytes:
    """An OCI image manifest."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _plain(config),
        "layers": [_plain(layer) for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return json.dumps(document, sort_keys=True, ensure_ascii=False).encode()


def _plain(one: Descriptor) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "mediaType": one.media_type,
        "digest": one.digest,
        "size": one.size_bytes,
    }
    return plain | ({"annotations": one.annotations} if one.annotations else {})
