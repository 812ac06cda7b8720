"""The launcher's text for kept images: a start in an instance that holds the same mounts.

Files beside the launcher: `KEEP` is read (by `job.sh`) where the session asks for it, `KEEPING`
where no such instance lives yet. What `limpet kept` reads of it is that of `core.keep`; beside it
lies `same.sh`, for launchers: all that decides what is mounted, as one text, and the process.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping

from limpet.core.keep import (
    ALIVE,
    APART,
    BINDS,
    BUS,
    CONNECTION,
    DEFAULT_LIFETIME_S,
    INSIDE,
    KEEPER,
    KEEPERS,
    LAST,
    MARK,
    NAMESPACES,
    NEVER,
    STARTED_BY,
    overlays,
    plan_start_in,
    render_keeper,
    writes,
)
from limpet.core.launch import Launch
from limpet.core.launcher_command import MOUNT
from limpet.core.launcher_words import quoted

KEEP = r"""#if keep
# A start in a kept image, where the session asks for it.
case $LIMPET_KEEP in
    1 | yes) ;;
    *)
        case ${LIMPET_KEEP%[smhd]} in '' | [!1-9]* | *[!0-9]* | ?????????*)
            _limpet_seldom _limpet_fail \
                "LIMPET_KEEP=$LIMPET_KEEP: it must be a time such as 90s, 15m or 2h." ;;
        esac
        ;;
esac
_limpet_lifetime=$LIMPET_KEEP _limpet_apart="@APART@" _limpet_binds="@BOUND_BY@" _limpet_to=''
# A task of a step is one start, and what it leaves behind ends with the step.
case ${SLURM_JOB_ID-} in ?*) { IFS= read -r _limpet_to </proc/$PPID/comm; } 2>/dev/null ;; esac
case $_limpet_to:${@SWITCH@:-0}:"@NEVER@" in
    @SLURM@:* | *:[!0]*:* | *:*:?*) ;;
    *) _limpet_last=_limpet_keep ;;
esac

_limpet_began() { # of a process: its number, and when it began, in clock ticks
    { IFS= read -r _limpet_to <"/proc/${1:-none}/stat"; } 2>/dev/null || return 1
    IFS=' '
    set -- "$1" ${_limpet_to##*) }
    IFS='
'
    _limpet_process="$1 ${21}" _limpet_hand="$4 $7"
}
_limpet_lives() { _limpet_began "${1%% *}" && [ "$_limpet_process" = "$1" ]; }
# An instance that takes programs; it is told first that one comes.
_limpet_look() {
    set +f
    for _limpet_folder in "$_limpet_kept"/limpet-@KEY@-*; do
        _limpet_known || continue
        [ "$_limpet_was" = "$_limpet_now" ] || continue
        { echo >|"$_limpet_folder/@LAST@"; } 2>/dev/null
        if [ -s "$_limpet_folder/@ALIVE@" ] && _limpet_lives "$_limpet_maker"; then
            set -f
            return 0
        fi
    done
    set -f
    return 1
}
# What is noted down of an instance, in code: nobody else's.
_limpet_known() {
    _limpet_was='' _limpet_maker=''
    if [ -L "$_limpet_folder/same.sh" ] || ! [ -O "$_limpet_folder" ] ||
        ! [ -O "$_limpet_folder/same.sh" ]; then
        return 1
    fi
    command . "$_limpet_folder/same.sh" 2>/dev/null
    return 0
}
_limpet_words() { _limpet_text=$*; }
_limpet_start_in() {
    case $_limpet_locale in :*) LC_ALL=${_limpet_locale#:} ;; esac
    exec "$_limpet_runtime" @START_IN@ --pwd "$_limpet_pwd" "instance://${_limpet_folder##*/}" \
        @INSIDE@ "$@"
}
# The places that are mounted, as lines.
_limpet_list_sources() {
    _limpet_sources=$_limpet_home
    for _limpet_to in $_limpet_mounts $_limpet_mounts_2 $_limpet_mounts_1; do
        case $_limpet_to in
            --*) continue ;;
            type=*)
                _limpet_to=${_limpet_to#*source=}
                _limpet_seldom _limpet_replace "${_limpet_to%%'","target='*}" '""' '"'
                ;;
            *) _limpet_text=${_limpet_to%%:*} ;;
        esac
        _limpet_sources=$_limpet_sources$IFS$_limpet_text
    done
    IFS=,
    set -- $_limpet_binds
    IFS='
'
    # A comma or colon in a path stands behind a backslash: it is none of a place then.
    for _limpet_to; do _limpet_sources=$_limpet_sources${_limpet_to:+$IFS${_limpet_to%%:*}}; done
}
# What this start would mount, as text: of files also what they hold, of mounted places which ones
# they are now.
_limpet_compare() {
    { IFS= read -r _limpet_kept </proc/sys/kernel/hostname; } 2>/dev/null || return
    _limpet_kept=$_limpet_state/.kept/$_limpet_kept
    if [ -e "$_limpet_kept" ] && ! [ -O "$_limpet_kept" ]; then return 1; fi
    _limpet_list_sources
    _limpet_states=$(TZ=UTC0 stat -Lc '%d:%i %s %y' -- "$_limpet_image" "$_limpet_runtime" \
        @OVERLAYS@ @NAMESPACES@ $_limpet_sources 2>/dev/null) || return
    _limpet_files=@FILES@ _limpet_now=''
    for _limpet_to in $_limpet_states; do
        case $_limpet_files in
            0) _limpet_to=${_limpet_to%% *} ;;
            *) _limpet_files=$((_limpet_files - 1)) ;;
        esac
        _limpet_now=$_limpet_now$IFS$_limpet_to
    done
    # The group, and the control groups that take along what is in them.
    {
        while read -r _limpet_groups; do
            case $_limpet_groups in Gid:*) break ;; esac
        done </proc/self/status
        while IFS= read -r _limpet_to; do
            _limpet_groups=$_limpet_groups$IFS$_limpet_to
        done </proc/self/cgroup
    } 2>/dev/null
}
# By hand, a group of its own in the foreground of its terminal, or a kernel for notebooks: Ctrl-C,
# or an interrupt, would kill the runtime's process, which only waits, and so the program.
_limpet_by_hand() {
    case $_limpet_connection in ?*) return 0 ;; esac
    for _limpet_to; do
        case $_limpet_to in */@CONNECTION@) return 0 ;; esac
    done
    _limpet_began $$ && [ "$_limpet_hand" = "$$ $$" ]
}
_limpet_keep() {
    if _limpet_by_hand "$@"; then return 0; fi
    # Of a home that cannot be, these are not the words; the path goes into a JSON text.
    case ${_limpet_home:-:}$_limpet_own in *:*) return 0 ;; esac
    case $_limpet_image in *[[:cntrl:]]*) return 0 ;; esac
    _limpet_compare || return 0
    _limpet_words "$_limpet_now" "$_limpet_groups" "$_limpet_apart" "$_limpet_image" \
        "$_limpet_runtime" @HOME_FLAG@ $_limpet_gpu \
        $_limpet_mounts $_limpet_mounts_2 $_limpet_mounts_1
    _limpet_now=$_limpet_text
    if _limpet_look; then _limpet_start_in "$@"; fi
    . "$_limpet_root/@VERSION_FOLDER@/keeping.sh"
    if _limpet_make_kept; then _limpet_start_in "$@"; fi
    return 0
}
#end
"""

# An instance would hold what this start has open: a lock, a pipe that somebody reads to its end.
# Only bash can close numbers from 10 on.
_CLOSING = r"""for f in /proc/self/fd/*; do
    f=${f##*/}
    case $f in [012]) ;; *) eval "exec $f>&-" ;; esac
done
exec "$@"
"""

KEEPING = (
    rf"""#if keep
# No such instance lives: one start makes it, the others wait for it a little.
{MOUNT}"""
    + r"""
_limpet_not_kept() { _limpet_seldom _limpet_say "The image cannot be kept mounted: $1"; return 1; }
# The lock is a link that names who has it. Two who have it make two instances, no more: each is
# named by its maker, and the runtime may still have what a maker left that was killed.
_limpet_take() {
    ln -s "$_limpet_me" "$_limpet_lock" 2>/dev/null && return
    _limpet_holder=$(readlink "$_limpet_lock") || return 1
    if [ "$_limpet_holder" = "$_limpet_me" ]; then return; fi
    _limpet_unlock "$_limpet_lock" && ln -s "$_limpet_me" "$_limpet_lock" 2>/dev/null
}
# Takes a dead one's lock away: by a rename, for another start may just have taken it over.
_limpet_unlock() {
    _limpet_holder=$(readlink "$1") || return
    if _limpet_lives "$_limpet_holder"; then return 1; fi
    mv -- "$1" "$1-$$" 2>/dev/null || return
    if [ "$(readlink "$1-$$")" != "$_limpet_holder" ]; then
        mv -- "$1-$$" "$1" 2>/dev/null
        return 1
    fi
    rm -f -- "$1-$$"
}
_limpet_make_kept() {
    if ! [ -d "$_limpet_kept" ]; then _limpet_seldom _limpet_make "$_limpet_kept"; fi
    if ! [ -O "$_limpet_kept" -a -w "$_limpet_kept" ]; then
        _limpet_not_kept "$_limpet_kept cannot be written."
        return
    fi
    _limpet_began $$ || return
    _limpet_me=$_limpet_process _limpet_tries=0
    _limpet_instance=$(printf '%s' "$_limpet_now" | cksum)
    _limpet_instance=limpet-@KEY@-${_limpet_instance%% *}
    _limpet_lock=$_limpet_kept/.$_limpet_instance
    _limpet_instance=$_limpet_instance-${_limpet_me% *}-${_limpet_me#* }
    until _limpet_take; do
        _limpet_tries=$((_limpet_tries + 1))
        [ "$_limpet_tries" -lt 50 ] || return
        sleep 0.1 2>/dev/null || sleep 1
        if _limpet_look; then return; fi
        if ! [ -L "$_limpet_lock" ]; then # it has come just now, or cannot be
            _limpet_look
            return
        fi
    done
    # Another start may have been first.
    if ! _limpet_look; then _limpet_make_instance; fi
    if [ "$(readlink "$_limpet_lock")" = "$_limpet_me" ]; then rm -f -- "$_limpet_lock"; fi
    _limpet_look
}
# What has ended: instances, and what starts have left that were killed while they made one.
_limpet_clear_up() {
    _limpet_dead=''
    set +f
    for _limpet_folder in "$_limpet_kept"/limpet-*; do
        _limpet_known || continue
        _limpet_lives "$_limpet_maker" || { rm -rf -- "$_limpet_folder" && _limpet_dead=1; }
    done
    for _limpet_folder in "$_limpet_kept"/.limpet-*; do
        if [ -L "$_limpet_folder" ]; then
            _limpet_unlock "$_limpet_folder"
        elif [ -O "$_limpet_folder" ]; then
            _limpet_began_at=${_limpet_folder##*-} _limpet_maker=${_limpet_folder%-*}
            _limpet_lives "${_limpet_maker##*-} $_limpet_began_at" || rm -rf -- "$_limpet_folder"
        fi
    done
    set -f
    # The runtime forgets what has ended when it lists it.
    case $_limpet_dead in ?*) "$_limpet_runtime" instance list 'limpet-*' >/dev/null 2>&1 ;; esac
    return 0
}
_limpet_make_instance() {
    _limpet_clear_up
    case $_limpet_lifetime in
        1 | yes) _limpet_lifetime=@DEFAULT@ ;;
        *s) _limpet_lifetime=${_limpet_lifetime%s} ;;
        *m) _limpet_lifetime=$((${_limpet_lifetime%m} * 60)) ;;
        *h) _limpet_lifetime=$((${_limpet_lifetime%h} * 3600)) ;;
        *d) _limpet_lifetime=$((${_limpet_lifetime%d} * 86400)) ;;
    esac
    # Whoever clears up in this folder sees it whole, and the process of this start in it.
    _limpet_folder=$_limpet_kept/.$_limpet_instance
    if ! _limpet_prepare 2>/dev/null; then
        rm -rf -- "$_limpet_folder"
        _limpet_not_kept "in $_limpet_kept nothing can be written or executed."
        return
    fi
    _limpet_folder=$_limpet_kept/$_limpet_instance _limpet_why=''
    if _limpet_instance_start && _limpet_pid; then
        if _limpet_kept_alive && _limpet_note_down "$_limpet_now" "$_limpet_process"; then
            return
        fi
        "$_limpet_runtime" instance stop "$_limpet_instance" >/dev/null 2>&1
        _limpet_why='its keeper does not run.'
    else
        while IFS= read -r _limpet_to; do _limpet_why=$_limpet_to; done <"$_limpet_folder/said"
        _limpet_why="the runtime started no instance. $_limpet_why"
    fi 2>/dev/null
    rm -rf -- "$_limpet_folder"
    _limpet_not_kept "$_limpet_why"
}
# Without its keeper it would never end; not every shell tells where nothing can be executed.
_limpet_kept_alive() {
    _limpet_tries=0
    until [ -e "$_limpet_folder/@MARK@" ]; do
        _limpet_tries=$((_limpet_tries + 1))
        [ "$_limpet_tries" -lt 50 ] && _limpet_lives "$_limpet_process" || return
        sleep 0.1 2>/dev/null || sleep 1
    done
}
_limpet_prepare() {
    mkdir -m 700 -- "$_limpet_folder" "$_limpet_folder/@KEEPERS@" &&
        cp -- "$_limpet_root/@VERSION_FOLDER@/keeper.sh" "$_limpet_folder/@KEEPER@" &&
        chmod 700 "$_limpet_folder/@KEEPER@" && [ -x "$_limpet_folder/@KEEPER@" ] &&
        echo >"$_limpet_folder/@ALIVE@" && echo >"$_limpet_folder/@LAST@" &&
        _limpet_note_down '' "$_limpet_me" &&
        mv -- "$_limpet_folder" "$_limpet_kept/$_limpet_instance"
}
_limpet_instance_start() (
    set -- "$_limpet_runtime" instance start @OPTIONS@ @HOME_FLAG@ $_limpet_gpu @REST@ \
        $_limpet_mounts $_limpet_mounts_2 $_limpet_mounts_1
    _limpet_mounts=''
    _limpet_mount "$_limpet_folder/@KEEPER@" @STARTED_BY@ ro
    _limpet_mount "$_limpet_folder/@KEEPERS@" @KEEP_INSIDE@/@KEEPERS@
    _limpet_mount "$_limpet_folder" @KEEP_INSIDE@ ro
    set -- "$@" $_limpet_mounts "$_limpet_image" "$_limpet_instance" "$_limpet_lifetime"
    exec </dev/null >"$_limpet_folder/said" 2>&1
    unset BASH_ENV @BUS@
    if command -v bash >/dev/null; then exec bash -c @CLOSING@ limpet "$@"; fi
    exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
    exec "$@"
)
# The instance's process; what it says is nothing, in files that would stay.
_limpet_pid() {
    _limpet_to=$("$_limpet_runtime" instance list --json "$_limpet_instance" 2>/dev/null)
    _limpet_to=${_limpet_to#*'"pid":'}
    _limpet_to=${_limpet_to# }
    _limpet_began "${_limpet_to%%[!0-9]*}" || return
    for _limpet_to in 1 2; do
        _limpet_to=$(readlink "/proc/${_limpet_process% *}/fd/$_limpet_to")
        case $_limpet_to in */"$_limpet_instance".*) rm -f -- "$_limpet_to" ;; esac
    done
}
_limpet_note_down() {
    _limpet_seldom _limpet_replace "$_limpet_image" "\\" "\\\\"
    _limpet_replace "$_limpet_text" '"' '\"'
    printf '{"name":"%s","image":"%s","pid":%s,"begun":%s,"lifetime_s":%s}\n' \
        "$_limpet_instance" "$_limpet_text" "${2% *}" "${2#* }" "$_limpet_lifetime" \
        >"$_limpet_folder/new" && mv -- "$_limpet_folder/new" "$_limpet_folder/kept.json" &&
        _limpet_replace "$1" "'" "'\\''" &&
        printf '%s\n' "_limpet_was='$_limpet_text' _limpet_maker='$2'" >"$_limpet_folder/new" &&
        mv -- "$_limpet_folder/new" "$_limpet_folder/same.sh"
}
#end
"""
)

KEEPER_FILE = "#if keep\n" + render_keeper() + "#end\n"


def keep_parts(
    plan: Launch, request: Mapping[str, str], identity: str, root: str
) -> tuple[dict[str, str], set[str]]:
    """What fills in these texts, and the word `keep` where a start leaves nothing to the next."""
    if writes(plan):
        return {}, set()
    start_in = plan_start_in(plan, "").argv
    # Whatever else decides what is mounted is in the text that is compared.
    told = [identity, root, *(request[name] for name in ("HEAD", "HOME_FLAG", "REST"))]
    read = overlays(plan)
    return {
        "APART": "|".join(f"${{{name}-}}" for name in APART),
        "BOUND_BY": ",".join(f"${{{name}-}}" for name in BINDS),
        "NEVER": "".join(f"${{{name}-}}" for name in NEVER),
        "OVERLAYS": " ".join(map(quoted, read)),
        "FILES": str(2 + len(read)),
        "NAMESPACES": " ".join(NAMESPACES),
        "BUS": " ".join(BUS),
        "CONNECTION": CONNECTION,
        "MARK": MARK,
        "KEY": hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16],
        "START_IN": " ".join(map(quoted, start_in[1 : start_in.index("--pwd")])),
        "LAST": LAST,
        "ALIVE": ALIVE,
        "KEEPER": KEEPER,
        "KEEPERS": KEEPERS,
        "KEEP_INSIDE": INSIDE,
        "STARTED_BY": STARTED_BY,
        "DEFAULT": str(DEFAULT_LIFETIME_S),
        "CLOSING": shlex.quote(_CLOSING),
    }, {"keep"}
