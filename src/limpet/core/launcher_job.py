"""The launcher's text for jobs: the image's copy on the node's own disk, and ranks that share.

`JOB` comes before the image is looked at, `SHARE` just before the command line is put together.
"""

from __future__ import annotations

import shlex

from limpet.core.seen import HostSeen
from limpet.core.share import GATHER, LAUNCHERS, RECORDS, SLURM, SWITCH, TUNE, can_share
from limpet.core.slurm import OWN_PLACES, PLACES, job_folder, staged_name

JOB = r"""
# ---- in a job: the image's copy on this node's own disk, and the ranks beside this one ----

_limpet_staged=''
if [ -n "${SLURM_JOB_ID-}" ]; then
    for _limpet_to in @STAGING_PLACES@; do
        case $_limpet_to in /*)
            if [ -O "$_limpet_to/@STAGED@" ]; then
                _limpet_image=$_limpet_to/@STAGED@ _limpet_staged=1
                break
            fi ;;
        esac
    done
fi
_limpet_ranks='' _limpet_rank=''
@SIBLINGS@
"""

_SIBLINGS = r"""case ${@SWITCH@+set}:${SLURM_STEP_TASKS_PER_NODE-}@SIZES@ in
    : | :1 | set:*) ;;
    *)
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
@LAUNCHERS@
            esac
        fi
        case $_limpet_ranks:$_limpet_rank in
            0:* | 1:* | :* | *: | *:*[!0-9]* | *[!0-9]*:*) _limpet_ranks='' ;;
            *)
                for _limpet_to in @OWN_PLACES@; do
                    case ${@RECORDS@+set}:$_limpet_to in :/*)
                        if [ -n "${SLURM_JOB_ID-}" ] && [ -w "$_limpet_to" ]; then
                            export @RECORDS@="$_limpet_to/@JOB_FOLDER@/apptainer"
                        fi ;;
                    esac
                done
                ;;
        esac
        ;;
esac"""

# All ranks get what the first one asked for, so they compare what they asked for.
_SHARE = r"""
if [ -n "$_limpet_ranks" ]; then
    set -- /bin/sh -c @GATHER@ limpet "$PPID" "$_limpet_ranks" "$_limpet_rank" \
        @IDENTITY@" $_limpet_gpu $_limpet_root." @TUNE@ @INSIDE@ "$@"
    _limpet_gpu="--sharens $_limpet_gpu"
else
    set -- @INSIDE@ "$@"
fi"""


def job_parts(host: HostSeen, identity: str, prefix: str) -> dict[str, str]:
    """What fills in the names of `JOB`; `SIBLINGS` and `SHARE` where the runtime can share."""
    places = " ".join(f'"${{{name}-}}"' for name in PLACES)
    parts = {
        "JOB": JOB,
        "STAGING_PLACES": places,
        "STAGED": staged_name("${SLURM_JOB_ID-}", identity),
        "SIBLINGS": "",
        "SHARE": 'set -- @INSIDE@ "$@"',
    }
    if not can_share(host):
        return parts
    cases = [
        f"{'|'.join(names)}) _limpet_ranks=${{{size}-}} _limpet_rank=${{{place}-}} ;;"
        for size, (place, names) in LAUNCHERS.items()
    ]
    text = _SIBLINGS.replace("@LAUNCHERS@", "\n".join(cases))
    own = " ".join(f'"${{{name}-}}"' for name in OWN_PLACES)
    text = text.replace("@OWN_PLACES@", own).replace("@RECORDS@", RECORDS)
    text = text.replace("@JOB_FOLDER@", job_folder("$SLURM_JOB_ID"))
    text = text.replace("@SIZES@", "".join(f"${{{size}-}}" for size in LAUNCHERS))
    return parts | {
        "SIBLINGS": text.replace("@SWITCH@", SWITCH).replace("@SLURM@", SLURM),
        "SHARE": _SHARE.replace("@GATHER@", shlex.quote(GATHER)).replace(
            "@TUNE@", shlex.join((f"{prefix}/bin/python", TUNE) if prefix else ("", ""))
        ),
    }
