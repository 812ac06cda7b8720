"""Ranks of one step on a node share one container: one user namespace, one mount of the image.

A plain user's containers are each a user namespace of its own, and MPI's shared memory fails
between those; `apptainer exec --sharens` (from 1.3 on) starts one container for all children of one
parent. Its first process starts the container; the others join it through that process's program,
so they fail where that program has ended before they came. `GATHER` keeps it until all are there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

import msgspec

from limpet.core.errors import HostError
from limpet.core.seen import HostSeen, Siblings

OLDEST = (1, 3)
SHARENS = "--sharens"
SWITCH = "APPTAINER_SHARENS"
RECORDS = "APPTAINER_CONFIGDIR"
# How many seconds the ranks of a node wait for each other: half a minute, where this does not say.
WAIT = "LIMPET_RANKS_WAIT_S"

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
    """What a launch needs to share: words before the runtime's, options of the runtime's, words
    before the program's, variables.

    The runtime keeps a record of the container that is shared, by default in the home: `env` has it
    in the job's own place, where there is one.
    """

    before: tuple[str, ...] = ()
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
    ranks = (str(seen.parent), str(seen.count), str(seen.rank))
    wait = host.environment.get(WAIT, "")
    words = ("/bin/sh", "-c", GATHER, "limpet", *ranks, same, wait, *tune)
    own = seen.folder and RECORDS not in host.environment
    env = {RECORDS: f"{seen.folder}/apptainer"} if own else {}
    joins = ("/bin/sh", "-c", JOIN, "limpet", str(seen.parent), wait)
    return Shared(
        before=joins if seen.rank and prefix else (), options=(SHARENS,), words=words, env=env
    )


# A rank that joins the container of the first: the runtime's process before its program would be
# killed by any signal to the task (it only waits, `wait_child` in Apptainer's starter.c), and the
# program's exit code be lost. So the task is a shell, which hears no signal and ends as the program
# does. Slurm signals the task alone, mpiexec a group that it has made for the task. There the shell
# is bash, which can put the runtime's process into another group without a terminal; the program
# comes back (`TUNE`). A trap that does something is undone for the program by bash too.
# A shell says that its child was killed, so its own standard error is closed. Ranks have open files
# of MPI's: no number is taken twice.
_AS_TASK = r"""_limpet_d=$2 _limpet_l=$3
trap "$1" HUP INT QUIT TERM USR1 USR2 ALRM XCPU VTALRM PROF
[ -z "$1" ] || set -m
shift 3
for _limpet_f in 9 8 7 6 5 4 3 ''; do
    [ -e "/proc/$$/fd/$_limpet_f" ] || break
done
[ -z "$_limpet_f" ] || eval "exec $_limpet_f>&2 2>/dev/null"
(
    [ -z "$_limpet_f" ] || eval "exec 2>&$_limpet_f $_limpet_f>&-"
    trap - HUP INT QUIT TERM USR1 USR2 ALRM XCPU VTALRM PROF
    APPTAINER_CONFIGDIR=$_limpet_d
    export APPTAINER_CONFIGDIR
    exec "$@"
)
_limpet_t=$?
rm -rf "$_limpet_d" "$_limpet_l"
exit "$_limpet_t"
"""

# The runtime knows the container by its parent's process, which this shell now is: what it looks
# for under that name (its lock, and the record in its folder) are links to those of the process
# that has started all ranks. They lie in memory: the home may be on a file system that all nodes
# share. A rank whose first one does not come in half a minute, or has failed (nobody holds its
# lock), starts as the first would; so does one of a foreign image, whose programs would not hear
# what only the first is told.
_LINKED = r"""_limpet_o=$1 _limpet_t=0 _limpet_r='' _limpet_w=$2
case $_limpet_w in '' | 0* | *[!0-9]*) _limpet_w=30 ;; esac
_limpet_c=${APPTAINER_CONFIGDIR:-${SINGULARITY_CONFIGDIR:-${HOME-}/.apptainer}}
shift 2
_limpet_l=/dev/shm/sharens_instance_ _limpet_d=/dev/shm/limpet.$$.d
_limpet_given_up() {
    [ -e "$_limpet_l$_limpet_o" ] || { [ "$_limpet_t" -gt "$((_limpet_w * 20))" ]; return; }
    [ "$((_limpet_t % 20))" = 0 ] || return 1
    set -- $(ls -i "$_limpet_l$_limpet_o" 2>/dev/null)
    if grep -q ":${1-} " /proc/locks; then
        _limpet_r=''
        return 1
    fi
    [ -n "$_limpet_r" ] || { _limpet_r=once && return 1; }
}
until [ -s "$_limpet_l$_limpet_o" ]; do
    _limpet_t=$((_limpet_t + 1))
    if _limpet_given_up; then exec "$@"; fi
    sleep 0.05 2>/dev/null || sleep 1
done
IFS= read -r _limpet_h </proc/sys/kernel/hostname
for _limpet_m in "$_limpet_c/instances/app/$_limpet_h"/*/"sharens_instance_$_limpet_o"; do
    _limpet_r=${_limpet_m%/*}
    _limpet_r=$_limpet_d/instances/app/$_limpet_h/${_limpet_r##*/}/sharens_instance_$$
done
_limpet_m=$_limpet_m/sharens_instance_$_limpet_o.json
rm -rf "$_limpet_d" "$_limpet_l$$"
# The folder is made by this command or not used: everybody can write beside it.
[ -e "$_limpet_m" ] && mkdir -m 700 "$_limpet_d" && mkdir -p "$_limpet_r" &&
    ln -s "$_limpet_m" "$_limpet_r/sharens_instance_$$.json" &&
    ln -s "$_limpet_l$_limpet_o" "$_limpet_l$$" || {
    rm -rf "$_limpet_d"
    exec "$@"
}
IFS=' ' read -r _limpet_m _limpet_m _limpet_m _limpet_m _limpet_k _limpet_m _limpet_h _limpet_m \
    </proc/$$/stat
if [ "$_limpet_k $_limpet_h" = "$$ 0" ] && command -v bash >/dev/null; then
    exec bash -c "$_limpet_x" limpet : "$_limpet_d" "$_limpet_l$$" "$@"
fi
set -- '' "$_limpet_d" "$_limpet_l$$" "$@"
eval "$_limpet_x"
"""
JOIN = f"_limpet_x={shlex.quote(_AS_TASK)}\n{_LINKED}"

# A signal to the first rank is handed on by the runtime, to the process group of its program. So
# all programs of the node are put into that group: each hears the signal once, for whoever starts
# ranks signals all of a node alike. They outlive the process before them, which others may kill.
# The first one's task lasts until all have ended, as they hold its lock.
# Where each task has a group, as below mpiexec, that is signalled: the programs go back to it.
# Run by the image's Python, which becomes the program: a shell can do neither.
TUNE = """\
import ctypes, os, signal, sys, time
for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
group = int(sys.argv[1])
first = group == os.getpid()
for _ in range(200):
    try:
        if not first:
            with open("/proc/%d/stat" % os.getppid()) as file:
                task = int(file.read().rpartition(")")[2].split()[1])
            group = task if os.getpgid(task) == task else group
        os.setpgid(0, group)
        break
    except OSError:
        time.sleep(0.01)
if not first:
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
GATHER = r"""_limpet_o=$1 _limpet_n=$2 _limpet_r=$3 _limpet_w=$4 _limpet_s=$5 _limpet_p=$6
_limpet_c=$7 _limpet_t=0 _limpet_b=''
shift 7
case $_limpet_s in '' | 0* | *[!0-9]*) _limpet_s=30 ;; esac
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
        [ -d "/proc/$_limpet_k" ] || rm -rf "$_limpet_m" 2>/dev/null
    done
}
_limpet_nap() {
    _limpet_t=$((_limpet_t + 1))
    [ "$_limpet_t" -lt "$((_limpet_s * 20))" ] && { sleep 0.05 2>/dev/null || sleep 1; }
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
