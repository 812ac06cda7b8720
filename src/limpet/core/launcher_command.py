"""The launcher's text: the runtime's command line.

POSIX shells have one list, the positional parameters, and it holds the user's words. So mounts are
gathered as lines, three lists of them, each mount before what is there already (bash takes ten
microseconds to put something before a long list), and the shell splits them at the end. What may
be mounted at every start is a table: one assignment where all paths are plain, and a call for each
(in `core.launcher_seldom`) where one of them needs quoting. `@NAME@` and `#if` are as in
`core.launcher_text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from limpet.core.caches import FOLDER, LOCAL
from limpet.core.homes import INSIDE
from limpet.core.launcher_links import LINKS
from limpet.core.launcher_places import POINT, SERVE
from limpet.core.personal import CERTIFICATES, CONFIG, KIT, PACKAGES


class Wanted(NamedTuple):
    """The variable that holds what is mounted (nothing where it is empty), at `target` (empty: its
    own place), for launchers of these `#if` words."""

    variable: str
    target: str = ""
    read_only: bool = False
    words: tuple[str, ...] = ()


BEFORE = (  # … the personal folders
    Wanted("_limpet_place"),
    Wanted("_limpet_temporaries"),
    Wanted("_limpet_other_real", words=("isolated", "host")),
    Wanted("_limpet_own", INSIDE, words=("isolated", "private", "none")),
)
AFTER = (
    Wanted("_limpet_uncovered", words=("isolated",)),
    Wanted("_limpet_local", f"{INSIDE}/{FOLDER}/{LOCAL}", words=("isolated", "private", "none")),
    Wanted("_limpet_packages", PACKAGES, words=("own_packages",)),
    Wanted("_limpet_kit", KIT, read_only=True, words=("packages",)),
    Wanted("_limpet_config", CONFIG, read_only=True, words=("packages",)),
    Wanted("_limpet_certificates", CERTIFICATES, read_only=True, words=("packages",)),
    Wanted("_limpet_root"),  # so that programs inside can call launchers by their path
    Wanted("_limpet_venv"),
    Wanted("_limpet_connection"),
)
_ALWAYS = ("_limpet_own", "_limpet_packages", "_limpet_root")
_LINES = ("_limpet_temporaries", "_limpet_uncovered")  # mounts already, not paths

MOUNT = r"""# Puts a mount before the others; paths with the runtime's separators in them go as CSV.
_limpet_mount() {
    case $1$2 in
        *[:,\"\\"$IFS"]*) _limpet_seldom _limpet_mount_odd "$@" ;;
        "$1$1") _limpet_mounts=--bind$IFS$1${3:+:$1:ro}$IFS$_limpet_mounts ;;
        *) _limpet_mounts=--bind$IFS$1:$2${3:+:ro}$IFS$_limpet_mounts ;;
    esac
}
"""

_START = rf"""
# ---- what the environment gets ----

#if bound
# Below a folder that is mounted at its own place.
_limpet_bound() {{
@BOUND@
#if mixed
    _limpet_top=${{1#/}}
    case /${{_limpet_top%%/*}} in @HOST_OWN@) ;; *) return 0 ;; esac
#end
    return 1
}}
#end
#if mounted
{MOUNT}#end
#if values
_limpet_put() {{ export "$1=$2" "@OURS@$1=$2"; }}
#end
#if packages
#if foreign
if [ -n "$_limpet_kit" ]; then
    _limpet_base=$_limpet_home/.local
#end
#if foreign_isolated
    [ -d "$_limpet_base" ] || _limpet_base=@INSIDE_HOME@/.local
#end
#if own_packages
_limpet_base=@PACKAGES@ _limpet_packages=${{_limpet_own%/home}}/packages
#end
_limpet_to="@KIT@/bin:@BIN_OF_PREFIX@$_limpet_base/bin"
_limpet_to=${{@OURS@PREPEND_PATH:+$@OURS@PREPEND_PATH:}}$_limpet_to
export @SET_PACKAGES@ "PREPEND_PATH=$_limpet_to" "@OURS@PREPEND_PATH=$_limpet_to"
case $_limpet_certificates in ?*) export @SET_CERTIFICATES@ ;; esac
case $_limpet_config in ?*) export @SET_CONFIG@ ;; esac
#if foreign
fi
#end
#end
#if modules
case @LAYERS@:@MOUNTS_NAMED@ in
    [!:]* | @MODULE_FOLDERS@) ;;
    *) export @SET_MODULES@ ;;
esac
#end
#if isolated private none
# Where packages write at import.
case $_limpet_ours$_limpet_others@CACHES_GIVEN@ in
    '') export @CACHES_SET@ ;;
    *) _limpet_seldom _limpet_caches ;;
esac
#end

# ---- what is mounted ----

_limpet_place='' _limpet_pwd=@PWD@
#if no_pwd
#if isolated host
case $_limpet_cwd/ in
    "$_limpet_real"/*) _limpet_pwd=$_limpet_home${{_limpet_cwd#"$_limpet_real"}} ;;
esac
#end
#if bound
if [ -z "$_limpet_pwd" ] && _limpet_bound "$_limpet_cwd"; then _limpet_pwd=$_limpet_cwd; fi
#end
case $_limpet_pwd in '')
    case $_limpet_cwd/ in
#if private
        @STANDS@) ;;
        "$_limpet_home/") ;;
        "$_limpet_home"/*) _limpet_pwd=$_limpet_cwd _limpet_place=$_limpet_cwd ;;
#end
        @ALWAYS@) _limpet_pwd=$_limpet_cwd ;;
#if none
        @STANDS@) ;;
#end
        @FOLDERS@|@TREES@) ;;
        *)
            case $_limpet_real/:$_limpet_home/ in
                "$_limpet_cwd"/* | *:"$_limpet_cwd"/*) ;;
                *) _limpet_pwd=$_limpet_cwd _limpet_place=$_limpet_cwd ;;
            esac
            ;;
    esac
    case $_limpet_pwd in '') _limpet_seldom _limpet_unseen ;; esac
    ;;
esac
#end
#if isolated host
_limpet_other_real=$_limpet_real
case $_limpet_real in "$_limpet_home") _limpet_other_real='' ;; esac
#end
# `odd`: some path has the runtime's separators in it, or is to be looked at more closely.
_limpet_odd=''
case $_limpet_home$_limpet_place$_limpet_own@SOURCES@ in *[:,\"\\"$IFS"]*) _limpet_odd=1 ;; esac
_limpet_temporary=:${{TMPDIR-/tmp}}:${{TMP-/tmp}}:${{TEMP-/tmp}} _limpet_temporaries=''
_limpet_mounts=''
#if isolated
#if clean host_variables
case $_limpet_temporary in *":$_limpet_home"/*) _limpet_odd=1 ;; esac
#end
case $_limpet_cwd/ in "$_limpet_real"/.*) _limpet_odd=1 ;; esac
# The image's own over the personal things that the home has.
_limpet_found='' _limpet_to='' _limpet_late='' _limpet_uncovered=''
if [ @SOME_RARE@ ]; then _limpet_to='@RARE_FILES@'; fi
for _limpet_folder in $_limpet_to @START_FILES@; do
    if [ -f "$_limpet_home/$_limpet_folder" ]; then
        _limpet_found=$_limpet_found$_limpet_folder$IFS
    fi
done
for _limpet_folder in @PERSONAL@; do
    if [ -d "$_limpet_home/$_limpet_folder" ]; then
        _limpet_found=$_limpet_found$_limpet_folder$IFS
    else
        case $_limpet_folder in
@MOVED@
        esac
    fi
done
case $_limpet_other_real in ?*) _limpet_seldom _limpet_cover_again ;; esac
case $_limpet_odd in
    '')
        for _limpet_folder in $_limpet_found; do
            _limpet_to=$_limpet_home/$_limpet_folder _limpet_from=$_limpet_own/$_limpet_folder
            if [ -e "$_limpet_from" ] && ! [ -L "$_limpet_to" ]; then
                _limpet_mounts="--bind$IFS$_limpet_from:$_limpet_to$IFS$_limpet_mounts"
            else
                _limpet_seldom _limpet_cover
            fi
        done
        ;;
    *) _limpet_seldom _limpet_cover_all ;;
esac
#end
_limpet_mounts_2=$_limpet_mounts _limpet_mounts=''
#if isolated
case $_limpet_late in ?*) _limpet_seldom _limpet_uncover ;; esac
#end
#if clean host_variables
# A temporary folder that is not seen inside is worse than none.
case $_limpet_temporary in
    :/tmp:/tmp:/tmp) ;;
    *) . "$_limpet_root/@VERSION_FOLDER@/temporary.sh" ;;
esac
#end
@VALUES@
if [ -n "$_limpet_others" ]; then _limpet_seldom _limpet_drop_others; fi
"""

_ASSEMBLE = r"""
if [ -n "$_limpet_odd" ]; then _limpet_seldom _limpet_assemble; else
@ASSEMBLE@
fi
"""

_MORE = r"""@BINDS@
#if mixed
# What the host has and the image lacks; a link's target is seen at the link's own name.
set +f
for _limpet_to in /*; do
#if private none
    case $_limpet_home/ in "$_limpet_to"/*) continue ;; esac
#end
    case $_limpet_to in @HOST_OWN@) continue ;; esac
    if [ -d "$_limpet_to" ]; then
        _limpet_mount "$_limpet_to" "$_limpet_to"
    fi
done
set -f
export "@OURS@APPEND_PATH=$PATH"; unset @OTHERS@APPEND_PATH
#end
#if private
case $_limpet_home in
    # The runtime mounts these over the home that it was told.
    /tmp/* | /var/tmp/*) _limpet_mount "$_limpet_own" "$_limpet_home" ;;
esac
#end
_limpet_gpu=@GPU@
#if gpu_auto
if [ -e /dev/nvidiactl -o -e /dev/nvidia0 -o -e /dev/kfd ]; then
    _limpet_gpu=--rocm
    if [ -e /dev/nvidiactl ] || [ -e /dev/nvidia0 ]; then _limpet_gpu=--nv; fi
fi
#end
#if isolated host
_limpet_word=$_limpet_home
case $_limpet_home in "${_limpet_account%/}") _limpet_word='' ;; esac
#end
"""

RUN = r"""case $_limpet_locale in :*) LC_ALL=${{_limpet_locale#:}} ;; esac
exec {before}"$_limpet_runtime" @HEAD@ @HOME_FLAG@ $_limpet_gpu @REST@ {options}\
    $_limpet_mounts $_limpet_mounts_2 $_limpet_mounts_1 \
    --pwd "$_limpet_pwd" "$_limpet_image" {words}@INSIDE@ "$@"
"""

_END = r"""#if share keep
case $_limpet_last in ?*) "$_limpet_last" "$@" ;; esac
#end
"""

PLAIN_RUN = RUN.format(before="", options="", words="")

COMMAND = _START + SERVE + _ASSEMBLE + _MORE + POINT + LINKS + _END + PLAIN_RUN


def render_assembly(holds: set[str]) -> dict[str, str]:
    """What mounts the tables' folders: the quick way, and the one that minds every path."""
    before, after = (
        [one for one in table if not one.words or holds & set(one.words)]
        for table in (BEFORE, AFTER)
    )
    told = ("_limpet_own", "_limpet_packages", "_limpet_place", *_LINES)
    paths = [one.variable for one in (*before, *after) if one.variable not in told]
    return {
        "SOURCES": "".join(f"${name}" for name in paths),
        "ASSEMBLE": f"{_quick('_limpet_mounts', before, '')}\n"
        f"{_quick('_limpet_mounts_1', after, _SERVED)}",
        "ASSEMBLE_ODD": f"_limpet_mounts=${_SERVED}\n{_slow(after)}\n"
        f"_limpet_mounts_1=$_limpet_mounts _limpet_mounts=''\n{_slow(before)}",
    }


_SERVED = "_limpet_served_mounts"


def _quick(name: str, wanted: Sequence[Wanted], last: str) -> str:
    """One assignment."""
    text = ""
    for one in wanted:
        if one.variable in _LINES:
            text += f"${one.variable}"
            continue
        mode = ":ro" if one.read_only else ""
        target = f":{one.target or f'${one.variable}'}" if one.target or mode else ""
        line = f"--bind$IFS${one.variable}{target}{mode}$IFS"
        text += line if one.variable in _ALWAYS else f"${{{one.variable}:+{line}}}"
    return f'{name}="{text}{f"${last}" if last else ""}"'


def _slow(wanted: Sequence[Wanted]) -> str:
    """Each goes before what is there already, so the last one comes first."""
    lines = []
    for one in reversed(wanted):
        if one.variable in _LINES:
            lines.append(f"_limpet_mounts=${one.variable}$_limpet_mounts")
            continue
        target = one.target or f"${one.variable}"
        call = f'_limpet_mount "${one.variable}" "{target}"{" ro" if one.read_only else ""}'
        lines.append(f'if [ -n "${one.variable}" ]; then {call}; fi')
    return "\n".join(lines)
