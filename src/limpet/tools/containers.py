"""What starts and mounts containers here, besides the runtime itself. Commands may hang."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path

from limpet.core.errors import HostError
from limpet.core.machine import Fuse, Program, parse_compressors, parse_version
from limpet.tools import process

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How each is asked for its version.
HELPERS = {
    "squashfuse_ll": ("--version",),
    "squashfuse": ("--version",),
    "fuse2fs": ("-V",),
    "fuse-overlayfs": ("--version",),
    "mksquashfs": ("-version",),
    "newuidmap": (),
}


def find_helper(name: str, runtime: str) -> Path | None:
    """A program of PATH, the system's folders, or those that the runtime brings itself."""
    prefix = Path(os.path.realpath(runtime)).parent.parent if runtime else Path("/usr")
    own = (*prefix.glob("libexec/*/bin"), *prefix.glob("lib/*/*/bin"))
    path = ":".join((*map(str, own), SYSTEM_PATH))
    return process.find_program(name, path=path) or process.find_program(name)


def probe_program(name: str, options: tuple[str, ...], path: Path, timeout_s: float) -> Program:
    """The program with its version, where it says one."""
    version = ""
    if options:
        with contextlib.suppress(HostError):
            done = process.run([path, *options], timeout_s=timeout_s)
            # fuse-overlayfs says the version of fusermount3 first.
            lines = [*done.text.splitlines(), *done.stderr.splitlines()]
            own = [line for line in lines if line.lower().startswith(name.partition("_")[0])]
            version = next(filter(None, map(parse_version, (*own, *lines))), "")
    return Program(name=name, path=str(path), version=version)


def probe_fuse(device: Path = Path("/dev/fuse")) -> Fuse:
    """Whether this user may mount through FUSE."""
    if not device.exists():
        return "missing"
    return "usable" if os.access(device, os.R_OK | os.W_OK) else "refused"


def probe_compressors(program: str, timeout_s: float) -> tuple[str, ...]:
    """What this mksquashfs can pack with."""
    found: tuple[str, ...] = ()
    for option in ("-help", "-help-all"):
        done = process.run([program, option], timeout_s=timeout_s)
        found = found or parse_compressors(done.text + done.stderr)
    return found


def probe_ids(timeout_s: float) -> tuple[int, int]:
    """How many user and group ids this user may hand out, of files or a directory service."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    counts = []
    for file, options in (("/etc/subuid", []), ("/etc/subgid", ["-g"])):
        count = _count_ids(Path(file), user)
        if not count and (asked := process.find_program("getsubids")):
            done = process.run([asked, *options, user], timeout_s=timeout_s)
            words = done.text.split()
            count = int(words[-1]) if done.code == 0 and words and words[-1].isdigit() else 0
        counts.append(count)
    return counts[0], counts[1]


def _count_ids(file: Path, user: str) -> int:
    count = 0
    with contextlib.suppress(OSError):
        for line in file.read_text(errors="replace").splitlines():
            words = line.strip().split(":")
            if len(words) == 3 and words[0] in (user, str(os.getuid())) and words[2].isdigit():
                count += int(words[2])
    return count
