"""The launcher's text for jobs: the image's copy on the node's own disk, and ranks that share.

Files beside the launcher: `JOB` is read in a Slurm job and below an MPI's starter, before the image
is looked at; `RANKS` where there may be several on this node, and `SHARE` by these, as the command
line's end is put together.
"""

from __future__ import annotations

import shlex

import msgspec

from limpet.core.seen import HostSeen
from limpet.core.share import GATHER, JOIN, LAUNCHERS, RECORDS, SLURM, SWITCH, TUNE, can_share
from limpet.core.slurm import OWN_PLACES, PLACES, job_folder, staged_name

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
#if share
case ${@SWITCH@+set}:${SLURM_STEP_TASKS_PER_NODE-}@SIZES@ in
    : | :1 | set:*) ;;
    *) . "$_limpet_root/@VERSION_FOLDER@/ranks.sh" ;;
esac
#end
"""

RANKS = r"""#if share
# Which rank of how many on this node this one is.
_limpet_rank=''
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
    0:* | 1:* | :* | *: | *:*[!0-9]* | *[!0-9]*:*) _limpet_ranks='' ;;
    *)
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
#end
"""

# All ranks get what the first one asked for, so they compare what they asked for.
SHARE = r"""#if share
# Ranks of one node share one container.
set -- --pwd "$_limpet_pwd" "$_limpet_image" /bin/sh -c @GATHER@ limpet \
    "$PPID" "$_limpet_ranks" "$_limpet_rank" \
    @IDENTITY@" $_limpet_gpu $_limpet_root." @TUNE@ @INSIDE@ "$@"
_limpet_mounts="--sharens $_limpet_mounts"
[ "$_limpet_rank" = 0 ] || _limpet_join=@JOIN@
#end
"""


def job_parts(host: HostSeen, identity: str, prefix: str) -> tuple[dict[str, str], set[str]]:
    """What fills in these texts, and the word `share` where the runtime can share."""
    # Whether the session has switched it off or on is asked at each start.
    bare = msgspec.structs.replace(host, environment={})
    cases = [
        f"{'|'.join(names)}) _limpet_ranks=${{{size}-}} _limpet_rank=${{{place}-}} ;;"
        for size, (place, names) in LAUNCHERS.items()
    ]
    sizes = "".join(f"${{{size}-}}" for size in LAUNCHERS)
    shares = can_share(bare)
    parts = {
        "IN_JOB": f"${{SLURM_JOB_ID-}}{sizes if shares else ''}",
        "STAGING_PLACES": _values(PLACES),
        "STAGED": staged_name("${SLURM_JOB_ID-}", identity),
        "SWITCH": SWITCH,
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
    return parts, {"share"} if shares else set()


def _values(names: tuple[str, ...]) -> str:
    return " ".join(f'"${{{name}-}}"' for name in names)
