"""The launcher's text; `@NAME@` is filled in by `core.launcher`.

It runs under dash, bash and busybox sh. Everything is named `_limpet_*`, because a name that the
session happens to export would reach the program with a changed value.
"""

SCRIPT = r"""#!/bin/sh
# Written by limpet @LIMPET@; `limpet update` writes it anew. Each launcher is this same text and
# starts the program of its own name.
# shellcheck disable=SC3013,SC2016,SC2221,SC2222 # -ef is in POSIX.1-2024, and before in all shells
_limpet_root=@ROOT_BAKED@
_limpet_name=${0##*/} _limpet_venv='' _limpet_connection='' _limpet_host=@HOST@
unset CDPATH
set -f

_limpet_say() { printf 'limpet: %s\n' "$@" >&2; }
_limpet_fail() { _limpet_say "$@"; exit 125; }
_limpet_back() { cd -- "$_limpet_cwd" || _limpet_fail "$_limpet_cwd cannot be entered."; }

# ---- which folder, which program ----

case $0 in */*) _limpet_at=${0%/*}/ ;; *) _limpet_at=./ ;; esac
if [ -L "$0" ]; then
    if [ -e "${_limpet_at}../pyvenv.cfg" ]; then _limpet_venv=$_limpet_at..; fi
    if [ "$0" -ef "$_limpet_root/bin/$_limpet_name" ]; then
        _limpet_at=$_limpet_root/bin/
    elif [ "$0" -ef "$_limpet_root/bin/python" ]; then
        _limpet_name=python _limpet_at=$_limpet_root/bin/
    else # a link under another name, or to a folder that was moved
        _limpet_link=$_limpet_at$_limpet_name
        while [ -L "$_limpet_link" ]; do
            _limpet_to=$(readlink "$_limpet_link") || exit 125
            case $_limpet_to in
                /*) _limpet_link=$_limpet_to ;;
                *) _limpet_link=${_limpet_link%/*}/$_limpet_to ;;
            esac
        done
        _limpet_name=${_limpet_link##*/} _limpet_at=${_limpet_link%/*}/
    fi
fi
cd -P . 2>/dev/null || _limpet_fail 'The working folder does not exist any more.'
_limpet_cwd=$PWD
[ . -ef "$_limpet_cwd" ] || _limpet_fail 'The working folder does not exist any more.'
if ! [ "$_limpet_at" -ef "$_limpet_root/bin" ]; then # the folder was moved
    cd -P -- "$_limpet_at" || exit 125
    _limpet_root=${PWD%/.limpet/versions/*}
    _limpet_back
fi
_limpet_image=@IMAGE@
@PROGRAMS@

# ---- a virtual environment on top, and arguments that need help ----

case $_limpet_name in python | python[0-9]*)
    case "${1-} ${2-}" in
        '-m venv')
            shift 2
            set -- "$_limpet_root/@VERSION_FOLDER@/on_top.py" "$_limpet_root/bin/$_limpet_name" "$@"
            ;;
        '-m ipykernel_launcher' | '-m ipykernel')
            for _limpet_word; do
                case ${_limpet_flag-}:$_limpet_word in
                    -f:*) _limpet_connection=$_limpet_word ;;
                    *:-f=* | *:--f=*) _limpet_connection=${_limpet_word#*=} ;;
                esac
                _limpet_flag=$_limpet_word
            done
            case $_limpet_connection in
                /*/*) _limpet_connection=${_limpet_connection%/*} ;;
                *) _limpet_connection='' ;;
            esac
            ;;
    esac
    ;;
esac
if [ -n "$_limpet_venv" ]; then
    cd -P -- "$_limpet_venv" || exit 125
    _limpet_venv=$PWD
    _limpet_back
    # Python finds its virtual environment by its own name, which a shell cannot set.
    set -- -I -S -c 'import os, sys; os.execv(sys.argv[1], sys.argv[2:])' \
        "$_limpet_program" "$_limpet_venv/bin/${0##*/}" "$@"
fi
if [ -e /.singularity.d ]; then
    # Already inside: of this image, the program is here; another one has no runtime to start it.
    if [ "${APPTAINER_CONTAINER-${SINGULARITY_CONTAINER-}}" = "$_limpet_image" ]; then
        exec "$_limpet_program" "$@"
    fi
    _limpet_fail "$_limpet_name is a launcher for $_limpet_image." \
        'It cannot be used from inside another container: call it from outside.'
fi

# ---- the image and the runtime ----

[ -r "$_limpet_image" ] || _limpet_fail "The image $_limpet_image is gone or cannot be read." \
    "Bring it back, or name another one: limpet update $_limpet_root IMAGE"
_limpet_runtime=@RUNTIME@
if ! [ -x "$_limpet_runtime" ]; then
    IFS=:
    for _limpet_to in ${PATH-}; do
        for _limpet_link in apptainer singularity; do
            if [ -x "$_limpet_to/$_limpet_link" ] && ! [ -x "$_limpet_runtime" ]; then
                _limpet_runtime=$_limpet_to/$_limpet_link
            fi
        done
    done
    unset IFS
    [ -x "$_limpet_runtime" ] || _limpet_fail 'Neither apptainer nor singularity is in PATH.' \
        "Load your site's module for it (often: module load apptainer)."
fi

# ---- what is seen inside as the home ----

_limpet_put() { export "$1=$2" "@OURS@$1=$2"; unset "@OTHERS@$1"; }

# Sets the runtime's flag for a mount; paths with its separators in them go as CSV.
_limpet_mount() {
    case $1$2 in
        *[:,\"\\]*)
            _limpet_csv "$1"; _limpet_to=$_limpet_text
            _limpet_csv "$2"
            _limpet_flag=--mount
            _limpet_word="type=bind,\"source=$_limpet_to\",\"target=$_limpet_text\"${3:+,ro}"
            ;;
        *)
            _limpet_flag=--bind _limpet_word=$1
            if [ "$1" != "$2" ] || [ -n "${3-}" ]; then _limpet_word=$1:$2${3:+:ro}; fi
            ;;
    esac
}
_limpet_csv() {
    _limpet_text='' _limpet_link=$1
    while :; do
        case $_limpet_link in *\"*) ;; *) break ;; esac
        _limpet_text=$_limpet_text${_limpet_link%%\"*}'""'
        _limpet_link=${_limpet_link#*\"}
    done
    _limpet_text=$_limpet_text$_limpet_link
}

_limpet_account=''
case ${USER:-${LOGNAME-}} in
    '' | [!A-Za-z_]* | *[!A-Za-z0-9._-]*) ;;
    *) eval "_limpet_account=~${USER:-$LOGNAME}" ;;
esac
_limpet_home=''
for _limpet_to in "${HOME-}" "$_limpet_account"; do
    case $_limpet_to in
        /*[!/]*)
            if [ -z "$_limpet_home" ] && [ -d "$_limpet_to" ]; then
                _limpet_home=${_limpet_to%/}
            fi
            ;;
    esac
done
_limpet_real=$_limpet_home
case $_limpet_cwd/ in
    "$_limpet_home"/*) ;;
    *) if cd -P -- "${_limpet_home:-.}" 2>/dev/null; then _limpet_real=$PWD; _limpet_back; fi ;;
esac
_limpet_policy=@HOME_POLICY@
if [ "$_limpet_policy" != none ]; then
    case $_limpet_home in
        '') _limpet_policy=none; _limpet_say 'There is no home inside, for there is none here.' ;;
        *:*)
            _limpet_policy=none
            _limpet_say 'There is no home inside: its path has a colon, where the runtime splits.'
            ;;
    esac
fi

# The image's own folder for personal things: the only thing made here, at the first start.
_limpet_state=@STATE_DIR@
if [ -z "$_limpet_state" ]; then
    case ${LIMPET_STATE_DIR-}:${XDG_STATE_HOME-} in
        /*) _limpet_state=$LIMPET_STATE_DIR ;;
        '~'/*) _limpet_state=${HOME-}${LIMPET_STATE_DIR#'~'} ;;
        [!:]*) _limpet_state=$_limpet_cwd/$LIMPET_STATE_DIR ;;
        :/*) _limpet_state=$XDG_STATE_HOME/limpet ;;
        *) _limpet_state=$_limpet_home/.local/state/limpet ;;
    esac
fi
_limpet_own() { _limpet_own=$_limpet_state/@IDENTITY@/home; }
_limpet_own
_limpet_make() { (umask 077 && mkdir -p -- "$1") 2>/dev/null; }
case $_limpet_policy in isolated | private | none)
    if ! { [ -d "$_limpet_own" ] || _limpet_make "$_limpet_own"; } || ! [ -w "$_limpet_own" ]; then
        _limpet_to=$_limpet_state
        _limpet_state=${TMPDIR:-/tmp}/limpet-$(id -u)
        _limpet_own
        _limpet_say "$_limpet_to cannot be written: this image's personal folders are in" \
            "$_limpet_state and will not last. LIMPET_STATE_DIR names another place."
        _limpet_make "$_limpet_own"
        # Below /tmp someone else may have made it first.
        if [ -L "$_limpet_state" ] || ! [ -O "$_limpet_state" ] || ! [ -w "$_limpet_own" ]; then
            _limpet_fail "$_limpet_state cannot be used." 'Set LIMPET_STATE_DIR.'
        fi
    fi
    ;;
esac

# ---- the variables that pass ----

@JUDGES@
# A Jupyter kernel looks whether its server is still alive.
if [ -n "$_limpet_connection" ]; then
    _limpet_judge_J() { case $1 in JPY_*) ;; *) unset "$1" ;; esac; }
fi
_limpet_twin() { eval "[ -n \"\${@OURS@$1+set}\" ]"; }
for _limpet_to in BIND BINDPATH; do
    eval "_limpet_link=\${@OTHER_NAME@_$_limpet_to-} _limpet_text=\${@OUR_NAME@_$_limpet_to-}"
    if [ -n "$_limpet_link" ] && [ -n "$_limpet_text" ]; then
        export "@OUR_NAME@_$_limpet_to=$_limpet_text,$_limpet_link"
        unset "@OTHER_NAME@_$_limpet_to"
    fi
done
# What pip needs of the session, before it is dropped.
_limpet_pip_config=${PIP_CONFIG_FILE-} _limpet_config_home=${XDG_CONFIG_HOME:-$_limpet_home/.config}
_limpet_ca1=${PIP_CERT-} _limpet_ca2=${SSL_CERT_FILE-} _limpet_ca3=${REQUESTS_CA_BUNDLE-}
_limpet_ca4=${CURL_CA_BUNDLE-}
_limpet_kit=$_limpet_state@KIT_BAKED@
case ${BASH_VERSION-} in 4.4* | [5-9].*)
    unset -f module ml _module_raw which scl switchml spack conda mamba micromamba
    eval "export -n SHELLOPTS BASHOPTS$_limpet_loops"
    ;;
*) # no other shell tells its variables without a copy of itself
    IFS='
'
    for _limpet_to in $(export -p); do
        case $_limpet_to in
            'export '[A-Za-z_]*)
                _limpet_to=${_limpet_to#export } _limpet_to=${_limpet_to%%=*}
                case $_limpet_to in
                    *[!A-Za-z0-9_]*) ;;
                    *) _limpet_judge "$_limpet_to" ;;
                esac
                ;;
        esac
    done
    unset IFS
    ;;
esac

# ---- the command line, from its end to its start ----

set -- @INSIDE@ "$@"
set -- "$_limpet_image" "$@"

_limpet_start=/
case $_limpet_policy in isolated | private | host) _limpet_start=$_limpet_home ;; esac
_limpet_place='' _limpet_pwd=@PWD@

# Below a folder that is mounted at its own place.
_limpet_bound() {
@BOUND@
    if [ -n "$_limpet_host" ]; then
        _limpet_top=${1#/}
        case /${_limpet_top%%/*} in @HOST_OWN@) ;; *) return 0 ;; esac
    fi
    return 1
}
_limpet_seen_at=$_limpet_cwd
case $_limpet_cwd/ in
    "$_limpet_real"/*) _limpet_seen_at=$_limpet_home${_limpet_cwd#"$_limpet_real"} ;;
esac
_limpet_in_home=''
case $_limpet_policy:$_limpet_cwd/ in
    isolated:"$_limpet_real"/* | host:"$_limpet_real"/*) _limpet_in_home=1 ;;
esac
if [ -n "$_limpet_pwd" ]; then :
elif [ -n "$_limpet_in_home" ]; then _limpet_pwd=$_limpet_seen_at
elif _limpet_bound "$_limpet_cwd"; then _limpet_pwd=$_limpet_cwd
else
    case $_limpet_cwd in
        @ALWAYS@) _limpet_pwd=$_limpet_cwd ;;
        @FOLDERS@|@TREES@) _limpet_why='that place is the image'"'s own" ;;
        *)
            case $_limpet_real/:$_limpet_home/ in
                "$_limpet_cwd"/* | *:"$_limpet_cwd"/*)
                    _limpet_why='the home lies below it, and would be seen whole' ;;
                *) _limpet_pwd=$_limpet_cwd _limpet_place=$_limpet_cwd ;;
            esac
            ;;
    esac
fi
if [ -z "$_limpet_pwd" ]; then
    _limpet_pwd=$_limpet_start
    if [ "$_limpet_cwd" != "$_limpet_real" ] || [ "$_limpet_start" != "$_limpet_home" ]; then
        _limpet_say "The working folder $_limpet_cwd is not seen inside: $_limpet_why." \
            "The program starts in $_limpet_start."
    fi
fi
set -- --pwd "$_limpet_pwd" "$@"

# This folder itself, so that programs inside can call launchers by their path.
for _limpet_to in "$_limpet_connection" "$_limpet_venv" "$_limpet_root"; do
    if [ -n "$_limpet_to" ]; then
        _limpet_mount "$_limpet_to" "$_limpet_to"
        set -- "$_limpet_flag" "$_limpet_word" "$@"
    fi
done
# Personal packages, and pip for them.
_limpet_first() {
    for _limpet_link; do
        if [ -f "${_limpet_link:-/}" ]; then return 0; fi
    done
    return 1
}
_limpet_base=''
case $_limpet_start:@PREFIX@:$_limpet_policy in
    /::* | /:/*) ;;
    *::none | *:none) ;;
    *::host) ;;
    *::*)
        if [ -e "$_limpet_kit/pip.zip" ]; then
            _limpet_base=$_limpet_home/.local
            if [ "$_limpet_policy" = isolated ] && ! [ -d "$_limpet_base" ]; then
                _limpet_base=@INSIDE_HOME@/.local
            fi
            _limpet_packages=PIP_BREAK_SYSTEM_PACKAGES=1
        fi
        ;;
    *) _limpet_base=@PACKAGES@ _limpet_packages=@PACKAGES_VARIABLE@=@PACKAGES@ ;;
esac
if [ -n "$_limpet_base" ]; then
    if _limpet_first "$_limpet_ca1" "$_limpet_ca2" "$_limpet_ca3" "$_limpet_ca4"; then
        _limpet_certificates=$_limpet_link
        _limpet_mount "$_limpet_certificates" @PIP_CERTIFICATES@ ro
        set -- "$_limpet_flag" "$_limpet_word" "$@"
        _limpet_put PIP_CERT @PIP_CERTIFICATES@
    fi
    if _limpet_first "$_limpet_pip_config" "$_limpet_config_home/pip/pip.conf" \
        "$_limpet_home/.pip/pip.conf" /etc/pip.conf; then
        _limpet_config=$_limpet_link
        _limpet_mount "$_limpet_config" @PIP_CONFIG@ ro
        set -- "$_limpet_flag" "$_limpet_word" "$@"
        _limpet_put PIP_CONFIG_FILE @PIP_CONFIG@
    fi
    if [ -e "$_limpet_kit/pip.zip" ]; then
        _limpet_mount "$_limpet_kit" @KIT@ ro
        set -- "$_limpet_flag" "$_limpet_word" "$@"
    fi
    if [ "$_limpet_base" = @PACKAGES@ ]; then
        _limpet_to=${_limpet_own%/home}/packages
        [ -d "$_limpet_to" ] || _limpet_make "$_limpet_to" ||
            _limpet_fail "$_limpet_to cannot be made."
        _limpet_from=$_limpet_to
        _limpet_mount "$_limpet_from" @PACKAGES@
        set -- "$_limpet_flag" "$_limpet_word" "$@"
    fi
    _limpet_put "${_limpet_packages%%=*}" "${_limpet_packages#*=}"
    _limpet_put PREPEND_PATH \
        "${@OURS@PREPEND_PATH:+$@OURS@PREPEND_PATH:}@KIT@/bin:@BIN_OF_PREFIX@$_limpet_base/bin"
fi

# Where packages write at import.
_limpet_cache() {
    eval "_limpet_given=\${$1:-\${@OURS@$1:-\${@OTHERS@$1-}}}"
    case ${3:+flag}:$_limpet_given in
        :?* | flag:*compiledir*) return ;;
        flag:?*) _limpet_put "$1" "$_limpet_given,$3=$_limpet_caches/$2" ;;
        flag:) _limpet_put "$1" "$3=$_limpet_caches/$2" ;;
        *) _limpet_put "$1" "$_limpet_caches/$2" ;;
    esac
}
if [ "$_limpet_policy" != host ]; then
    _limpet_caches=@INSIDE_HOME@
    case $_limpet_policy in
        private) _limpet_caches=$_limpet_home ;;
        none)
            _limpet_mount "$_limpet_own" @INSIDE_HOME@
            set -- "$_limpet_flag" "$_limpet_word" "$@"
            _limpet_cache XDG_CACHE_HOME .cache
            ;;
    esac
@CACHES@
    for _limpet_folder in @CACHE_FOLDERS@; do
        [ -d "$_limpet_own/$_limpet_folder" ] || _limpet_make "$_limpet_own/$_limpet_folder" ||
            _limpet_fail "$_limpet_own/$_limpet_folder cannot be made."
    done
fi

# Sets where a thing of the home is seen inside: a link at what it points to.
_limpet_find() {
    _limpet_target=$_limpet_home/$1
    if [ -L "$_limpet_target" ]; then
        if [ -d "$_limpet_target" ] && cd -P -- "$_limpet_target" 2>/dev/null; then
            _limpet_target=$PWD
            _limpet_back
        else
            _limpet_target=$(readlink -f "$_limpet_target")
        fi
        case $_limpet_target in
            "$_limpet_real"/*) _limpet_target=$_limpet_home${_limpet_target#"$_limpet_real"} ;;
        esac
    fi
    _limpet_from=$_limpet_own/$1
}
if [ "$_limpet_policy" = isolated ]; then
    for _limpet_again in yes no; do
        if [ "$_limpet_again" = yes ] && [ "$_limpet_real" = "$_limpet_home" ]; then continue; fi
        for _limpet_folder in @START_FILES@ @PERSONAL@; do
            case $_limpet_folder in
                @PERSONAL_PATTERN@)
                    if ! [ -d "$_limpet_home/$_limpet_folder" ]; then
                        if [ "$_limpet_again" = no ]; then
                            case $_limpet_folder in
@MOVED@
                            esac
                        fi
                        continue
                    fi
                    _limpet_find "$_limpet_folder"
                    [ -d "$_limpet_from" ] || _limpet_make "$_limpet_from" ||
                        _limpet_fail "$_limpet_from cannot be made."
                    ;;
                *)
                    [ -f "$_limpet_home/$_limpet_folder" ] || continue
                    _limpet_find "$_limpet_folder"
                    [ -f "$_limpet_from" ] || : >"$_limpet_from"
                    ;;
            esac
            if [ "$_limpet_again" = yes ]; then
                case $_limpet_target/ in
                    "$_limpet_home"/*)
                        _limpet_target=$_limpet_real${_limpet_target#"$_limpet_home"}
                        ;;
                    *) continue ;;
                esac
            else
                for _limpet_to in @TEMPORARY@; do
                    eval "_limpet_link=\${$_limpet_to-}"
                    case $_limpet_link/ in "$_limpet_target"/*) unset "$_limpet_to" ;; esac
                done
            fi
            _limpet_mount "$_limpet_from" "$_limpet_target"
            set -- "$_limpet_flag" "$_limpet_word" "$@"
        done
    done
    _limpet_mount "$_limpet_own" @INSIDE_HOME@
    set -- "$_limpet_flag" "$_limpet_word" "$@"
fi
case $_limpet_policy in isolated | host)
    if [ "$_limpet_real" != "$_limpet_home" ]; then
        _limpet_mount "$_limpet_real" "$_limpet_real"
        set -- "$_limpet_flag" "$_limpet_word" "$@"
    fi
    ;;
esac
# A temporary folder that is not seen inside is worse than none.
_limpet_mounted=''
for _limpet_to in @TEMPORARY@; do
    eval "_limpet_link=\${$_limpet_to-}"
    _limpet_why=''
    case $_limpet_link in /tmp | /tmp/* | /var/tmp | /var/tmp/*) _limpet_why=seen ;; esac
    case $_limpet_policy:$_limpet_link/ in
        isolated:"$_limpet_home"/* | host:"$_limpet_home"/*) _limpet_why=seen ;;
    esac
    case $_limpet_link/ in "${_limpet_place:-//}"/*) _limpet_why=seen ;; esac
    case $_limpet_link in @ALWAYS@) _limpet_why=seen ;; esac
    if [ -n "$_limpet_why" ] || _limpet_bound "$_limpet_link"; then continue; fi
    case $_limpet_link in
        @FOLDERS@ | @TREES@) ;;
        /*)
            if [ -d "$_limpet_link" ] && [ -w "$_limpet_link" ] && [ -x "$_limpet_link" ]; then
                case $_limpet_home/ in "$_limpet_link"/*) unset "$_limpet_to"; continue ;; esac
                case $_limpet_mounted in *":$_limpet_link:"*) continue ;; esac
                _limpet_mounted=$_limpet_mounted:$_limpet_link:
                _limpet_name=$_limpet_to
                _limpet_mount "$_limpet_link" "$_limpet_link"
                set -- "$_limpet_flag" "$_limpet_word" "$@"
                continue
            fi
            ;;
    esac
    unset "$_limpet_to"
done

@VALUES@
if [ -n "$_limpet_place" ]; then
    _limpet_mount "$_limpet_place" "$_limpet_place"
    set -- "$_limpet_flag" "$_limpet_word" "$@"
fi
@BINDS@
if [ -n "$_limpet_host" ]; then
    # What the host has and the image lacks; a link's target is seen at the link's own name.
    set +f
    for _limpet_to in /*; do
        case $_limpet_policy:$_limpet_home/ in
            none:"$_limpet_to"/* | private:"$_limpet_to"/*) continue ;;
        esac
        case $_limpet_to in @HOST_OWN@) continue ;; esac
        if [ -d "$_limpet_to" ]; then
            _limpet_mount "$_limpet_to" "$_limpet_to"
            set -- "$_limpet_flag" "$_limpet_word" "$@"
        fi
    done
    export "@OURS@APPEND_PATH=$PATH"; unset @OTHERS@APPEND_PATH
fi
set -- @REST@ "$@"
_limpet_gpu=@GPU@
if [ "$_limpet_gpu" = auto ]; then
    if [ -e /dev/nvidiactl ] || [ -e /dev/nvidia0 ]; then _limpet_gpu=nvidia
    elif [ -e /dev/kfd ]; then _limpet_gpu=amd
    fi
fi
case $_limpet_gpu in
    nvidia) set -- --nv "$@" ;;
    amd) set -- --rocm "$@" ;;
esac
case $_limpet_policy in
    none) set -- --no-home --no-mount home "$@" ;;
    private) set -- --home "$_limpet_own:$_limpet_home" "$@" ;;
    *) [ "$_limpet_home" = "${_limpet_account%/}" ] || set -- --home "$_limpet_home" "$@" ;;
esac
exec "$_limpet_runtime" @HEAD@ "$@"
"""
