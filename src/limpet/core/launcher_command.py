"""The launcher's text: the runtime's command line, put together from its end to its start.

POSIX shells have one list, the positional parameters, and it holds the user's words: the mounts are
gathered in lines that are read at the end, each before what is there already. They are several
short lines, because bash takes ten microseconds to put something before a long one. `@NAME@` and
`#if` are as in `core.launcher_text`.
"""

from __future__ import annotations

from limpet.core.launcher_links import LINKS
from limpet.core.launcher_places import POINT, SERVE

_START = r"""
# ---- the command line, from its end to its start ----

_limpet_put() { export "$1=$2" "@OURS@$1=$2"; }

# Puts a mount before the others; paths with the runtime's separators in them go as CSV.
_limpet_mounts='' _limpet_mounts_2=''
_limpet_mount() {
    case $1$2 in
        *[:,\"\\\']*) _limpet_seldom _limpet_mount_odd "$@" ;;
        "$1$1") _limpet_mounts="--bind '$1${3:+:$1:ro}' $_limpet_mounts" ;;
        *) _limpet_mounts="--bind '$1:$2${3:+:ro}' $_limpet_mounts" ;;
    esac
}

# Below a folder that is mounted at its own place.
_limpet_bound() {
@BOUND@
#if mixed
    _limpet_top=${1#/}
    case /${_limpet_top%%/*} in @HOST_OWN@) ;; *) return 0 ;; esac
#end
    return 1
}
_limpet_start=@START@ _limpet_place='' _limpet_pwd=@PWD@
if [ -n "$_limpet_pwd" ]; then :
#if isolated host
elif case $_limpet_cwd/ in "$_limpet_real"/*) ;; *) false ;; esac; then
    _limpet_pwd=$_limpet_home${_limpet_cwd#"$_limpet_real"}
#end
elif _limpet_bound "$_limpet_cwd"; then _limpet_pwd=$_limpet_cwd
else
    case $_limpet_cwd in
#if private
        @STANDS@) _limpet_why="the host's personal folders stay outside" ;;
        "$_limpet_home"/?*) _limpet_pwd=$_limpet_cwd _limpet_place=$_limpet_cwd ;;
        "$_limpet_home") ;;
#end
        @ALWAYS@) _limpet_pwd=$_limpet_cwd ;;
#if none
        @STANDS@) _limpet_why="the host's personal folders stay outside" ;;
#end
        @FOLDERS@|@TREES@) _limpet_why='that place is the image'"'s own" ;;
        *)
            case $_limpet_real/:$_limpet_home/ in
                "$_limpet_cwd"/* | *:"$_limpet_cwd"/*)
                    _limpet_why='the home lies below it, and would be seen whole' ;;
                *) _limpet_pwd=$_limpet_cwd _limpet_place=$_limpet_cwd ;;
            esac
            ;;
    esac
    if [ -z "$_limpet_pwd" ]; then
        _limpet_pwd=$_limpet_start
        if [ "$_limpet_cwd" != "$_limpet_real" ] || [ "$_limpet_start" != "$_limpet_home" ]; then
            _limpet_say "The working folder $_limpet_cwd is not seen inside: $_limpet_why." \
                "The program starts in $_limpet_start."
        fi
    fi
fi
@KEPT@

"""

_MOUNTS = r"""# This folder itself, so that programs inside can call launchers by their path.
for _limpet_to in ${_limpet_connection:+"$_limpet_connection"} \
    ${_limpet_venv:+"$_limpet_venv"} "$_limpet_root"; do
    _limpet_mount "$_limpet_to" "$_limpet_to"
done
#if packages
# Personal packages, and pip for them.
if @HAS_PACKAGES@; then
    case $_limpet_ca1$_limpet_ca2$_limpet_ca3$_limpet_ca4 in ?*)
        for _limpet_to in "$_limpet_ca1" "$_limpet_ca2" "$_limpet_ca3" "$_limpet_ca4"; do
            if [ -f "$_limpet_to" ]; then
                _limpet_mount "$_limpet_to" @PIP_CERTIFICATES@ ro
                export PIP_CERT=@PIP_CERTIFICATES@ @OURS@PIP_CERT=@PIP_CERTIFICATES@
                break
            fi
        done
        ;;
    esac
    for _limpet_to in "$_limpet_pip_config" "$_limpet_config_home/pip/pip.conf" \
        "$_limpet_home/.pip/pip.conf" /etc/pip.conf; do
        if [ -f "$_limpet_to" ]; then
            _limpet_mount "$_limpet_to" @PIP_CONFIG@ ro
            export PIP_CONFIG_FILE=@PIP_CONFIG@ @OURS@PIP_CONFIG_FILE=@PIP_CONFIG@
            break
        fi
    done
    if [ -e "$_limpet_state@KIT_BAKED@/pip.zip" ]; then
        _limpet_mount "$_limpet_state@KIT_BAKED@" @KIT@ ro
    fi
#if own
    _limpet_to=${_limpet_own%/home}/packages _limpet_base=@PACKAGES@
    [ -d "$_limpet_to" ] || _limpet_seldom _limpet_need "$_limpet_to"
    _limpet_mount "$_limpet_to" @PACKAGES@
    @SET_PACKAGES@
#end
#if foreign
    _limpet_base=$_limpet_home/.local
#if isolated
    [ -d "$_limpet_base" ] || _limpet_base=@INSIDE_HOME@/.local
#end
    @SET_PACKAGES@
#end
    _limpet_put PREPEND_PATH \
        "${@OURS@PREPEND_PATH:+$@OURS@PREPEND_PATH:}@KIT@/bin:@BIN_OF_PREFIX@$_limpet_base/bin"
fi
#end
_limpet_mounts_1=$_limpet_mounts _limpet_mounts=''
#if private none
_limpet_mount "$_limpet_own" @INSIDE_HOME@
#end
#if isolated private none
# Where packages write at import.
if [ -n "$_limpet_ours$_limpet_others@CACHES_GIVEN@" ]; then _limpet_seldom _limpet_caches
else @CACHES_SET@; fi
if ! { @CACHES_MADE@; }; then _limpet_seldom _limpet_make_caches; fi
#end
#if isolated

# Puts the image's own over a thing of the home; `odd` is what one has to look at more closely.
_limpet_odd='' _limpet_late=''
case $_limpet_home$_limpet_own in *[:,\"\\\']*) _limpet_odd=1 ;; esac
case $_limpet_cwd/ in "$_limpet_real"/.*) _limpet_odd=1 ;; esac
#if clean host_variables
case :${TMPDIR-}:${TMP-}:${TEMP-} in *":$_limpet_home"/*) _limpet_odd=1 ;; esac
#end
_limpet_covers() {
    for _limpet_folder in @START_FILES@; do
        if [ -f "$_limpet_home/$_limpet_folder" ]; then
            [ -f "$_limpet_own/$_limpet_folder" ] || : >"$_limpet_own/$_limpet_folder"
            if [ -L "$_limpet_home/$_limpet_folder" ] || [ -n "$_limpet_odd" ]; then
                _limpet_seldom _limpet_cover_odd
            else
                _limpet_to="\$_limpet_own/$_limpet_folder:\$_limpet_home/$_limpet_folder"
                _limpet_mounts="--bind \"$_limpet_to\" $_limpet_mounts"
            fi
        fi
    done
    for _limpet_folder in @PERSONAL@; do
        if [ -d "$_limpet_home/$_limpet_folder" ]; then
            [ -d "$_limpet_own/$_limpet_folder" ] ||
                _limpet_seldom _limpet_need "$_limpet_own/$_limpet_folder"
            if [ -L "$_limpet_home/$_limpet_folder" ] || [ -n "$_limpet_odd" ]; then
                _limpet_seldom _limpet_cover_odd
            else
                _limpet_to="\$_limpet_own/$_limpet_folder:\$_limpet_home/$_limpet_folder"
                _limpet_mounts="--bind \"$_limpet_to\" $_limpet_mounts"
            fi
        else
            case $_limpet_folder in
@MOVED@
            esac
        fi
    done
}
if [ "$_limpet_real" != "$_limpet_home" ]; then _limpet_seldom _limpet_cover_again; fi
_limpet_covers
_limpet_mounts_2=$_limpet_mounts _limpet_mounts=''
if [ -n "$_limpet_late" ]; then _limpet_seldom _limpet_uncover; fi
_limpet_mount "$_limpet_own" @INSIDE_HOME@
#end
#if isolated host
if [ "$_limpet_real" != "$_limpet_home" ]; then
    _limpet_mount "$_limpet_real" "$_limpet_real"
fi
#end
#if clean host_variables
# A temporary folder that is not seen inside is worse than none.
case ${TMPDIR-/tmp}:${TMP-/tmp}:${TEMP-/tmp} in
    /tmp:/tmp:/tmp) ;;
    *) . "$_limpet_root/@VERSION_FOLDER@/temporary.sh" ;;
esac
#end
@VALUES@
if [ -n "$_limpet_others" ]; then _limpet_seldom _limpet_drop_others; fi
if [ -n "$_limpet_place" ]; then
    _limpet_mount "$_limpet_place" "$_limpet_place"
fi
@BINDS@
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
if [ -e /dev/nvidiactl ] || [ -e /dev/nvidia0 ]; then _limpet_gpu=--nv
elif [ -e /dev/kfd ]; then _limpet_gpu=--rocm
fi
#end
_limpet_flag=@HOME_FLAG@ _limpet_word=@HOME_WORD@
#if isolated host
if [ "$_limpet_home" = "${_limpet_account%/}" ]; then _limpet_flag='' _limpet_word=''; fi
#end
"""

_END = r"""# In few steps, for each one copies all the words.
#if share
_limpet_join=''
if [ -n "$_limpet_ranks" ]; then . "$_limpet_root/@VERSION_FOLDER@/share.sh"; else
#end
set -- --pwd "$_limpet_pwd" "$_limpet_image" @INSIDE@ "$@"
#if share
fi
#end
eval "set -- $_limpet_mounts $_limpet_mounts_2 $_limpet_mounts_1 \"\$@\""
exec \
#if share
    ${_limpet_join:+/bin/sh -c "$_limpet_join" limpet "$PPID"} \
#end
    "$_limpet_runtime" @HEAD@ $_limpet_flag ${_limpet_word:+"$_limpet_word"} $_limpet_gpu \
    @REST@ "$@"
"""

COMMAND = _START + SERVE + _MOUNTS + POINT + LINKS + _END
