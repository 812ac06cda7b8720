"""An image that stays mounted between short starts: the instance that holds it, and its keeper.

A start in an instance of the runtime's mounts nothing. The instance ends itself: its first program
is a keeper that counts the processes beside it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from limpet.core.errors import UsageError
from limpet.core.launch import Launch
from limpet.core.mounts import Mount, render_mount

INSIDE = "/.limpet/keep"
STARTED_BY = "/.singularity.d/startscript"  # what `instance start` runs
KEEPER = "keeper"
ALIVE = "alive"
LAST = "last"
DEFAULT_LIFETIME_S = 900
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STEP_S = 5


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that holds an image; `pid` and `begun` (in clock ticks) name its process."""

    name: str
    image: str
    pid: int = 0
    begun: int = 0
    lifetime_s: int = DEFAULT_LIFETIME_S


def parse_lifetime(text: str) -> int:
    """`90s`, `15m`, `2h`, `1d` (or plain seconds) in seconds."""
    found = re.fullmatch(r"(\d+)([smhd]?)", text.strip())
    if not found or not int(found[1]):
        raise UsageError(f"--keep-for {text}: it must be a time such as 90s, 15m or 2h.")
    return int(found[1]) * _UNITS[found[2] or "s"]


def key_of(launch: Launch, image_state: Sequence[Any]) -> str:
    """Names what is mounted and how; `image_state` is that of the file (place, inode, size, time).

    Not the path as it was typed: starts from several folders name one image in several ways.
    """
    told = [launch.runtime, launch.options, image_state]
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]


def plan_instance(launch: Launch, name: str, folder: str) -> tuple[str, ...]:
    """The command that starts the instance, with its `folder` on the host for keeper and marks."""
    mounts = (
        Mount(source=folder, target=INSIDE),
        Mount(source=f"{folder}/{KEEPER}", target=STARTED_BY, writable=False),
    )
    own = [word for mount in mounts for word in render_mount(mount)]
    return (launch.argv[0], "instance", "start", *launch.options, *own, launch.image.path, name)


def plan_start_in(launch: Launch, name: str) -> Launch:
    """The launch as a start in an instance that holds the same mounts."""
    runtime = launch.argv[: launch.argv.index("exec")]
    words = ("exec", "--no-eval", "--pwd", launch.pwd, f"instance://{name}", *launch.inside)
    return msgspec.structs.replace(launch, argv=(*runtime, *words))


def render_keeper(lifetime_s: int) -> str:
    """The instance's first program.

    An instance outlives this program: the runtime's process 1 passes a signal on to this program's
    process group, and ends itself only if it finds nobody there (Apptainer,
    engine/apptainer/process_linux.go). So somebody outside the group sends one until it is heard.
    Whoever starts something touches `last` first and then looks for `alive`.
    """
    step_s = max(1, min(_STEP_S, lifetime_s // 10))
    return f"""\
#!/bin/sh
end() {{
    loop='while kill -TERM 1; do sleep 1; done'
    if command -v setsid >/dev/null; then
        setsid sh -c "$loop" &
    else
        set -m
        sh -c "$loop" &
    fi
    exit
}}
cd {INSIDE} || end
echo >mark
idle=0
while [ "$idle" -lt {lifetime_s} ] && [ -e {ALIVE} ]; do
    sleep {step_s} || break
    set -- /proc/[0-9]*
    if [ $# -gt 2 ] || [ {LAST} -nt mark ]; then
        idle=0
        echo >mark
    else
        idle=$((idle + {step_s}))
    fi
done
rm -f {ALIVE}
# Who saw it alive a moment ago is still let in.
sleep 2
while set -- /proc/[0-9]*; [ $# -gt 2 ]; do sleep {step_s}; done
end
"""
