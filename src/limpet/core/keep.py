"""An image that stays mounted between short starts: the instance that holds it, and its keeper.

A start in an instance of the runtime's mounts nothing. The instance ends itself: its first program
is a keeper that counts the processes beside it.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from limpet.core.errors import UsageError
from limpet.core.launch import Launch
from limpet.core.module_archive import LAYER_VARIABLES, MOUNT_VARIABLES, RUNTIMES
from limpet.core.mounts import Mount, render_mount
from limpet.core.share import RECORDS
from limpet.core.slurm import JOB_VARIABLES

INSIDE = "/.limpet/keep"
STARTED_BY = "/.singularity.d/startscript"  # what `instance start` runs
KEEPER = "keeper"
# Of the mounted folder programs may write to the keeper's part alone: what lies beside is read as
# code outside, and written to, and they may have no home that they could write code to anyway.
KEEPERS = "keepers"
ALIVE = f"{KEEPERS}/alive"
MARK = f"{KEEPERS}/mark"
LAST = "last"
SAME = "same.json"
DEFAULT_LIFETIME_S = 900
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STEP_S = 5
# The session's word for all starts: a time, or one of these.
VARIABLE = "LIMPET_KEEP"
_NOT, _DEFAULT = ("", "0", "no"), ("1", "yes")
# What the session tells the runtime by variables (Apptainer 1.4, cmd/internal/cli/action_flags.go).
_SETTINGS = """
HOME WORKDIR HOSTNAME NETWORK NETWORK_ARGS DNS SECURITY CONTAINLIBS FAKEROOT CLEANENV CONTAIN
CONTAINALL NV NVCCLI NV_OFF NO_NV ROCM ROCM_OFF NO_ROCM NO_HOME NO_MOUNT NOSHIMINIT
PID UNSHARE_PID IPC UNSHARE_IPC NET UNSHARE_NET UTS UNSHARE_UTS USERNS UNSHARE_USERNS
KEEP_PRIVS NO_PRIVS ADD_CAPS DROP_CAPS ALLOW_SETUID NO_UMASK
UNSQUASH IGNORE_SUBUID IGNORE_FAKEROOT_COMMAND IGNORE_USERNS UNDERLAY
"""
# What limits one start.
_LIMITS = """
APPLY_CGROUPS BLKIO_WEIGHT BLKIO_WEIGHT_DEVICE CPUS CPU_SHARES CPUSET_CPUS CPUSET_MEMS
MEMORY MEMORY_RESERVATION MEMORY_SWAP OOM_KILL_DISABLE PIDS_LIMIT
"""
BINDS = tuple(name for name in MOUNT_VARIABLES if "_BIND" in name)
# By these it has something laid over the image, mounted, or limited that is one start's own.
NEVER = (
    *LAYER_VARIABLES,
    *(name for name in MOUNT_VARIABLES if name not in BINDS),
    *(f"{runtime}_{name}" for name in ("COMPAT", "BOOT", *_LIMITS.split()) for runtime in RUNTIMES),
)
# What of a session keeps instances apart: what the runtime does by itself, where it notes them
# down, and the job and step that take them along when they end.
APART = (
    *(*JOB_VARIABLES, "SLURM_STEP_ID", *BINDS, RECORDS, "SINGULARITY_CONFIGDIR", "HOME"),
    *(f"{runtime}_{name}" for name in _SETTINGS.split() for runtime in RUNTIMES),
)
# What is mounted of the host before limpet mounts anything; and from one user namespace there is no
# way into what another one has made.
NAMESPACES = ("/proc/self/ns/mnt", "/proc/self/ns/user", "/proc/self/ns/pid")
# With these, where they pass, the runtime moves the instance, and who starts in it, out of the
# session's or job's control group, with its limits and its end, into one of systemd's for the user.
BUS = ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR")
# How a kernel for notebooks, in any language, is told where to listen: its name in a command.
CONNECTION = "kernel-*.json"


def is_kernel(words: Sequence[str]) -> bool:
    """Whether a command starts a kernel for notebooks."""
    return any("ipykernel" in word or fnmatchcase(word, f"*/{CONNECTION}") for word in words)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that holds an image; `pid` and `begun` (in clock ticks) name its process."""

    name: str
    image: str
    pid: int = 0
    begun: int = 0
    lifetime_s: int = DEFAULT_LIFETIME_S


def parse_lifetime(text: str, said: str = "--keep-for ") -> int:
    """`90s`, `15m`, `2h`, `1d` (or plain seconds) in seconds."""
    found = re.fullmatch(r"([1-9][0-9]{0,7})([smhd]?)", text)
    if not found:
        raise UsageError(f"{said}{text}: it must be a time such as 90s, 15m or 2h.")
    return int(found[1]) * _UNITS[found[2] or "s"]


def parse_session(text: str) -> int:
    """The value of `VARIABLE` in seconds; 0 where nothing is to be kept."""
    if text in _NOT:
        return 0
    return DEFAULT_LIFETIME_S if text in _DEFAULT else parse_lifetime(text, f"{VARIABLE}=")


def writes(launch: Launch) -> bool:
    """Whether a start may leave something in what is mounted."""
    return "--writable-tmpfs" in launch.options or any(
        not word.endswith(":ro") for word in _values(launch, "--overlay")
    )


def overlays(launch: Launch) -> tuple[str, ...]:
    """Those that are only read."""
    return tuple(word.removesuffix(":ro") for word in _values(launch, "--overlay"))


def sources(launch: Launch, session: Mapping[str, str]) -> tuple[str, ...]:
    """What of the host is mounted: by limpet, as the home, and by the session."""
    homes = [word.partition(":")[0] for word in _values(launch, "--home")]
    if launch.home != "none" and not homes:
        homes = [session.get("HOME", "")]
    # A comma or colon in a path stands behind a backslash: it is none of a place then.
    binds = [word.partition(":")[0] for name in BINDS for word in session.get(name, "").split(",")]
    return (*(mount.source for mount in launch.mounts), *filter(None, (*homes, *binds)))


def _values(launch: Launch, option: str) -> list[str]:
    """What an option of the runtime's is given, each time."""
    return [word for flag, word in itertools.pairwise(launch.options) if flag == option]


def tell_apart(launch: Launch, image_state: Sequence[Any], session: Sequence[Any] = ()) -> bytes:
    """What is mounted and how; `image_state` is that of the file (place, inode, size, time),
    `session` what else keeps instances apart: of it, and of what is mounted at these paths now.

    Not the path as it was typed: starts from several folders name one image in several ways.
    """
    return msgspec.json.encode([launch.runtime, launch.options, image_state, session])


def key_of(same: bytes) -> str:
    """A short name for that; starts compare the whole, since hashlib takes long to import."""
    return f"{zlib.crc32(same):08x}"


def plan_instance(launch: Launch, name: str, folder: str, lifetime_s: int) -> tuple[str, ...]:
    """The command that starts the instance, with its `folder` on the host for keeper and marks."""
    mounts = (
        Mount(source=folder, target=INSIDE, writable=False),
        Mount(source=f"{folder}/{KEEPERS}", target=f"{INSIDE}/{KEEPERS}"),
        Mount(source=f"{folder}/{KEEPER}", target=STARTED_BY, writable=False),
    )
    own = [word for mount in mounts for word in render_mount(mount)]
    runtime = (launch.argv[0], "instance", "start")
    return (*runtime, *launch.options, *own, launch.image.path, name, str(lifetime_s))


def plan_start_in(launch: Launch, name: str) -> Launch:
    """The launch as a start in an instance that holds the same mounts."""
    runtime = launch.argv[: launch.argv.index("exec")]
    words = ("exec", "--no-eval", "--pwd", launch.pwd, f"instance://{name}", *launch.inside)
    return msgspec.structs.replace(launch, argv=(*runtime, *words))


def render_keeper() -> str:
    """The instance's first program, which is told its lifetime in seconds.

    An instance outlives this program: the runtime's process 1 passes a signal on to this program's
    process group, and ends itself only if it finds nobody there (Apptainer,
    engine/apptainer/process_linux.go). So somebody outside the group sends one until it is heard.
    Whoever starts something touches `last` first and then looks into `alive`, which is empty from
    the end on: the image may have gone (its server was killed), and with it all programs but this.
    """
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
# A program may kill what waits (pkill sleep), and no other is to end by that; where it cannot be
# started, the image has gone.
nap() {{
    sleep "$step"
    case $? in 0 | 129 | 130 | 137 | 143) ;; *) false ;; esac
}}
lifetime=$1 step=$(($1 / 10))
[ "$step" -le {_STEP_S} ] || step={_STEP_S}
[ "$step" -gt 0 ] || step=1
cd {INSIDE} || end
echo >{MARK}
idle=0
while [ "$idle" -lt "$lifetime" ] && [ -s {ALIVE} ]; do
    nap || break
    set -- /proc/[0-9]*
    if [ $# -gt 2 ] || [ {LAST} -nt {MARK} ]; then
        idle=0
        echo >{MARK}
    else
        idle=$((idle + step))
    fi
done
{{ true >|{ALIVE}; }} 2>/dev/null
# Who saw it alive a moment ago is still let in.
sleep 2
while set -- /proc/[0-9]*; [ $# -gt 2 ]; do nap || break; done
end
"""
