"""Ranks of one step on a node share one container: one user namespace, one mount of the image.

A plain user's containers are each a user namespace of its own, and MPI's shared memory fails
between those; `apptainer exec --sharens` (from 1.3 on) starts one container for all children of one
parent. Its first process starts the container; the others join it through that process's program,
so they fail where that program has ended before they came. `GATHER` keeps it until all are there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from limpet.core.errors import HostError
from limpet.core.seen import HostSeen, Siblings

OLDEST = (1, 3)
SHARENS = "--sharens"
SWITCH = "APPTAINER_SHARENS"
RECORDS = "APPTAINER_CONFIGDIR"

# The programs that start ranks, as the kernel names them (15 letters), each with the variables that
# hold the number of ranks on this node and the place of this one among them.
SLURM = "slurmstepd"
LAUNCHERS = {
    "MPI_LOCALNRANKS": ("MPI_LOCALRANKID", ("hydra_pmi_proxy", "hydra_bstrap_pr", "pmi_proxy")),
    "OMPI_COMM_WORLD_LOCAL_SIZE": (
        "OMPI_COMM_WORLD_LOCAL_RANK",
        ("mpirun", "mpiexec", "orterun", "orted", "prterun", "prted"),
    ),
}

_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")


def find_siblings(parent: int, parent_name: str, environment: Mapping[str, str]) -> Siblings | None:
    """The ranks that `parent` starts on this node, this one among them; None where it is alone.

    Only a program that starts ranks counts as a parent: its children are of one step, while a
    shell's may be anything, and variables may be left over from elsewhere.
    """
    if parent_name == SLURM:
        tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
        count = tasks_on_node(tasks, environment.get("SLURM_NODEID", ""))
        rank = environment.get("SLURM_LOCALID", "")
    else:
        count, rank = 0, ""
        for size, (place, names) in LAUNCHERS.items():
            if parent_name in names:
                count = _number(environment.get(size, ""))
                rank = environment.get(place, "")
    if count < 2 or not rank.isdecimal():
        return None
    return Siblings(parent=parent, count=count, rank=int(rank))


def tasks_on_node(text: str, node: str) -> int:
    """Of Slurm's `2(x3),1` the number for that node of the step; 0 where it is not told."""
    left = _number(node)
    for part in text.split(","):
        found = _TASKS.fullmatch(part)
        if not found:
            return 0
        left -= int(found[2] or 1)
        if left < 0:
            return int(found[1])
    return 0


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def can_share(host: HostSeen) -> bool:
    """Whether the runtime can and must: with setuid rights there are no user namespaces.

    Who has set Apptainer's own switch has decided.
    """
    version = tuple(int(part) for part in re.findall(r"\d+", host.runtime_version)[:2])
    able = host.runtime_kind == "apptainer" and version >= OLDEST
    return able and host.setuid is False and SWITCH not in host.environment


def check_shareable(host: HostSeen) -> None:
    """HostError where MPI's ranks of this node each need a container that they cannot share."""
    seen = host.siblings
    if seen is None or host.setuid is not False or SWITCH in host.environment or can_share(host):
        return
    node = host.environment.get("SLURMD_NODENAME", "this node")
    name = "Apptainer" if host.runtime_kind == "apptainer" else "SingularityCE"
    raise HostError(
        f"The {seen.count} ranks on {node} need one container, which {name} "
        f"{host.runtime_version} cannot give them.",
        why="Each would be in a user namespace of its own, where MPI's shared memory fails.",
        now="Use nodes with Apptainer 1.3 or later, or one rank a node. --mpi none is for tasks "
        f"without MPI; {SWITCH}=0 starts an MPI that does without shared memory.",
    )


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What a launch needs to share: options of the runtime, words before the program's, variables.

    The runtime keeps a record of the container that is shared, by default in the home: `env` has it
    in the job's own place, where there is one.
    """

    options: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict)


def plan_share(host: HostSeen, same: str, prefix: str) -> Shared:
    """`same` is what all ranks must agree on, for all get what the first one asked for; `prefix`
    the environment's place inside, empty in an image that limpet did not make."""
    if host.siblings is None or not can_share(host):
        return Shared()
    seen = host.siblings
    tune = (f"{prefix}/bin/python", TUNE) if prefix else ("", "")
    told = (str(seen.parent), str(seen.count), str(seen.rank), same, *tune)
    words = ("/bin/sh", "-c", GATHER, "limpet", *told)
    own = seen.folder and RECORDS not in host.environment
    env = {RECORDS: f"{seen.folder}/apptainer"} if own else {}
    return Shared(options=(SHARENS,), words=words, env=env)


# A signal to a rank kills the runtime's process before it, except before the first one: that hands
# it on, to the process group of its program. So all programs of the node are put into that group
# and outlive the process before them: each hears the signal once, for whoever starts ranks signals
# all of a node alike. The first one's task lasts until all have ended, as they hold its lock.
# Run by the image's Python, which becomes the program: a shell can do neither.
TUNE = """\
import ctypes, os, signal, sys, time
for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
for _ in range(200):
    try:
        os.setpgid(0, int(sys.argv[1]))
        break
    except OSError:
        time.sleep(0.01)
if int(sys.argv[1]) != os.getpid():
    ctypes.CDLL(None).prctl(1, 0)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit("limpet: %s: %s" % (sys.argv[2], error.strerror))
"""

# Run inside, by each rank before its program. Marks are empty files in /dev/shm, named by the
# parent's process and the time when it began: the first rank goes on when all others have left
# theirs, then removes them. For a rank that never comes it waits half a minute. It also removes
# what killed steps have left on the node: marks, and the runtime's locks, which are named by the
# parent too and would keep a later step from starting whose parent has the same number. What is
# written must not end the shell (`true`, not `:`), and the names must be none that a program might
# have exported.
GATHER = r"""_limpet_o=$1 _limpet_n=$2 _limpet_r=$3 _limpet_w=$4 _limpet_p=$5
_limpet_c=$6 _limpet_t=0 _limpet_b=''
shift 6
{ IFS= read -r _limpet_b <"/proc/$_limpet_o/stat"; } 2>/dev/null
for _limpet_m in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do
    _limpet_b=${_limpet_b#* }
done
_limpet_f=/dev/shm/limpet.$_limpet_o.${_limpet_b%% *}
_limpet_sweep() {
    [ -d "/proc/$_limpet_o" ] || return 0 # processes of others are hidden: who lives is not known
    for _limpet_m in /dev/shm/sharens_instance_[0-9]* /dev/shm/limpet.[0-9]*; do
        _limpet_k=${_limpet_m##*/} _limpet_k=${_limpet_k#sharens_instance_}
        _limpet_k=${_limpet_k#limpet.} _limpet_k=${_limpet_k%%.*}
        [ -d "/proc/$_limpet_k" ] || [ ! -e "$_limpet_m" ] || rm -f "$_limpet_m" 2>/dev/null
    done
}
_limpet_nap() {
    _limpet_t=$((_limpet_t + 1))
    [ "$_limpet_t" -lt 600 ] && { sleep 0.05 2>/dev/null || sleep 1; }
}
_limpet_g=$$
if [ -n "${APPTAINER_SHARENS_MASTER-}" ]; then
    { printf '%s\n' "$$ $_limpet_w" >"$_limpet_f.first"; } 2>/dev/null
    _limpet_sweep
    while :; do
        _limpet_k=1
        for _limpet_m in "$_limpet_f".[0-9]*; do
            [ -e "$_limpet_m" ] && _limpet_k=$((_limpet_k + 1))
        done
        [ "$_limpet_k" -lt "$_limpet_n" ] && _limpet_nap || break
    done
    rm -f "$_limpet_f".*
else
    until [ -s "$_limpet_f.first" ]; do _limpet_nap || break; done
    { IFS=' ' read -r _limpet_g _limpet_m <"$_limpet_f.first"; } 2>/dev/null
    { true >"$_limpet_f.$_limpet_r"; } 2>/dev/null
    if [ "${_limpet_m-}" != "$_limpet_w" ]; then
        printf 'limpet: %s\n' 'The ranks of this step on one node are not started alike.' \
            'They share one container, so image, mounts and GPUs must be the same for all.' \
            'Start different ones in steps of their own, or set APPTAINER_SHARENS=0.' >&2
        exit 125
    fi
fi
[ ! -x "$_limpet_p" ] || exec "$_limpet_p" -I -S -c "$_limpet_c" "$_limpet_g" "$@"
exec "$@"
"""
