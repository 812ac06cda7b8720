"""The launcher's text for jobs: the image's copy on the node's own disk, and ranks that share.

Files beside the launcher: `JOB` is read in a job, below an MPI's starter and where images are to be
kept mounted, before the image is looked at, `AHEAD` at the first start of a job on a node, and
`RANKS` where there may be several on this node.
"""

from __future__ import annotations

import shlex

import msgspec

from limpet.core.caches import CACHES
from limpet.core.image import Ahead
from limpet.core.keep import VARIABLE as KEEP_VARIABLE
from limpet.core.launcher_command import RUN
from limpet.core.ranges import join_ranges
from limpet.core.seen import HostSeen
from limpet.core.share import GATHER, JOIN, LAUNCHERS, RECORDS, SLURM, SWITCH, TUNE, WAIT, can_share
from limpet.core.slurm import (
    JOB_VARIABLES,
    OWN_PLACES,
    PLACES,
    job_folder,
    node_local_name,
    staged_name,
)

PAGE_BYTES = 4096
AHEAD_GAP_BYTES = 128 << 10  # each range is a process of its own
AHEAD_MOST_BYTES = 8 << 20  # and two readers take turns
# Of node-local caches those that packages do not make themselves.
LOCAL_FOLDERS = tuple(cache.place for cache in CACHES if cache.local and cache.place and cache.make)

JOB = r"""# In a job: the image's copy on this node's own disk, and the ranks beside this one.
if [ -n "${SLURM_JOB_ID-}" ]; then
    for _limpet_to in @STAGING_PLACES@; do
        case $_limpet_to in /*)
            if [ -O "$_limpet_to/@STAGED@" ]; then
                _limpet_image=$_limpet_to/@STAGED@
                break
            fi ;;
        esac
    done
fi
#if isolated private none
# What compilers keep goes to the job's own folder on this node.
case @JOBS@ in ?*)
    for _limpet_to in @LOCAL_PLACES@; do
        case $_limpet_to in /*)
            if [ -w "$_limpet_to" ] && [ -x "$_limpet_to" ] && cd -P -- "$_limpet_to"; then
                _limpet_local=$PWD
                break
            fi ;;
        esac
    done 2>/dev/null
    ;;
esac
if [ -n "$_limpet_local" ]; then
    cd -- "$_limpet_cwd" || exit 125
    while IFS= read -r _limpet_to; do
        case $_limpet_to in Uid:*) break ;; esac
    done </proc/self/status
    _limpet_to=${_limpet_to#Uid:?}
    _limpet_local=$_limpet_local/@NODE_LOCAL@/@IDENTITY@
    # New in each job, for all ranks at once: made here, so that no rank reads one more file.
    if ! [ -L "${_limpet_local%/*}" ] && ! [ @LOCAL_MADE@ ]; then
        (umask 077 && mkdir -p -- @LOCAL_FOLDERS@) 2>/dev/null
#if ahead
        . "$_limpet_root/@VERSION_FOLDER@/ahead.sh"
#end
    fi
    if [ -L "${_limpet_local%/*}" ] || ! [ -O "${_limpet_local%/*}" ] || ! [ @LOCAL_MADE@ ]; then
        _limpet_seldom _limpet_fail "${_limpet_local%/*} belongs to someone else, or is a link," \
            'or cannot be written. Others could put their code into your programs there.'
    fi
fi
#end
#if share
case ${@SWITCH@+set}:${SLURM_STEP_TASKS_PER_NODE-}@SIZES@ in
    : | :1 | set:*) ;;
    *) . "$_limpet_root/@VERSION_FOLDER@/ranks.sh" ;;
esac
#end
#if keep
# Ranks that share need nothing else.
case $_limpet_last:${@KEEP_VARIABLE@-} in
    : | :0 | :no | ?*:*) ;;
    *) . "$_limpet_root/@VERSION_FOLDER@/keep.sh" ;;
esac
#end
"""

AHEAD = r"""#if ahead
#if isolated private none
# The first start in a job's own folder on this node: what it reads is read ahead, where that is
# slow to come. dd tells how long a page took: less than 0.3 ms is at hand. Where it does not tell,
# as some busybox's, nothing is read.
case $_limpet_image in */"@STAGED@") ;; *)
    if mkdir -- "$_limpet_local.ahead" 2>/dev/null; then
        ( (
            exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- # nobody waits for these
            _limpet_slow=''
            for _limpet_to in @AHEAD_LOOKS@; do
                case $(LC_ALL=C dd if="$_limpet_image" bs=4096 skip="$_limpet_to" count=1 2>&1 \
                    >/dev/null) in
                    *'copied, 0.000'[0-2]* | *'copied, '*e-0[5-9]*) ;;
                    *copied,*) _limpet_slow=$_limpet_slow. ;;
                esac
            done
            _limpet_read() {
                for _limpet_to; do
                    [ -d "$_limpet_local.ahead" ] || break # the job is over
                    dd if="$_limpet_image" of=/dev/null bs=1048576 iflag=skip_bytes,count_bytes \
                        skip="${_limpet_to%:*}" count="${_limpet_to#*:}"
                done
            }
            case $_limpet_slow in
                ??*)
                    _limpet_read @AHEAD_EVEN@ &
                    _limpet_read @AHEAD_ODD@ &
                    ;;
            esac
        ) </dev/null >/dev/null 2>&1 & )
    fi ;;
esac
#end
#end
"""

_GATHERED = r"""/bin/sh -c @GATHER@ limpet "$PPID" "$_limpet_ranks" "$_limpet_rank" \
    @IDENTITY@" $_limpet_gpu $_limpet_root." "$_limpet_wait" @TUNE@ """

_JOINING = """/bin/sh -c @JOIN@ limpet "$PPID" "$_limpet_wait" \\
    """

RANKS = (
    r"""#if share
# Which rank of how many on this node this one is.
_limpet_rank='' _limpet_ranks='' _limpet_wait=${@WAIT@-}
if { IFS= read -r _limpet_to </proc/$PPID/comm; } 2>/dev/null; then
    case $_limpet_to in
        @SLURM@) # 2(x3),1: two on each of three nodes, and one on the next
            _limpet_word=${SLURM_STEP_TASKS_PER_NODE-} _limpet_top=${SLURM_NODEID:-0}
            _limpet_rank=${SLURM_LOCALID-}
            while [ -n "$_limpet_word" ]; do
                _limpet_to=${_limpet_word%%,*}
                case $_limpet_word in
                    *,*) _limpet_word=${_limpet_word#*,} ;;
                    *) _limpet_word='' ;;
                esac
                _limpet_ranks=${_limpet_to%%(*}
                case $_limpet_to in
                    *x*) _limpet_to=${_limpet_to#*x} _limpet_to=${_limpet_to%)} ;;
                    *) _limpet_to=1 ;;
                esac
                _limpet_top=$((_limpet_top - _limpet_to))
                [ "$_limpet_top" -ge 0 ] || break
            done
            ;;
@STARTERS@
    esac
fi
case $_limpet_ranks:$_limpet_rank in
    0:* | 1:* | :* | *: | *:*[!0-9]* | *[!0-9]*:*) ;;
    *)
        _limpet_last=_limpet_share
        for _limpet_to in @OWN_PLACES@; do
            case ${SLURM_JOB_ID:+job}:${@RECORDS@+set}:$_limpet_to in job::/*)
                if [ -d "$_limpet_to" ] && [ -w "$_limpet_to" ] &&
                    [ -x "$_limpet_to" ]; then
                    export @RECORDS@="$_limpet_to/@JOB_FOLDER@/apptainer"
                fi ;;
            esac
        done
        ;;
esac
# All ranks get what the first one asked for, so they compare what they asked for.
_limpet_share() {
#if joins
case $_limpet_rank in 0) ;; *)
    """
    + RUN.format(before=_JOINING, options="--sharens", words=_GATHERED)
    + """    ;;
esac
#end
    """
    + RUN.format(before="", options="--sharens", words=_GATHERED)
    + """}
#end
"""
)


def job_parts(
    host: HostSeen, identity: str, prefix: str, ahead: Ahead
) -> tuple[dict[str, str], set[str]]:
    """What fills in these texts, and their words: `share` where the runtime can share, and `ahead`
    where a start may read ahead."""
    # Whether the session has switched it off or on is asked at each start.
    bare = msgspec.structs.replace(host, environment={})
    cases = [
        f"{'|'.join(names)}) _limpet_ranks=${{{size}-}} _limpet_rank=${{{place}-}} ;;"
        for size, (place, names) in LAUNCHERS.items()
    ]
    sizes = "".join(f"${{{size}-}}" for size in LAUNCHERS)
    shares = can_share(bare)
    jobs = "".join(f"${{{name}-}}" for name in JOB_VARIABLES)
    made = [f'-d "$_limpet_local/{folder}"' for folder in LOCAL_FOLDERS]
    parts = {
        "IN_JOB": f"{jobs}{sizes if shares else ''}${{{KEEP_VARIABLE}-}}",
        "KEEP_VARIABLE": KEEP_VARIABLE,
        "JOBS": jobs,
        "LOCAL_PLACES": _values((*OWN_PLACES, "TMPDIR")),
        "NODE_LOCAL": node_local_name("${_limpet_to%%[!0-9]*}"),
        "LOCAL_MADE": " -a ".join(made),
        "LOCAL_FOLDERS": " ".join(f'"$_limpet_local/{folder}"' for folder in LOCAL_FOLDERS),
        "STAGING_PLACES": _values(PLACES),
        "STAGED": staged_name("${SLURM_JOB_ID-}", identity),
        "SWITCH": SWITCH,
        "WAIT": WAIT,
        "SIZES": sizes,
        "SLURM": SLURM,
        "STARTERS": "\n".join(cases),
        "OWN_PLACES": _values(OWN_PLACES),
        "RECORDS": RECORDS,
        "JOB_FOLDER": job_folder("$SLURM_JOB_ID"),
        "GATHER": shlex.quote(GATHER),
        "JOIN": shlex.quote(JOIN if prefix else ""),
        "TUNE": shlex.join((f"{prefix}/bin/python", TUNE) if prefix else ("", "")),
    }
    # A foreign image has no Python of ours that hears what only the first rank is told.
    words = {"share", "joins"} if prefix else {"share"}
    words = words if shares else set()
    if ahead.ranges:
        parts |= _ahead_parts(ahead)
        words.add("ahead")
    return parts, words


def _ahead_parts(ahead: Ahead) -> dict[str, str]:
    """Pages to look at, here and there in the longest range, and what two readers read."""
    first, length = max(ahead.ranges, key=lambda one: one[1])
    looks = {(first + length * part // 4) // PAGE_BYTES for part in (1, 2, 3)}
    tables, *rest = ahead.ranges
    joined = (tables, *join_ranges(rest, gap_bytes=AHEAD_GAP_BYTES))
    words = [
        f"{at}:{min(AHEAD_MOST_BYTES, start + length - at)}"
        for start, length in joined
        for at in range(start, start + length, AHEAD_MOST_BYTES)
    ]
    return {
        "AHEAD_LOOKS": " ".join(map(str, sorted(looks))),
        "AHEAD_EVEN": " ".join(words[::2]),
        "AHEAD_ODD": " ".join(words[1::2]),
    }


def _values(names: tuple[str, ...]) -> str:
    return " ".join(f'"${{{name}-}}"' for name in names)
