"""Mounts: as the user writes them, and as the runtime wants them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import msgspec

from limpet.core.errors import UsageError


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A host path seen at a container path; or, of an image, `inside` of one of its partitions."""

    source: str
    target: str
    writable: bool = True
    partition: int = 0
    inside: str = ""


def parse_bind(text: str, cwd: str) -> Mount:
    """`SRC[:DST[:ro|rw]]`; a relative SRC counts from `cwd`."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source:
        raise UsageError(f"--bind {text}: there is no source.", now="Write SRC[:DST[:ro]].")
    source = str(PurePosixPath(cwd, source))
    target = target or source
    if not target.startswith("/"):
        raise UsageError(f"--bind {text}: {target} must be an absolute path.")
    if mode not in ("", "ro", "rw"):
        raise UsageError(f"--bind {text}: {mode} is neither ro nor rw.")
    return Mount(source=source, target=target, writable=mode != "ro")


def render_mount(mount: Mount) -> tuple[str, str]:
    """The runtime's flag for it: `--bind`, or `--mount` where a path has its separators in it."""
    if mount.partition:
        return "--mount", f'type=bind,"source={_csv(mount.source)}",{render_served(mount)}'
    if not re.search(r'[:,"\\]', mount.source + mount.target):
        words = [mount.source] if mount.source == mount.target else [mount.source, mount.target]
        if not mount.writable:
            words = [mount.source, mount.target, "ro"]
        return "--bind", ":".join(words)
    mode = "" if mount.writable else ",ro"
    source, target = _csv(mount.source), _csv(mount.target)
    return "--mount", f'type=bind,"source={source}","target={target}"{mode}'


def render_served(mount: Mount) -> str:
    """What stands behind the source where a part of an image is mounted."""
    inside = f'"image-src={_csv(mount.inside)}",id={mount.partition}'
    return f'"target={_csv(mount.target)}",{inside},ro'


def _csv(path: str) -> str:
    return path.replace('"', '""')


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
